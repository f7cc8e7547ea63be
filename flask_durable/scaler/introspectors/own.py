"""Looks into our own queues: at runs, workers, and events that are not routed yet.

The counts are exact: the scripts that queue and claim a run keep an index of waiting
runs, by queue and function. A run that is queued again, after a sleep or a failure,
counts as another job. The counts are not of one moment, since partitions are read one
after the other.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections import Counter

from ...common.ids import plain_function
from ...common.ids import process_of
from ...redis.client import ask_holder
from ...store.keys import Keys
from ...store.server import StateServer
from ..decision.fleet import Silence
from ..decision.fleet import UnitKey
from ..decision.fleet import units_of
from ..decision.observation import Running
from ..decision.observation import Waiting
from .base import QueueSnapshot


class Workers(t.Protocol):
    """Knows the living workers."""

    def workers(self) -> list[dict[str, t.Any]]:
        """Return the latest report of each of them."""


#: Runs that a worker executes at a time, unless it is started with another number.
SLOTS = 8


class OwnQueues:
    """Looks into the queues of this app.

    :param queues: The names of the queues.
    :param sensor: The sensor that counts their runs.
    :param directory: The directory of the workers.
    :param unrouted: A function that returns how many events wait to be routed.
    :param by: The part of a worker's beat that names its unit.
    """

    silence: Silence = "booting"
    slots = SLOTS

    def __init__(
        self,
        queues: t.Collection[str],
        sensor: RunSensor,
        directory: Workers,
        unrouted: t.Callable[[], int],
        by: UnitKey = "unit",
    ) -> None:
        self._queues = queues
        self._sensor = sensor
        self._directory = directory
        self._unrouted = unrouted
        self._by = by

    def look(self, horizon: float) -> QueueSnapshot:
        """Return the jobs and workers of the queues.

        :raises redis.RedisError: The state server does not answer.
        """
        snapshot = self._sensor.look(horizon)
        # Read after the runs: a worker that has one by now has reported before.
        workers = self._directory.workers()
        snapshot = dataclasses.replace(
            snapshot,
            waiting=self._waiting(snapshot, _are_routed(workers)),
            units=tuple(units_of(workers, self._queues, self._by)),
        )
        if not all("process" in worker for worker in workers):
            return snapshot  # a worker of another version does not name its process
        return self._attributed(snapshot, workers)

    def _attributed(
        self, snapshot: QueueSnapshot, workers: t.Sequence[dict[str, t.Any]]
    ) -> QueueSnapshot:
        """Return *snapshot* with each run assigned to its worker.

        A worker that drains or is gone has no free thread when a run ends. The runs of
        one that is gone are begun by others when their leases have ended.
        """
        held = Counter(job.process for job in snapshot.running)
        serving = {w["process"] for w in workers if not w.get("draining")}
        known = {worker["process"] for worker in workers}
        orphans = [job for job in snapshot.running if job.process not in known]
        return dataclasses.replace(
            snapshot,
            running=tuple(job for job in snapshot.running if job.process in serving),
            wakeups=(*snapshot.wakeups, *((job.function, 0.0) for job in orphans)),
            units=tuple(units_of(_up_to_date(workers, held), self._queues, self._by)),
            orphans=len(orphans),
        )

    def are_deserted(self) -> bool:
        """Return whether jobs wait and no worker at all is up for them.

        :raises redis.RedisError: The state server does not answer.
        """
        workers = self._directory.workers()
        if any(not unit.draining for unit in units_of(workers, self._queues, self._by)):
            return False
        return bool(self._waiting(self._sensor.look(0), _are_routed(workers)))

    def _waiting(self, snapshot: QueueSnapshot, routed: bool) -> tuple[Waiting, ...]:
        """Return the waiting runs. Events that no worker routes count as one."""
        if routed or snapshot.waiting or not self._unrouted():
            return snapshot.waiting
        return (Waiting("events", 1),)


def _are_routed(workers: t.Iterable[t.Mapping[str, t.Any]]) -> bool:
    """Return whether a worker, of any queue, takes events."""
    return not all(worker.get("draining") for worker in workers)


def _up_to_date(
    workers: t.Iterable[dict[str, t.Any]], held: Counter[str]
) -> t.Iterator[dict[str, t.Any]]:
    """Yield *workers* with the runs that they took since their last report."""
    for worker in workers:
        busy = max(worker["busy"], held[worker["process"]])
        yield {**worker, "busy": busy}


#: The number of age ranges into which the waiting runs of a function are counted.
_AGE_RANGES = 12
#: The most runs that wake up soon, or that run, looked at in one partition.
_MOST_RUNS = 10_000


class RunSensor:
    """Counts the runs of some queues.

    :param server: The state server with the runs.
    :param keys: The key names of the namespace.
    :param queues: The names of the queues. A function in several queues counts for the
        first of them.
    """

    def __init__(
        self, server: StateServer, keys: Keys, queues: t.Iterable[str]
    ) -> None:
        self._server = server
        self._keys = keys
        self._queues = tuple(queues)

    def look(self, horizon: float) -> QueueSnapshot:
        """Return the runs of the queues.

        :param horizon: Seconds into the future for which wakeups are looked up.
        :raises redis.RedisError: The server does not answer.
        """
        seconds, microseconds = ask_holder(self._server.client, self._keys.root, "TIME")
        now = int(seconds) + int(microseconds) / 1e6
        waiting: list[Waiting] = []
        running: list[Running] = []
        wakeups: list[tuple[str, float]] = []
        arrived: dict[str, int] = {}
        queues: dict[str, str] = {}
        for tag in self._keys.tags:
            for job, count in self._jobs(tag, arrived, queues).items():
                waiting += self._waiting(tag, job, count, now)
            running += self._running(tag, now)
            wakeups += self._wakeups(tag, now, horizon)
        return QueueSnapshot(
            now, tuple(waiting), tuple(running), tuple(wakeups), arrived, queues
        )

    def _jobs(
        self, tag: str, arrived: dict[str, int], queues: dict[str, str]
    ) -> dict[str, int]:
        """Add up arrived runs; return the waiting ones by queue and function."""
        counts = t.cast("dict[str, str]", self._server.client.hgetall(f"{tag}:arrived"))
        jobs = [job for job in counts if job.partition(":")[0] in self._queues]
        pipeline = self._server.client.pipeline(transaction=False)
        for job in jobs:
            queue, function = job.partition(":")[0], _function_of(job)
            known = queues.get(function, queue)
            queues[function] = min(known, queue, key=self._queues.index)
            arrived[function] = arrived.get(function, 0) + int(counts[job])
            pipeline.zcard(f"{tag}:waiting:{job}")
        return dict(zip(jobs, pipeline.execute() if jobs else (), strict=True))

    def _waiting(
        self, tag: str, job: str, count: int, now: float
    ) -> t.Iterator[Waiting]:
        """Yield the waiting runs of one queue and function, in ranges of age."""
        key = f"{tag}:waiting:{job}"
        size = max(-(-count // _AGE_RANGES), 1)
        ranges = [(n, min(n + size, count) - 1) for n in range(0, count, size)]
        pipeline = self._server.client.pipeline(transaction=False)
        for first, last in ranges:
            pipeline.zrange(key, first, first, withscores=True)
            pipeline.zrange(key, last, last, withscores=True)
        ends = [
            max(now - found[0][1] / 1000, 0.0) if found else None
            for found in (pipeline.execute() if ranges else ())
        ]
        for (first, last), oldest, newest in zip(
            ranges, ends[::2], ends[1::2], strict=True
        ):
            if oldest is not None:  # otherwise they were taken in between
                newest = 0.0 if newest is None else min(newest, oldest)
                yield Waiting(_function_of(job), last - first + 1, oldest, newest)

    def _running(self, tag: str, now: float) -> t.Iterator[Running]:
        client = self._server.client
        ids = t.cast("list[str]", client.zrange(f"{tag}:leases", 0, _MOST_RUNS))
        for function, claimed, token in self._read(tag, ids, "claimed_at", "token"):
            age = max(now - int(claimed) / 1000, 0.0)
            yield Running(function, age, process_of(token))

    def _wakeups(
        self, tag: str, now: float, horizon: float
    ) -> t.Iterator[tuple[str, float]]:
        until = (now + horizon) * 1000
        found = t.cast(
            "list[str]",
            self._server.client.zrangebyscore(
                f"{tag}:timers", "-inf", until, start=0, num=_MOST_RUNS
            ),
        )
        ids = [timer[5:] for timer in found if timer.startswith("wake:")]
        for function, due in self._read(tag, ids, "due"):
            yield function, max(int(due) / 1000 - now, 0.0)

    def _read(
        self, tag: str, ids: t.Sequence[str], *fields: str
    ) -> t.Iterator[tuple[str, ...]]:
        """Yield function and *fields* of the runs that are in our queues."""
        if not ids:
            return
        pipeline = self._server.client.pipeline(transaction=False)
        for id in ids:
            pipeline.hmget(f"{tag}:run:{id}", ["queue", "function", *fields])
        for queue, function, *values in pipeline.execute():
            if queue in self._queues and None not in values:
                yield plain_function(function), *values


def _function_of(job: str) -> str:
    # Branches have the service times of their function.
    return plain_function(job.partition(":")[2])
