"""The processor time of a delivery; the rest of its time it waits.

A process knows the processor time of all its threads, and that of the programs that it
started, such as an encoder, once they have ended. This is a delivery's own if no other
was there at the same time. Of several deliveries the shares are unknown: even a
thread's own time is too small where threads wait for one another.
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
        """Yield a callable that returns, afterwards, the body's processor seconds.

        It returns ``None`` if another body was measured at the same time.
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
    """Return the seconds of this process and of its children that have ended."""
    return time.process_time() + sum(os.times()[2:4])
