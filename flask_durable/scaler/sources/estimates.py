"""Means, variances and percentiles, from the numbers of a source.

Only finite numbers count: sources send ``null``, ``"NaN"`` and gaps. A delivery that
took no time at all was not measured.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from ..decision.observation import ServiceTime

#: The number of each unit in a second.
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

Unit = t.Literal["s", "ms", "us", "ns"]

#: The 95th percentile of the standard normal distribution.
_Z95 = 1.6448536269514722


def number(value: t.Any) -> float | None:
    """Return *value*, which may be text, as a finite number, or ``None``."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def variance_of(mean: float, p95: float | None) -> float:
    """Return the variance of durations from their mean and 95th percentile.

    They are taken to be log-normal. Without a percentile, or with one that no
    log-normal durations have, they are taken to be exponential, which errs on the high
    side.
    """
    if p95 is None or p95 <= 0:
        return mean**2
    # p95 / mean = exp(z s - s²/2); the smaller solution for s is the usual one.
    root = _Z95**2 - 2 * math.log(p95 / mean)
    if root < 0:
        return mean**2
    spread = max(_Z95 - math.sqrt(root), 0.0)
    return mean**2 * math.expm1(spread**2)


def summarized(
    mean: t.Any, samples: t.Any, p95: t.Any, unit: Unit
) -> ServiceTime | None:
    """Return a service time of a source's three numbers; ``None`` if they are none."""
    average, count, percentile = number(mean), number(samples), number(p95)
    if average is None or count is None or not (average > 0 and count > 0):
        return None
    seconds = average / UNITS[unit]
    if percentile is not None:
        percentile = percentile / UNITS[unit] if percentile > 0 else None
    return ServiceTime(seconds, variance_of(seconds, percentile), count, percentile)


@dataclass(frozen=True)
class Part:
    """The numbers of one function in one stretch of time, in the source's unit."""

    mean: t.Any
    samples: t.Any
    p95: t.Any = None


def merged(parts: t.Iterable[Part], unit: Unit) -> ServiceTime | None:
    """Merge stretches of time, each by the weight of its samples.

    The percentile is the mean of theirs, which is close if they are alike.
    """
    known = [(part, _weight(part)) for part in parts]
    total = sum(weight for _, weight in known)
    if not total:
        return None
    mean = sum(float(part.mean) * weight for part, weight in known if weight) / total
    ranked = [(number(p.p95), w) for p, w in known if w and number(p.p95) is not None]
    weights = sum(weight for _, weight in ranked)
    p95 = sum((q or 0.0) * w for q, w in ranked) / weights if weights else None
    return summarized(mean, total, p95, unit)


def _weight(part: Part) -> float:
    mean, samples = number(part.mean), number(part.samples)
    return max(samples or 0.0, 0.0) if mean is not None and mean > 0 else 0.0
