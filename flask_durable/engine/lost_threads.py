"""The threads of this process whose attempts were given up, and that still go on.

A body that does not end keeps its thread. If it is a step's body, another thread
settles the attempt (see ``interruption``). The thread counts as lost until the body
ends after all.
"""

from __future__ import annotations

import threading
import typing as t

from ..common.safe_logging import get_logger

if t.TYPE_CHECKING:
    from .attempt import Attempt


logger = get_logger(__name__)


class ThreadKeeper(t.Protocol):
    """A part of the process that counts on its threads."""

    def lost(self, attempt: Attempt) -> None:
        """Go on without the thread of *attempt*. Called from another thread."""

    def came_back(self, attempt: Attempt) -> None:
        """Note that the thread came back after all. Called from that thread."""


class LostThreads:
    """Counts the lost threads, and tells their keepers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: set[Attempt] = set()
        #: All keepers are told, in this order.
        self.keepers: list[ThreadKeeper] = []

    def __len__(self) -> int:
        return len(self._lost)

    def add(self, attempt: Attempt) -> None:
        """Count the thread of *attempt* as lost, unless it has come back already."""
        # The attempt has ended before came_back() takes this lock: so either it is
        # seen here, or came_back() finds the attempt.
        with self._lock:
            if attempt.ended or attempt in self._lost:
                return
            self._lost.add(attempt)
            for keeper in self.keepers:
                try:
                    keeper.lost(attempt)
                except Exception as error:
                    # For example no memory for a thread in its place. The run is still
                    # to be settled.
                    logger.error(
                        "A lost thread is not replaced: %s",
                        error,
                        extra={"action": "thread_not_replaced"},
                    )

    def came_back(self, attempt: Attempt) -> None:
        """Note that the thread of *attempt* is free again: its body has ended."""
        with self._lock:
            if attempt not in self._lost:
                return
            self._lost.remove(attempt)
            for keeper in self.keepers:
                keeper.came_back(attempt)
