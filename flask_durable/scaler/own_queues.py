"""Looks into our own queues: at runs, at the workers, at events that are not routed."""

from __future__ import annotations

import dataclasses
import typing as t

from .fleet import Silence
from .fleet import units_of
from .observation import Waiting
from .sensor import Sensor
from .sighting import Sighting


class Workers(t.Protocol):
    """Knows which workers are alive."""

    def workers(self) -> list[dict[str, t.Any]]:
        """Return what each of them says of itself."""


#: Runs that a worker executes at a time, if it is started without another number.
SLOTS = 8


class OwnQueues:
    """Looks into the queues of this app.

    :param queues: Their names.
    :param sensor: Counts their runs.
    :param directory: Knows the workers.
    :param unrouted: Returns how many events wait to be routed.
    """

    silence: Silence = "booting"
    slots = SLOTS

    def __init__(
        self,
        queues: t.Collection[str],
        sensor: Sensor,
        directory: Workers,
        unrouted: t.Callable[[], int],
    ) -> None:
        self._queues = queues
        self._sensor = sensor
        self._directory = directory
        self._unrouted = unrouted

    def look(self, horizon: float) -> Sighting:
        """Return what there is.

        :raises redis.RedisError: The state server does not answer.
        """
        sighting = self._sensor.look(horizon)
        workers = self._directory.workers()
        return dataclasses.replace(
            sighting,
            waiting=self._waiting(sighting, _are_routed(workers)),
            units=tuple(units_of(workers, self._queues)),
        )

    def are_deserted(self) -> bool:
        """Return whether something waits and there is no worker at all for it.

        :raises redis.RedisError: The state server does not answer.
        """
        workers = self._directory.workers()
        if any(unit.slots for unit in units_of(workers, self._queues)):
            return False
        return bool(self._waiting(self._sensor.look(0), _are_routed(workers)))

    def _waiting(self, sighting: Sighting, routed: bool) -> tuple[Waiting, ...]:
        """Return what waits. Workers route events: where there is none, one counts."""
        if routed or sighting.waiting or not self._unrouted():
            return sighting.waiting
        return (Waiting("events", 1),)


def _are_routed(workers: t.Iterable[t.Mapping[str, t.Any]]) -> bool:
    """Return whether there is a worker, of whatever queues, that takes events."""
    return not all(worker["draining"] for worker in workers)
