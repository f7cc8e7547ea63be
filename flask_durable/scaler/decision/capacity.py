"""The fewest workers with which jobs start in time.

Jobs are served by their deadlines: those of one queue in their order, and of several
queues the most urgent one first. There are two ways to the same number. The *plan*
places every job on the slot that is free first and counts those that start late. It is
exact, also for jobs that are long compared with the wait. It is slow, so it is used for
up to some thousand jobs. The *flow* treats work as a liquid, for which the need has a
closed form: at each deadline, the slots must have done all the work due before it.

Workers that are not up cannot save a job whose deadline is nearer than their boot time.
If it is only a little farther away, a great many would be needed for a short while. If
the present workers cannot start such a job in time either, its wait is counted from
the time at which new ones are up.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import typing as t
from dataclasses import dataclass

from .observation import Fleet
from .observation import Pool
from .work import SAVABLE
from .work import Work

#: More jobs than this are not placed one by one.
MOST_PLANNED = 3000
#: The most parts into which the flow divides a batch.
_PARTS = 32
_ROUNDING = 1e-9


@dataclass(frozen=True)
class _Job:
    """One job, or in the flow a part of a batch with its last job's deadline."""

    release: float
    seconds: float
    wait: float
    deadline: float


class Slots:
    """The times at which the slots of a pool are free, by its number of workers.

    :param fleet: The workers of the pool.
    :param pool: The slots and the boot time of new ones.
    :param residuals: Seconds until each busy slot is free.

    If workers are given back, those that boot go first, then idle ones. No slot that is
    busy goes.
    """

    def __init__(self, fleet: Fleet, pool: Pool, residuals: t.Sequence[float]) -> None:
        self.size = fleet.size
        self._pool = pool
        self._busy = len(residuals)
        idle = max(fleet.ready * pool.slots - self._busy, 0)
        booting = (b for b in sorted(fleet.booting) for _ in range(pool.slots))
        self._known = [*sorted(residuals), *itertools.repeat(0.0, idle), *booting]

    def free(self, workers: int) -> list[float]:
        """Return when each slot is free in a pool of this many *workers*."""
        known = self._known[: max(workers * self._pool.slots, self._busy)]
        new = max(workers - self.size, 0) * self._pool.slots
        return [*known, *itertools.repeat(self._pool.boot, new)]

    def done(self, workers: int, time: float) -> float:
        """Return how many seconds of work *workers* can have done by *time*."""
        known = self._known[: max(workers * self._pool.slots, self._busy)]
        new = max(workers - self.size, 0) * self._pool.slots
        done = sum(max(time - free, 0.0) for free in known)
        return done + new * max(time - self._pool.boot, 0.0)


def workers_needed(work: Work, fleet: Fleet, pool: Pool) -> int:
    """Return the fewest workers with which each job of *work* starts in time.

    It is at most the number with a job each, as more cannot help. It is at least the
    number that have one already.

    :param work: The work that is to be started.
    :param fleet: The workers of the pool.
    :param pool: Slots and boot time of a worker.
    """
    slots = Slots(fleet, pool, work.residuals)
    planned = work.jobs <= MOST_PLANNED
    # Sorted in the order of service, which a later deadline does not change.
    jobs = sorted(_jobs(work, planned), key=lambda job: (job.deadline, job.release))
    late = _late_in_plan if planned else _late_in_flow
    jobs = _relaxed(jobs, late(jobs, slots, slots.size), pool)
    least = occupied(work, fleet, pool)
    most = math.ceil((work.jobs + len(work.residuals)) / pool.slots)
    return _fewest(
        lambda workers: not any(_second(late(jobs, slots, workers))), least, most
    )


def occupied(work: Work, fleet: Fleet, pool: Pool) -> int:
    """Return how many workers hold the running jobs, if each has a full set."""
    return min(math.ceil(len(work.residuals) / pool.slots), fleet.busy)


def _second(pairs: t.Iterable[tuple[int, bool]]) -> t.Iterator[bool]:
    return (is_late for _, is_late in pairs)


def _jobs(work: Work, each: bool) -> t.Iterator[_Job]:
    for batch in work.batches:
        if each:
            for release in batch.releases():
                yield _Job(release, batch.seconds, batch.wait, release + batch.wait)
            continue
        parts = min(batch.jobs, _PARTS) if batch.last > batch.first else 1
        seconds = batch.jobs * batch.seconds / parts
        step = (batch.last - batch.first) / parts
        for number in range(1, parts + 1):
            release = batch.first + number * step
            yield _Job(release, seconds, batch.wait, release + batch.wait)


def _relaxed(
    jobs: list[_Job], late: t.Iterable[tuple[int, bool]], pool: Pool
) -> list[_Job]:
    nearest = SAVABLE * pool.boot - _ROUNDING
    relaxed = list(jobs)
    for number, is_late in late:
        job = jobs[number]
        if is_late and job.deadline < nearest:
            deadline = pool.boot + job.wait
            relaxed[number] = dataclasses.replace(job, deadline=deadline)
    return relaxed


def _late_in_plan(
    jobs: t.Sequence[_Job], slots: Slots, workers: int
) -> t.Iterator[tuple[int, bool]]:
    """Yield each job's number, and whether its slot is free only after its deadline.

    A slot that becomes free gets the first released job in *jobs*.
    """
    free = slots.free(workers)
    heapq.heapify(free)
    coming = sorted(range(len(jobs)), key=lambda number: jobs[number].release)
    coming.reverse()
    released: list[int] = []
    while coming or released:
        start = free[0] if free else math.inf
        if not released:
            start = max(start, jobs[coming[-1]].release)
        while coming and jobs[coming[-1]].release <= start:
            heapq.heappush(released, coming.pop())
        number = heapq.heappop(released)
        job = jobs[number]
        yield number, start > job.deadline + _ROUNDING
        if free:
            heapq.heapreplace(free, start + job.seconds)


def _late_in_flow(
    jobs: t.Sequence[_Job], slots: Slots, workers: int
) -> t.Iterator[tuple[int, bool]]:
    """Yield each part's number, and whether too little is done by its deadline."""
    due = 0.0
    for number, job in enumerate(jobs):
        due += job.seconds
        done = slots.done(workers, job.deadline)
        yield number, done < due - _ROUNDING * max(due, 1.0)


def _fewest(enough: t.Callable[[int], bool], least: int, most: int) -> int:
    """Return the least number in a range that is enough, found by bisection."""
    low, high = least, most
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low
