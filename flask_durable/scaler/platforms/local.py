"""Worker processes of one host, kept by ``flask durable pool``.

The scaler sets how many workers there should be. The supervisor reads it and starts
missing ones, or stops some, idle ones first. A worker that goes ends the step it is at:
nothing is killed.
"""

from __future__ import annotations

import typing as t

from ...errors import PlatformError
from ..decision.fleet import units_of
from ..decision.observation import Size
from ..pool_state import PoolState
from .base import Applied
from .base import Traits


class LocalPlatform:
    """The processes of ``flask durable pool``.

    :param pool: The pool's name.
    :param pool_state: The notes that supervisor and scaler share.
    :param workers: A function that returns the reports of the workers.
    :param queues: The queues of the pool.
    """

    traits = Traits(reaches_zero=True, picks_victims=True)

    def __init__(
        self,
        pool: str,
        pool_state: PoolState,
        workers: t.Callable[[], list[dict[str, t.Any]]],
        queues: t.Collection[str],
    ) -> None:
        self._pool = pool
        self._pool_state = pool_state
        self._workers = workers
        self._queues = queues

    def describe(self) -> str:
        """Return the platform in one line."""
        return "local"

    def read(self) -> Size:
        """Return how many workers the supervisor is to keep, and how many are up.

        :raises PlatformError: The pool has no living supervisor.
        """
        kept = self._kept()
        units = units_of(self._workers(), self._queues)
        alive = [unit for unit in units if not unit.draining and self._owns(unit.id)]
        running = min(len(alive), kept)
        return Size(kept, running, kept - running)

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Have the supervisor keep this many *workers*; it finds idle ones itself.

        :raises PlatformError: The pool has no living supervisor.
        """
        before = self._kept()
        self._pool_state.want(workers)
        return Applied(before, workers)

    def _kept(self) -> int:
        if not self._pool_state.supervised():
            raise PlatformError(
                f"No supervisor runs the workers of {self._pool}.",
                hint=f"Start `flask durable pool {self._pool}`.",
            )
        return self._pool_state.wanted() or 0

    def _owns(self, unit: str) -> bool:
        return unit.startswith(f"{self._pool}-")
