"""The number of messages to fetch ahead, from recent service times.

A worker whose runs are short spends its time waiting for the queue's answer. Fetching
for about a second of work hides that wait; more would sit here while other workers
idle. So the number follows from the recent mean. A queue whose mean is not known, and
one whose runs are long, is fetched from for free threads only.
"""

from __future__ import annotations

import threading

#: The most messages beyond free threads: they are held in memory.
MOST = 50

#: The weight of the latest time in the mean.
WEIGHT = 0.2


class ServiceTimes:
    """The recent mean service time of each queue of this process."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._lock = threading.Lock()

    def took(self, queue: str, seconds: float) -> None:
        """Note that a message of *queue* kept its thread for *seconds*."""
        with self._lock:
            mean = self._means.get(queue, seconds)
            self._means[queue] = mean + (seconds - mean) * WEIGHT

    def ahead(self, queue: str, threads: int, seconds: float) -> int:
        """Return how many messages of *queue* fill *threads* for *seconds*."""
        mean = self._means.get(queue)
        if mean is None or not seconds:
            return 0
        return int(min(MOST, threads * seconds / max(mean, 1e-6)))

    def forget(self) -> None:
        """Drop all times: they have proved wrong."""
        with self._lock:
            self._means.clear()
