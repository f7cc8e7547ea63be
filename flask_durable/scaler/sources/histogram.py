"""The spread of durations, from the cumulative buckets of a histogram."""

from __future__ import annotations

import math
import typing as t

#: The lower bound, the upper bound, and the count between them.
Bucket = tuple[float, float, float]


def buckets(cumulative: t.Mapping[float, float]) -> list[Bucket]:
    """Return the counts by bucket, from those of values up to each bound.

    Counts are estimates that may not quite fit together: none is negative.
    """
    found = []
    lower, below = 0.0, 0.0
    for upper, count in sorted(cumulative.items()):
        found.append((lower, upper, max(count - below, 0.0)))
        lower, below = upper, max(count, below)
    return found


def percentile(parts: t.Sequence[Bucket], share: float) -> float | None:
    """Return the duration that this *share* of all does not exceed.

    ``None`` if it is beyond the last bound, or if the buckets are empty.
    """
    left = share * sum(count for _, _, count in parts)
    for lower, upper, count in parts:
        if count and left <= count:
            inside = lower + (upper - lower) * left / count
            return inside if math.isfinite(upper) else None
        left -= count
    return None


def variance(parts: t.Sequence[Bucket]) -> float | None:
    """Return the variance of durations that are spread evenly in their buckets.

    Durations beyond the last bound are taken to be as long as it, the least possible.
    ``None`` if the buckets are empty.
    """
    total = sum(count for _, _, count in parts)
    if not total:
        return None
    bounds = [
        (low, high if math.isfinite(high) else low, count) for low, high, count in parts
    ]
    mean = sum(count * (low + high) / 2 for low, high, count in bounds) / total
    squares = sum(n * (a * a + a * b + b * b) / 3 for a, b, n in bounds) / total
    return max(squares - mean**2, 0.0)
