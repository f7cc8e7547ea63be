"""Samples a queue that is too long to be looked at as a whole.

The queue is divided into as many parts as jobs are drawn, and one job of each part is
drawn at random. A *systematic* choice, every hundredth, would see only one function of
a queue that is filled in turns. The first thousand would show only the earliest jobs.

The share of each function is scaled up to the length of the queue, which is known
exactly. :attr:`~flask_durable.scaler.Observation.samples` tells how wrong that may be.
"""

from __future__ import annotations

import itertools
import math
import random
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..decision.fleet import Unit
from ..decision.observation import Running
from ..decision.observation import Sample
from ..decision.observation import Waiting
from ..decision.queueing import samples_needed
from .base import QueueSnapshot
from .base import UNSEEN

#: The most jobs of a pool's queues that are looked at one by one.
MOST_EXACT = 2_000
#: Jobs that are drawn if there are more. If service times deviate by 1.6 times their
#: mean, the waiting work is then known within a tenth.
DRAWN = samples_needed(1.6, 0.1)
#: The number of age ranges into which the jobs of a function are counted.
_AGE_RANGES = 12


@dataclass(frozen=True)
class Job:
    """A job that waits.

    :param function: The name of its function.
    :param since: The time since which it can run, seconds since 1970; ``None`` if that
        is unknown.
    """

    function: str
    since: float | None = None


@dataclass
class Census:
    """The jobs of several queues, counted one queue after the other.

    :param now: Seconds since 1970.
    :param horizon: Seconds from now; jobs due later are left out.
    :param waiting: The jobs that wait, by function and age.
    :param wakeups: Function and seconds until due of the jobs that are due soon.
    :param samples: Samples of the queues that were not looked at as a whole.
    :param queues: The first queue in which each function was seen.
    """

    now: float
    horizon: float
    waiting: list[Waiting] = field(default_factory=list)
    wakeups: list[tuple[str, float]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    queues: dict[str, str] = field(default_factory=dict)

    def count(self, queue: str, length: int, looked: t.Sequence[Job | None]) -> None:
        """Count the jobs that wait in *queue*, as :func:`tally` does."""
        waiting, sample = tally(length, looked, self.now)
        self.waiting += waiting
        if sample is not None:
            self.samples.append(sample)
        for group in waiting:
            self.saw(group.function, queue)

    def count_later(self, queue: str, function: str, due: float, jobs: int = 1) -> None:
        """Count *jobs* that are *due* at a time, seconds since 1970."""
        self.saw(function, queue)
        seconds = max(due - self.now, 0.0)
        if seconds <= self.horizon:
            self.wakeups += [(function, seconds)] * jobs

    def snapshot(
        self, running: t.Collection[Running], units: t.Collection[Unit]
    ) -> QueueSnapshot:
        """Return the counts, with the *running* jobs and the workers.

        Workers may have more jobs than are *running* here. Those are of other queues
        that they serve too: they hold slots as well.
        """
        others = max(sum(unit.busy for unit in units) - len(running), 0)
        return QueueSnapshot(
            self.now,
            tuple(self.waiting),
            (*running, *[Running(UNSEEN, 0.0)] * others),
            tuple(self.wakeups),
            {},
            self.queues,
            tuple(self.samples),
            tuple(units),
        )

    def saw(self, function: str, queue: str) -> None:
        """Remember the queue in which a function was seen."""
        self.queues.setdefault(function, queue)


def positions(
    lengths: t.Mapping[str, int], chance: random.Random
) -> dict[str, list[int]]:
    """Return the positions to look at in each queue, in order: all, or a random sample.

    :param lengths: The number of waiting jobs, by queue.
    :param chance: The generator that draws them.
    """
    total = sum(lengths.values())
    if total <= MOST_EXACT:
        return {queue: list(range(length)) for queue, length in lengths.items()}
    return {
        queue: draw(length, math.ceil(DRAWN * length / total), chance)
        for queue, length in lengths.items()
    }


def draw(length: int, count: int, chance: random.Random) -> list[int]:
    """Return one random position of each of *count* parts; all of a shorter queue."""
    parts = _parts(length, min(count, length))
    return [chance.choice(part) for part in parts]


def weights(length: int, count: int) -> list[int]:
    """Return how many jobs each of the *count* drawn ones stands for."""
    return [len(part) for part in _parts(length, count)]


def _parts(length: int, count: int) -> list[range]:
    ends = [length * number // count for number in range(count + 1)] if count else []
    return [range(*part) for part in itertools.pairwise(ends)]


def tally(
    length: int, looked: t.Sequence[Job | None], now: float
) -> tuple[list[Waiting], Sample | None]:
    """Return the jobs of a queue by function and age, and the sample they come from.

    :param length: The number of jobs in the queue.
    :param looked: The jobs that were looked at; ``None`` for one that does not wait,
        for example because it was gone by then.
    :param now: Seconds since 1970.
    :returns: The groups of jobs, and the sample: ``None`` if all were looked at.
    """
    ages: dict[str, list[float]] = {}
    for job in looked:
        if job is not None:
            age = 0.0 if job.since is None else max(now - job.since, 0.0)
            ages.setdefault(job.function, []).append(age)
    drawn = {function: len(found) for function, found in ages.items()}
    there = sum(drawn.values())
    if len(looked) < length and there:
        # The same share of the jobs that were not looked at does not wait either.
        jobs = round(length * there / len(looked))
        sample, numbers = Sample(jobs, drawn), shares(jobs, list(drawn.values()))
    else:
        sample, numbers = None, list(drawn.values())
    waiting = [
        group
        for (function, found), jobs in zip(ages.items(), numbers, strict=True)
        for group in _ranges(function, sorted(found, reverse=True), jobs)
    ]
    return waiting, sample


def _ranges(function: str, ages: list[float], jobs: int) -> t.Iterator[Waiting]:
    """Spread *jobs* over ranges of the sampled *ages*, oldest first."""
    size = -(-len(ages) // _AGE_RANGES)
    ranges = [ages[first : first + size] for first in range(0, len(ages), size)]
    for found, count in zip(ranges, shares(jobs, [*map(len, ranges)]), strict=True):
        yield Waiting(function, count, found[0], found[-1])


def shares(total: int, weights: t.Sequence[int]) -> list[int]:
    """Return *total* divided by *weights* into whole numbers that add up to it.

    By the largest remainders (Hamilton's method).
    """
    whole = sum(weights)
    exact = [divmod(total * weight, whole) for weight in weights]
    parts = [quotient for quotient, _ in exact]
    order = sorted(range(len(exact)), key=lambda n: exact[n][1], reverse=True)
    for number in order[: total - sum(parts)]:
        parts[number] += 1
    return parts
