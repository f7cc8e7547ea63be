"""How long a delivery computes: the rest of its time, it waits for something.

A process knows the processor time of all its threads, and of the processes that it
started, such as an encoder, once they have ended. That is a delivery's if no other one
was there at the same time. Of several, nobody knows: even a thread's own time is short
for what it wants where threads wait for one another.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import typing as t


class ProcessorTime:
    """Measures the deliveries of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there = 0
        self._begun = 0

    @contextlib.contextmanager
    def measured(self) -> t.Iterator[t.Callable[[], float | None]]:
        """Yield what returns, afterwards, the seconds for which the body computed.

        They are ``None`` if another one was measured at the same time.
        """
        with self._lock:
            self._there += 1
            self._begun += 1
            alone, number = self._there == 1, self._begun
        before = _processor_time() if alone else 0.0
        spent: float | None = None
        try:
            yield lambda: spent
        finally:
            with self._lock:
                self._there -= 1
                alone = alone and self._begun == number
            if alone:
                spent = _processor_time() - before


def _processor_time() -> float:
    """Return that of this process, and of those that it started and that have ended."""
    return time.process_time() + sum(os.times()[2:4])
