"""The clock of the simulated processes, which a leap moves.

A process leaves many things alone for a while, by its own clock: a server that did not
answer, a queue that took nothing, messages that are in hand elsewhere. The machine's
speed must not decide which operations a life sends, or if that while ends in it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from unittest import mock


class Clock:
    """Takes the place of ``time.monotonic``, inside :meth:`set_up`.

    In the main thread, which acts for the threads of a worker, it stands still between
    two leaps. In all others it goes on: they wait for their turn, and for the end of a
    pause.
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
        """Replace the monotonic clock inside by this one."""
        with mock.patch.object(time, "monotonic", self):
            yield

    def move(self, seconds: float) -> None:
        """Let *seconds* pass, and what the machine took for all that was sent."""
        self._ahead += seconds
        self._stopped = self._real()
