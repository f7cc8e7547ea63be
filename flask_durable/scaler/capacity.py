"""The fewest workers with which jobs start in time.

Jobs are served by their deadlines, so those of one queue in their order, and of several
the most urgent one first. There are two ways to the same number. The *plan* places
every job on the slot that is free first and counts those that start late: exact, also
for jobs that are long against the wait, and dear, so it is for some thousand jobs. The
*flow* treats work as a liquid, for which the need has a closed form: at each deadline,
what the slots have done by then must be what has to be done before it.

Workers that are not up cannot save a job whose deadline is nearer than their boot time,
and where it is only little farther away, a great many would be needed for a short
while. Such a job, where the workers there are cannot start it in time either, is given
the desired wait from when new ones are up.
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
#: Into how many parts the flow divides a batch, at most.
_PARTS = 32
_ROUNDING = 1e-9


@dataclass(frozen=True)
class _Job:
    """One job, or in the flow a part of a batch whose deadline is its last one's."""

    release: float
    seconds: float
    wait: float
    deadline: float


class Slots:
    """When each slot of a pool is free, by the number of its workers.

    :param fleet: The workers there are.
    :param pool: What new ones are like.
    :param residuals: Seconds until each busy slot is free.

    Of workers that are given back, those go first that are not ready yet, then idle
    ones. No slot that is busy goes.
    """

    def __init__(self, fleet: Fleet, pool: Pool, residuals: t.Sequence[float]) -> None:
        self.size = fleet.size
        self._pool = pool
        self._busy = len(residuals)
        idle = max(fleet.ready * pool.slots - self._busy, 0)
        booting = (b for b in sorted(fleet.booting) for _ in range(pool.slots))
        self._known = [*sorted(residuals), *itertools.repeat(0.0, idle), *booting]

    def free(self, workers: int) -> list[float]:
        """Return when each slot of so many *workers* is free."""
        known = self._known[: max(workers * self._pool.slots, self._busy)]
        new = max(workers - self.size, 0) * self._pool.slots
        return [*known, *itertools.repeat(self._pool.boot, new)]

    def done(self, workers: int, time: float) -> float:
        """Return how many seconds of work so many *workers* can have done by *time*."""
        known = self._known[: max(workers * self._pool.slots, self._busy)]
        new = max(workers - self.size, 0) * self._pool.slots
        done = sum(max(time - free, 0.0) for free in known)
        return done + new * max(time - self._pool.boot, 0.0)


def workers_needed(work: Work, fleet: Fleet, pool: Pool) -> int:
    """Return the fewest workers with which each job of *work* starts in time.

    At most as many as have a job each, more cannot help; and at least those that have
    one already.

    :param work: What is to be started.
    :param fleet: The workers there are.
    :param pool: Slots and boot time of a worker.
    """
    slots = Slots(fleet, pool, work.residuals)
    planned = work.jobs <= MOST_PLANNED
    # In the order in which they are served, which a later deadline does not change.
    jobs = sorted(_jobs(work, planned), key=lambda job: (job.deadline, job.release))
    late = _late_in_plan if planned else _late_in_flow
    jobs = _relaxed(jobs, late(jobs, slots, slots.size), pool)
    least = occupied(work, fleet, pool)
    most = math.ceil((work.jobs + len(work.residuals)) / pool.slots)
    return _fewest(
        lambda workers: not any(_second(late(jobs, slots, workers))), least, most
    )


def occupied(work: Work, fleet: Fleet, pool: Pool) -> int:
    """Return how many workers hold the jobs that run, if each has all it can have."""
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

    Whenever a slot is free, it gets the first in *jobs* of those that are released.
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
    """Return the least number in a range that is enough, by bisection."""
    low, high = least, most
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low
