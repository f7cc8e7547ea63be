"""The view of a simulated queue: counts, ages, and means of the past."""

from __future__ import annotations

import random
import typing as t
from collections import defaultdict
from collections import deque

from ..decision.observation import Fleet
from ..decision.observation import Observation
from ..decision.observation import Running
from ..decision.observation import ServiceTime
from ..decision.observation import Waiting
from .workloads import Arrival

#: The two spans, in seconds, over which arrivals are counted.
_LONG_SPAN = 300.0
_SHORT_SPAN = 60.0

#: The number of age ranges into which waiting jobs are counted.
_AGE_RANGES = 12

#: A worker's seconds until it is ready, and function and age of each of its jobs.
SeenWorker = tuple[float, list[tuple[str, float]]]


class SimulatedSensor:
    """Counts the jobs that arrive, and measures those that are done.

    :param noise: The largest error of a count, in jobs.
    :param chance: The generator of the errors.
    """

    def __init__(self, noise: int, chance: random.Random) -> None:
        self._noise = noise
        self._chance = chance
        self._arrivals: deque[tuple[float, str]] = deque()
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def arrived(self, job: Arrival, now: float) -> None:
        """Count a job."""
        self._arrivals.append((now, job.function))

    def done(self, job: Arrival) -> None:
        """Measure a job that is done."""
        sums = self._sums[job.function]
        sums[0] += 1
        sums[1] += job.seconds
        sums[2] += job.seconds**2

    def look(
        self,
        now: float,
        queue: t.Iterable[Arrival],
        workers: t.Iterable[SeenWorker],
    ) -> Observation:
        """Return the observation of this moment.

        :param now: Seconds since the beginning.
        :param queue: The jobs that wait.
        :param workers: The workers that were asked for.
        """
        workers = list(workers)
        running = (Running(f, age) for _, jobs in workers for f, age in jobs)
        return Observation(
            now,
            self._waiting(now, queue),
            tuple(running),
            self.fleet(workers),
            self._service_times(),
            self._rates(now),
        )

    def fleet(self, workers: t.Iterable[SeenWorker]) -> Fleet:
        """Return the workers, which a platform knows without delay."""
        workers = list(workers)
        booting = tuple(sorted(boot for boot, _ in workers if boot > 0))
        busy = sum(bool(jobs) for _, jobs in workers)
        return Fleet(len(workers) - len(booting), booting, busy)

    def _waiting(self, now: float, queue: t.Iterable[Arrival]) -> tuple[Waiting, ...]:
        ages: dict[str, list[float]] = defaultdict(list)
        for job in queue:
            ages[job.function].append(now - job.time)
        return tuple(
            group
            for function in ages
            for group in self._groups(function, ages[function])
        )

    def _groups(self, function: str, ages: list[float]) -> t.Iterator[Waiting]:
        ages.sort(reverse=True)
        size = -(-len(ages) // _AGE_RANGES)
        for first in range(0, len(ages), size):
            part = ages[first : first + size]
            wrong = self._chance.randint(-self._noise, self._noise)
            yield Waiting(function, max(len(part) + wrong, 0), part[0], part[-1])

    def _service_times(self) -> dict[str, ServiceTime]:
        return {
            function: ServiceTime(total / n, max(square / n - (total / n) ** 2, 0), n)
            for function, (n, total, square) in self._sums.items()
        }

    def _rates(self, now: float) -> dict[str, float]:
        """Return the lower one of two rates: a burst that is over is soon forgotten."""
        while self._arrivals and self._arrivals[0][0] < now - _LONG_SPAN:
            self._arrivals.popleft()
        long: dict[str, int] = defaultdict(int)
        short: dict[str, int] = defaultdict(int)
        for time, function in self._arrivals:
            long[function] += 1
            short[function] += time >= now - _SHORT_SPAN
        return {f: min(long[f] / _LONG_SPAN, short[f] / _SHORT_SPAN) for f in long}
