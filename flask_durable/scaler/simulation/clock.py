"""The events of a queue and of a pool of workers, in the order of their times.

Jobs wait in one line, first in, first out. A worker that is asked for takes its boot
time. It then runs as many jobs at a time as it has slots, and may fetch some more that
wait for it alone. A policy decides at regular times, by counts of jobs that may be old
and wrong.

A worker that is given back by a policy that protects work drains: it takes no more
jobs, puts back those it fetched, and stops when it has none. Other policies stop a
random worker, busy or not, and kill its jobs. Those jobs and the fetched ones are
received again after their visibility timeout.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import random
import typing as t
from collections import deque
from dataclasses import dataclass
from dataclasses import field

from ..decision.observation import Observation
from .outcome import Outcome
from .policies import Policy
from .sensor import SeenWorker
from .sensor import SimulatedSensor
from .workloads import Arrival

#: A simulation ends after this many times the time in which its jobs arrive, plus an
#: hour.
_RUNTIME_FACTOR = 2


@dataclass(frozen=True)
class World:
    """The conditions of a simulation.

    :param slots: Jobs that a worker runs at a time.
    :param boot: The shortest and the longest boot time, seconds.
    :param period: Seconds between two looks.
    :param lag: The age of the counts of jobs at a decision, seconds.
    :param visibility: Seconds after which the job of a killed worker is received again.
    :param noise: The largest error of a count of waiting jobs.
    :param prefetch: Jobs that a worker fetches besides those it runs.
    :param measured: True if all service times are known from the beginning, as from
        earlier days; otherwise only those of finished jobs are known.
    """

    slots: int = 1
    boot: tuple[float, float] = (10.0, 40.0)
    period: float = 15.0
    lag: float = 1.0
    visibility: float = 30.0
    noise: int = 0
    prefetch: int = 0
    measured: bool = False


@dataclass(eq=False)
class _Worker:
    number: int
    asked: float
    ready: float
    draining: bool = False
    jobs: dict[int, tuple[Arrival, float]] = field(default_factory=dict)
    fetched: deque[Arrival] = field(default_factory=deque)


class Simulation:
    """One run of one policy over the jobs of one workload."""

    def __init__(
        self,
        jobs: t.Sequence[Arrival],
        policy: Policy,
        world: World,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self._policy = policy
        self._world = world
        self._chance = random.Random(seed)
        self._queue: deque[Arrival] = deque()
        self._numbers = itertools.count()
        self._workers: dict[int, _Worker] = {}
        #: Numbers of workers that may have a free slot, by how many jobs they have.
        self._free: list[list[int]] = [[] for _ in range(world.slots)]
        self._sensor = SimulatedSensor(world.noise, self._chance)
        self._events: list[tuple[float, int, t.Callable[[], None]]] = []
        self._now = 0.0
        self._open = len(jobs)
        self._given_up = (
            _RUNTIME_FACTOR * max((job.time for job in jobs), default=0.0) + 3600
        )
        self._trend = 0
        self.outcome = Outcome(sizes=[(0.0, workers)])
        for _ in range(workers):
            self._offer(self._add(0.0))
        for job in jobs:
            if world.measured:
                self._sensor.done(job)
            self._at(job.time, lambda job=job: self._arrive(job))  # type: ignore[misc]
        self._at(0.0, self._look)

    def run(self) -> Outcome:
        """Return the outcome, once every job is done or given up.

        A policy that kills the jobs it waits for may never finish them.
        """
        while self._open and self._now < self._given_up:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
        self.outcome.jobs += itertools.repeat((self._now, math.inf), self._open)
        for worker in self._workers.values():
            self.outcome.worker_seconds += self._now - worker.asked
        self.outcome.end = self._now
        return self.outcome

    def _at(self, time: float, happen: t.Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), happen))

    # -- Jobs -----------------------------------------------------------------------

    def _arrive(self, job: Arrival) -> None:
        self._sensor.arrived(job, self._now)
        self._queue.append(job)
        self._serve()

    def _serve(self) -> None:
        """Start jobs while there is a job and a free slot; then prefetch the rest."""
        while self._queue:
            worker = self._free_worker()
            if worker is None:
                break
            self._start(worker, self._queue.popleft())
        while self._queue and self._world.prefetch:
            worker = min(self._serving(), key=lambda w: len(w.fetched), default=None)
            if worker is None or len(worker.fetched) >= self._world.prefetch:
                return
            worker.fetched.append(self._queue.popleft())

    def _free_worker(self) -> _Worker | None:
        """Return the busiest worker with a free slot, so that others become idle.

        Among equally busy workers it is the oldest.
        """
        for jobs in reversed(range(self._world.slots)):
            numbers = self._free[jobs]
            while numbers:
                worker = self._workers.get(heapq.heappop(numbers))
                # The entry may be out of date.
                if worker and not worker.draining and len(worker.jobs) == jobs:
                    return worker
        return None

    def _offer(self, worker: _Worker) -> None:
        """Note that the worker may have a free slot."""
        jobs = len(worker.jobs)
        if jobs < self._world.slots:
            heapq.heappush(self._free[jobs], worker.number)

    def _serving(self) -> t.Iterator[_Worker]:
        for worker in self._workers.values():
            if not worker.draining and worker.ready <= self._now:
                yield worker

    def _start(self, worker: _Worker, job: Arrival) -> None:
        number = next(self._numbers)
        worker.jobs[number] = (job, self._now)
        self._offer(worker)
        self._at(self._now + job.seconds, lambda: self._end(worker, number))

    def _end(self, worker: _Worker, number: int) -> None:
        if number not in worker.jobs:
            return  # it was killed
        job, started = worker.jobs.pop(number)
        self.outcome.jobs.append((job.time, started - job.time))
        self._sensor.done(job)
        self._open -= 1
        if worker.draining and not worker.jobs:
            self._remove(worker)
        if worker.fetched:
            self._start(worker, worker.fetched.popleft())
        self._offer(worker)
        self._serve()

    # -- Workers --------------------------------------------------------------------

    def _look(self) -> None:
        workers = self._workers.values()
        fetched = (job for worker in workers for job in worker.fetched)
        waiting = [*self._queue, *fetched]
        seen = self._sensor.look(self._now, waiting, self._seen_workers())
        self._at(self._now + self._world.lag, lambda: self._decide(seen))
        self._at(self._now + self._world.period, self._look)

    def _decide(self, seen: Observation) -> None:
        """Decide by the queue as *seen* some time ago, and by the workers of now."""
        fleet = self._sensor.fleet(self._seen_workers())
        seen = dataclasses.replace(seen, now=self._now, fleet=fleet)
        self._resize(self._policy.decide(seen))

    def _seen_workers(self) -> t.Iterator[SeenWorker]:
        """Yield each worker's seconds until ready, and function and age of its jobs."""
        for worker in self._workers.values():
            if not worker.draining:
                jobs = worker.jobs.values()
                running = [(job.function, self._now - began) for job, began in jobs]
                yield max(worker.ready - self._now, 0.0), running

    def _resize(self, wanted: int) -> None:
        workers = self._workers.values()
        current = [worker for worker in workers if not worker.draining]
        difference = wanted - len(current)
        if not difference:
            return
        trend = 1 if difference > 0 else -1
        self.outcome.turns += trend == -self._trend
        self._trend = trend
        for _ in range(difference):
            self._boot()
        if difference < 0:
            for worker in self._victims(current, -difference):
                self._give_back(worker)
        self._serve()

    def _boot(self) -> None:
        worker = self._add(self._now + self._chance.uniform(*self._world.boot))
        self._note_size()
        self._at(worker.ready, lambda: self._join(worker))

    def _add(self, ready: float) -> _Worker:
        worker = _Worker(next(self._numbers), self._now, ready)
        self._workers[worker.number] = worker
        return worker

    def _join(self, worker: _Worker) -> None:
        self._offer(worker)
        self._serve()

    def _victims(self, workers: list[_Worker], count: int) -> list[_Worker]:
        if not self._policy.protects:
            return self._chance.sample(workers, min(count, len(workers)))
        return sorted(workers, key=lambda w: (len(w.jobs), -w.ready))[:count]

    def _give_back(self, worker: _Worker) -> None:
        if self._policy.protects:
            self._queue.extendleft(reversed(worker.fetched))
            worker.fetched.clear()
            if worker.jobs:
                worker.draining = True
                return
        self._stop(worker)

    def _stop(self, worker: _Worker) -> None:
        """Stop the worker at once: its jobs are received again later."""
        for job, started in worker.jobs.values():
            self.outcome.kills += 1
            self.outcome.lost += self._now - started
            worker.fetched.append(job)
        for job in worker.fetched:
            self._at(self._now + self._world.visibility, lambda j=job: self._again(j))  # type: ignore[misc]
        worker.jobs.clear()
        worker.fetched.clear()
        self._remove(worker)

    def _again(self, job: Arrival) -> None:
        self._queue.appendleft(job)
        self._serve()

    def _remove(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        self._note_size()
        self.outcome.worker_seconds += self._now - worker.asked

    def _note_size(self) -> None:
        sizes = self.outcome.sizes
        if sizes[-1][0] == self._now:
            sizes.pop()
        sizes.append((self._now, len(self._workers)))
