"""The work that is to be started in time, oldest first.

What waits, what is known to come and what is expected to come until another decision
can take effect are one list: jobs with the time at which each is, or was, *released*.
It is served first in, first out, and a job is to start within the desired wait after
its release. All times are seconds from now; what waits already was released before 0.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from .observation import Goal
from .observation import Observation
from .observation import Pool
from .observation import ServiceTime
from .queueing import residual


@dataclass(frozen=True)
class Batch:
    """Jobs that take equally long and whose releases lie evenly in a range.

    :param jobs: How many.
    :param seconds: How long each takes.
    :param first: When the first one is released.
    :param last: When the last one is.
    """

    jobs: int
    seconds: float
    first: float
    last: float

    def releases(self) -> t.Iterator[float]:
        """Yield the time of each release."""
        step = (self.last - self.first) / max(self.jobs - 1, 1)
        for number in range(self.jobs):
            yield self.first + number * step


@dataclass(frozen=True)
class Work:
    """What is to be done, with the terms that a person wants to see.

    :param batches: Everything that is to be started, in any order.
    :param residuals: For each slot that is busy, the seconds until it is free.
    :param seconds: The work that waits, without the margin.
    :param margin: What was added to it.
    :param coming: Jobs that are not there yet: expected, or known to wake up.
    """

    batches: tuple[Batch, ...]
    residuals: tuple[float, ...]
    seconds: float
    margin: float
    coming: int

    @property
    def jobs(self) -> int:
        """Return how many jobs are to be started."""
        return sum(batch.jobs for batch in self.batches)


def typical(observation: Observation, goal: Goal) -> ServiceTime:
    """Return the service time of a function of which nothing is known.

    The mean over the functions that wait, and else over all that are known. If there is
    none, the guess, of which nobody knows how wrong it is: it gets no margin for that.
    """
    known = observation.service_times
    weights = {
        group.function: float(group.jobs)
        for group in observation.waiting
        if group.function in known and group.jobs > 0
    } or dict.fromkeys(known, 1.0)
    total = sum(weights.values())
    if not total:
        return ServiceTime(goal.guess, goal.guess**2, samples=math.inf)
    mean = sum(n * known[name].mean for name, n in weights.items()) / total
    variance = sum(n * known[name].variance for name, n in weights.items()) / total
    return ServiceTime(mean, variance, samples=1)


def assess(observation: Observation, goal: Goal, pool: Pool) -> Work:
    """Return the work that *observation* shows."""
    unknown = typical(observation, goal)

    def service_time(function: str) -> ServiceTime:
        return observation.service_times.get(function, unknown)

    seconds, deviation = _waiting(observation, service_time)
    margin = goal.margin * deviation
    stretch = 1 + margin / seconds if seconds else 1.0
    waiting = tuple(
        Batch(
            group.jobs,
            service_time(group.function).mean * stretch,
            -group.oldest,
            -group.newest,
        )
        for group in observation.waiting
        if group.jobs > 0
    )
    coming = tuple(_coming(observation, pool, service_time))
    residuals = tuple(
        residual(service_time(job.function), job.age) for job in observation.running
    )
    count = sum(batch.jobs for batch in coming)
    return Work(waiting + coming, residuals, seconds, margin, count)


def _waiting(
    observation: Observation, service_time: t.Callable[[str], ServiceTime]
) -> tuple[float, float]:
    """Return the mean of the work that waits and its standard deviation, seconds.

    The jobs of one function vary independently, and the error of its mean is the same
    for all of them, so it counts with the square of their number.
    """
    jobs: dict[str, int] = {}
    for group in observation.waiting:
        jobs[group.function] = jobs.get(group.function, 0) + group.jobs
    seconds = variance = 0.0
    for function, count in jobs.items():
        known = service_time(function)
        seconds += count * known.mean
        error = known.variance / known.samples if known.samples else known.variance
        variance += count * known.variance + count**2 * error
    return seconds, math.sqrt(variance)


def _coming(
    observation: Observation,
    pool: Pool,
    service_time: t.Callable[[str], ServiceTime],
) -> t.Iterator[Batch]:
    """Yield what comes before workers that are asked for next time could be ready."""
    horizon = pool.boot + pool.period
    for function, rate in observation.arrival_rates.items():
        jobs = round(rate * horizon)
        if jobs:
            spacing = horizon / jobs
            last = horizon - spacing / 2
            yield Batch(jobs, service_time(function).mean, spacing / 2, last)
    for function, due in observation.wakeups:
        if due <= horizon:
            yield Batch(1, service_time(function).mean, max(due, 0.0), max(due, 0.0))
