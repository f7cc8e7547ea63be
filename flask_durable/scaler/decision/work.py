"""The work that is to be started in time, oldest first.

Three kinds of jobs form one list: those that wait, those that are known to come, and
those expected before another decision can take effect. Each has the time at which it
is, or was, *released*, and the wait within which it is to start after that. All times
are seconds from now; a job that waits already was released before 0.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from .observation import Goal
from .observation import Observation
from .observation import Pool
from .observation import Sample
from .observation import ServiceTime
from .observation import Waiting
from .queueing import residual
from .queueing import rule_of_thumb

#: A deadline is met by new workers if it is this many boot times away.
SAVABLE = 4 / 3
#: The number of time ranges into which a function's wakeups are counted.
_WAKEUP_RANGES = 32


@dataclass(frozen=True)
class Batch:
    """Jobs that take equally long and whose releases are spread evenly over a range.

    :param jobs: The number of jobs.
    :param seconds: The time that each takes.
    :param first: The release of the first one.
    :param last: The release of the last one.
    :param wait: Seconds after its release within which each is to start.
    """

    jobs: int
    seconds: float
    first: float
    last: float
    wait: float

    def releases(self) -> t.Iterator[float]:
        """Yield the time of each release."""
        step = (self.last - self.first) / max(self.jobs - 1, 1)
        for number in range(self.jobs):
            yield self.first + number * step


@dataclass(frozen=True)
class Work:
    """The work to be done, with the terms that a person wants to see.

    :param batches: All jobs that are to be started, in any order.
    :param residuals: For each busy slot, the seconds until it is free.
    :param seconds: The work that waits, without the margin.
    :param margin: The seconds that were added to it.
    :param sampling: The part of its standard deviation that comes from sampled queues.
    :param coming: Jobs that are not there yet: expected, or known to wake up.
    :param rule_of_thumb: The slots of the plain rule for the waiting jobs, not rounded.
    :param wait: The shortest wait that is wanted of a job, seconds.
    """

    batches: tuple[Batch, ...]
    residuals: tuple[float, ...]
    seconds: float
    margin: float
    sampling: float
    coming: int
    rule_of_thumb: float
    wait: float

    @property
    def jobs(self) -> int:
        """Return how many jobs are to be started."""
        return sum(batch.jobs for batch in self.batches)


def typical(observation: Observation, goal: Goal) -> ServiceTime:
    """Return the service time that is assumed for an unknown function.

    It is the mean over the functions that wait, or otherwise over all known ones. If
    none is known, it is the guess. The error of a guess is unknown: it has no margin.
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
    """Return the work in *observation*."""
    unknown = typical(observation, goal)

    def service_time(function: str) -> ServiceTime:
        return observation.service_times.get(function, unknown)

    def wait(group: Waiting) -> float:
        return observation.waits.get(group.function, goal.desired_wait)

    seconds, variance = _waiting(observation, service_time)
    sampling = sum(_sampling(sample, service_time) for sample in observation.samples)
    margin = goal.margin * math.sqrt(variance + sampling)
    stretch = 1 + margin / seconds if seconds else 1.0
    waiting = tuple(
        Batch(
            group.jobs,
            service_time(group.function).mean * stretch,
            -group.oldest,
            -group.newest,
            wait(group),
        )
        for group in observation.waiting
        if group.jobs > 0
    )
    coming = tuple(_coming(observation, goal, pool, service_time))
    residuals = tuple(
        residual(service_time(job.function), job.age) for job in observation.running
    )
    rule = sum(
        rule_of_thumb(group.jobs, service_time(group.function).mean, wait(group))
        for group in observation.waiting
    )
    batches = waiting + coming
    count = sum(batch.jobs for batch in coming)
    shortest = min((batch.wait for batch in batches), default=goal.desired_wait)
    return Work(
        batches,
        residuals,
        seconds,
        margin,
        math.sqrt(sampling),
        count,
        rule,
        shortest,
    )


def _waiting(
    observation: Observation, service_time: t.Callable[[str], ServiceTime]
) -> tuple[float, float]:
    """Return the mean of the work that waits, seconds, and its variance.

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
    return seconds, variance


def _sampling(sample: Sample, service_time: t.Callable[[str], ServiceTime]) -> float:
    """Return the variance of a queue's work that comes from sampling it.

    Each draw yields a random function, and with it a random duration. The more of the
    queue was looked at, the less is left to guess (Cochran, "Sampling Techniques",
    1977, section 2.6).
    """
    size = sample.size
    if size < 2 or size >= sample.jobs:
        return 0.0
    times = [(service_time(name).mean, count) for name, count in sample.drawn.items()]
    mean = sum(seconds * count for seconds, count in times) / size
    square = sum(count * (seconds - mean) ** 2 for seconds, count in times) / (size - 1)
    return sample.jobs**2 * square / size * (1 - size / sample.jobs)


def _coming(
    observation: Observation,
    goal: Goal,
    pool: Pool,
    service_time: t.Callable[[str], ServiceTime],
) -> t.Iterator[Batch]:
    """Yield the jobs that come before workers of the next decision could be ready."""
    horizon = pool.boot + pool.period
    for function, rate in observation.arrival_rates.items():
        wait = observation.waits.get(function, goal.desired_wait)
        jobs = round(rate * horizon)
        # Jobs that the next look still finds in time need no workers before they come.
        if jobs and wait < pool.period + SAVABLE * pool.boot:
            spacing = horizon / jobs
            seconds = service_time(function).mean
            yield Batch(jobs, seconds, spacing / 2, horizon - spacing / 2, wait)
    for function, times in _soon(observation.wakeups, horizon).items():
        wait = observation.waits.get(function, goal.desired_wait)
        seconds = service_time(function).mean
        size = -(-len(times) // _WAKEUP_RANGES)
        for first in range(0, len(times), size):
            some = times[first : first + size]
            yield Batch(len(some), seconds, some[0], some[-1], wait)


def _soon(
    wakeups: t.Iterable[tuple[str, float]], horizon: float
) -> dict[str, list[float]]:
    """Return the due times of wakeups within *horizon*, in order, by function."""
    found: dict[str, list[float]] = {}
    for function, due in sorted(wakeups):
        if due <= horizon:
            found.setdefault(function, []).append(max(due, 0.0))
    return found
