"""A distribution of times that is cheap to keep, and that is merged by adding.

The buckets grow by a factor of 1.05, so a percentile is off by at most 2.5 %. Number,
sum and sum of squares are kept beside them: mean and variance are exact.
"""

from __future__ import annotations

import math
import typing as t
from collections import defaultdict

#: The factor from the upper end of a bucket to that of the next one.
GROWTH = 1.05

#: Seconds below which times are not told apart.
SHORTEST = 1e-6

_LOG_GROWTH = math.log(GROWTH)


class Histogram:
    """Times in seconds. The counts are weights; without scaling they are whole."""

    def __init__(self) -> None:
        self.samples = 0.0
        self.total = 0.0
        self.squares = 0.0
        self.buckets: defaultdict[int, float] = defaultdict(float)

    def add(self, seconds: float) -> None:
        """Count one time."""
        bucket = math.ceil(math.log(max(seconds, SHORTEST)) / _LOG_GROWTH)
        self.buckets[bucket] += 1
        self.samples += 1
        self.total += seconds
        self.squares += seconds * seconds

    def merge(self, other: Histogram, weight: float = 1.0) -> None:
        """Add the counts of *other*, each time as *weight* of one."""
        self.samples += weight * other.samples
        self.total += weight * other.total
        self.squares += weight * other.squares
        for bucket, count in other.buckets.items():
            self.buckets[bucket] += weight * count

    @property
    def mean(self) -> float:
        """The mean, seconds; 0 if nothing was counted."""
        return self.total / self.samples if self.samples else 0.0

    @property
    def variance(self) -> float:
        """The variance, square seconds."""
        if not self.samples:
            return 0.0
        return max(self.squares / self.samples - self.mean**2, 0.0)

    def quantile(self, share: float) -> float:
        """Return the time, in seconds, that *share* of the counted ones do not exceed.

        :param share: A share such as 0.95.
        """
        left = share * self.samples
        reached = 0.0
        for bucket, count in sorted(self.buckets.items()):
            left -= count
            # The middle of a bucket is at most half of its width away.
            reached = 2 * GROWTH**bucket / (1 + GROWTH)
            if left <= 1e-9 * self.samples:
                break
        return reached

    def fields(self) -> dict[str, float]:
        """Return the stored form of it; :meth:`of` reads that."""
        counts = {f"b:{bucket}": count for bucket, count in self.buckets.items()}
        return {"n": self.samples, "s": self.total, "s2": self.squares, **counts}

    @classmethod
    def of(cls, fields: t.Mapping[str, str]) -> Histogram:
        """Return the histogram with these *fields*."""
        histogram = cls()
        for name, value in fields.items():
            if name.startswith("b:"):
                histogram.buckets[int(name[2:])] = float(value)
        histogram.samples = float(fields.get("n", 0))
        histogram.total = float(fields.get("s", 0))
        histogram.squares = float(fields.get("s2", 0))
        return histogram
