"""Means, variances and percentiles, of what a source tells.

Nothing that is not a finite number counts: sources send ``null``, ``"NaN"`` and gaps,
and a delivery that took no time at all was not measured.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from ..observation import ServiceTime

#: What a duration is divided by to be seconds.
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

Unit = t.Literal["s", "ms", "us", "ns"]

#: The 95th percentile of the standard normal distribution.
_Z95 = 1.6448536269514722


def number(value: t.Any) -> float | None:
    """Return *value*, which may be text, as a number; ``None`` if it is none."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def variance_of(mean: float, p95: float | None) -> float:
    """Return the variance of durations of which only those two are known.

    They are taken to be log-normal. Without a percentile, or with one that no such
    durations have, they are taken to be exponential, which errs on the large side.
    """
    if p95 is None or p95 <= 0:
        return mean**2
    # p95 / mean = exp(z s - s²/2), whose smaller solution for s is the usual one.
    root = _Z95**2 - 2 * math.log(p95 / mean)
    if root < 0:
        return mean**2
    spread = max(_Z95 - math.sqrt(root), 0.0)
    return mean**2 * math.expm1(spread**2)


def summarized(
    mean: t.Any, samples: t.Any, p95: t.Any, unit: Unit
) -> ServiceTime | None:
    """Return what the three numbers of a source say; ``None`` if they say nothing."""
    average, count, percentile = number(mean), number(samples), number(p95)
    if average is None or count is None or not (average > 0 and count > 0):
        return None
    seconds = average / UNITS[unit]
    if percentile is not None:
        percentile = percentile / UNITS[unit] if percentile > 0 else None
    return ServiceTime(seconds, variance_of(seconds, percentile), count, percentile)


@dataclass(frozen=True)
class Part:
    """What one stretch of time says of a function, in the source's unit."""

    mean: t.Any
    samples: t.Any
    p95: t.Any = None


def merged(parts: t.Iterable[Part], unit: Unit) -> ServiceTime | None:
    """Return what stretches of time say together, each by the weight of its samples.

    The percentile is the mean of theirs, which is near if they are alike.
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
