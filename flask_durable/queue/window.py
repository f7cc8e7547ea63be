"""The receive window: the number of runs this process could start right now.

Messages are fetched ahead of free threads by recent service times.

A worker whose runs are short spends its time waiting for the queue's answer. Fetching
for about a second of work hides that wait; more would sit here while other workers
idle. So the number follows from the recent mean. A queue whose mean is not known, and
one whose runs are long, is fetched from for free threads only.
"""

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
        """Take *count* slots for messages that are in flight already, free or not."""
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


#: The most messages beyond free threads: they are held in memory.
PREFETCH_LIMIT = 50

#: The weight of the latest time in the mean.
LATEST_TIME_WEIGHT = 0.2


class ServiceTimes:
    """The recent mean service time of each queue of this process."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._lock = threading.Lock()

    def took(self, queue: str, seconds: float) -> None:
        """Note that a message of *queue* kept its thread for *seconds*."""
        with self._lock:
            mean = self._means.get(queue, seconds)
            self._means[queue] = mean + (seconds - mean) * LATEST_TIME_WEIGHT

    def ahead(self, queue: str, threads: int, seconds: float) -> int:
        """Return how many messages of *queue* fill *threads* for *seconds*."""
        mean = self._means.get(queue)
        if mean is None or not seconds:
            return 0
        return int(min(PREFETCH_LIMIT, threads * seconds / max(mean, 1e-6)))

    def forget(self) -> None:
        """Drop all times: they have proved wrong."""
        with self._lock:
            self._means.clear()
