"""The clock that the simulated processes measure by, which a leap moves.

Much in a process is left alone for a while by its own clock: a server that did not
answer, a queue that took nothing, messages that are in hand elsewhere. How fast the
machine is must not decide what a life sends, nor whether that while is over in it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from unittest import mock


class Clock:
    """Stands where ``time.monotonic`` stands, inside :meth:`set_up`.

    In the main thread, which does what the threads of a worker do, it stands still
    between two leaps. In all others it goes on: they wait for their turn, and for the
    end of a pause.
    """

    def __init__(self) -> None:
        self._real = time.monotonic
        self._stopped = self._real()
        self._ahead = 0.0

    def __call__(self) -> float:
        in_main = threading.current_thread() is threading.main_thread()
        return (self._stopped if in_main else self._real()) + self._ahead

    @contextlib.contextmanager
    def set_up(self) -> t.Iterator[None]:
        """Have everything that asks for the monotonic time inside ask this clock."""
        with mock.patch.object(time, "monotonic", self):
            yield

    def move(self, seconds: float) -> None:
        """Let *seconds* pass, and what the machine took for all that was sent."""
        self._ahead += seconds
        self._stopped = self._real()
