"""The receive window: the number of runs this process could start right now."""

from __future__ import annotations

import threading


class Window:
    """Counts the run threads of a process that are free.

    A slot is taken when a message comes in and freed when its processing ends, not when
    its delete does, so a queue that refuses deletes cannot stop a worker.

    :param size: The number of slots.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._condition = threading.Condition()

    @property
    def free(self) -> int:
        """The number of free slots; negative if more came in than there is room for."""
        return self._free

    def reserve(self, limit: int) -> int:
        """Take up to *limit* free slots, and return their number."""
        with self._condition:
            count = max(0, min(limit, self._free))
            self._free -= count
            return count

    def take(self, count: int) -> None:
        """Take *count* slots for messages that are in hand already, free or not."""
        with self._condition:
            self._free -= count

    def add(self, count: int) -> None:
        """Make the window *count* slots larger."""
        self.size += count
        self.release(count)

    def release(self, count: int = 1) -> None:
        """Free *count* slots."""
        with self._condition:
            self._free += count
            self._condition.notify_all()

    def wait_free(self, timeout: float, ahead: int = 0) -> bool:
        """Wait up to *timeout* seconds for a free slot; return whether there is one.

        :param ahead: The number of messages that may come in without a free slot.
        """
        with self._condition:
            return self._condition.wait_for(lambda: self._free + ahead > 0, timeout)
