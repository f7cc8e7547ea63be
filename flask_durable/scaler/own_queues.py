"""Looks into our own queues: at runs, workers, and events that are not routed yet."""

from __future__ import annotations

import dataclasses
import typing as t
from collections import Counter

from .fleet import Silence
from .fleet import UnitKey
from .fleet import units_of
from .observation import Waiting
from .sensor import Sensor
from .sighting import Sighting


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
        sensor: Sensor,
        directory: Workers,
        unrouted: t.Callable[[], int],
        by: UnitKey = "unit",
    ) -> None:
        self._queues = queues
        self._sensor = sensor
        self._directory = directory
        self._unrouted = unrouted
        self._by = by

    def look(self, horizon: float) -> Sighting:
        """Return the jobs and workers of the queues.

        :raises redis.RedisError: The state server does not answer.
        """
        sighting = self._sensor.look(horizon)
        # Read after the runs: a worker that has one by now has reported before.
        workers = self._directory.workers()
        sighting = dataclasses.replace(
            sighting,
            waiting=self._waiting(sighting, _are_routed(workers)),
            units=tuple(units_of(workers, self._queues, self._by)),
        )
        if not all("process" in worker for worker in workers):
            return sighting  # a worker of another version does not name its process
        return self._attributed(sighting, workers)

    def _attributed(
        self, sighting: Sighting, workers: t.Sequence[dict[str, t.Any]]
    ) -> Sighting:
        """Return *sighting* with each run assigned to its worker.

        A worker that drains or is gone has no free thread when a run ends. The runs of
        one that is gone are begun by others when their leases have ended.
        """
        held = Counter(job.process for job in sighting.running)
        serving = {w["process"] for w in workers if not w.get("draining")}
        known = {worker["process"] for worker in workers}
        orphans = [job for job in sighting.running if job.process not in known]
        return dataclasses.replace(
            sighting,
            running=tuple(job for job in sighting.running if job.process in serving),
            wakeups=(*sighting.wakeups, *((job.function, 0.0) for job in orphans)),
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

    def _waiting(self, sighting: Sighting, routed: bool) -> tuple[Waiting, ...]:
        """Return the waiting runs. Events that no worker routes count as one."""
        if routed or sighting.waiting or not self._unrouted():
            return sighting.waiting
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
