"""How long a delivery computes: the rest of its time, it waits for something.

A thread knows its own processor time. That of a process which it starts, such as an
encoder, is known of all processes that have ended together: it is the delivery's if no
other one was there at the same time, and else nobody's.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

try:
    import resource
except ImportError:  # there is none on Windows
    resource = None  # type: ignore[assignment]


class ProcessorTime:
    """Measures the deliveries of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there = 0
        self._begun = 0

    @contextlib.contextmanager
    def measured(self) -> t.Iterator[t.Callable[[], float]]:
        """Yield what returns, afterwards, the seconds for which the body computed."""
        with self._lock:
            self._there += 1
            self._begun += 1
            alone, number = self._there == 1, self._begun
        own, others = time.thread_time(), _of_children()
        spent = 0.0
        try:
            yield lambda: spent
        finally:
            spent = time.thread_time() - own
            with self._lock:
                self._there -= 1
                alone = alone and self._begun == number
            if alone:
                spent += _of_children() - others


def _of_children() -> float:
    """Return the processor time of the processes that were started and have ended."""
    if resource is None:
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
