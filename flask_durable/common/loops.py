"""The threads that a process cannot do without, and the one loop that they run.

::

    start ─► pause ─► turn ─► pause ─► turn … ─► stop
               ▲        │
               └────────┘ a turn that raised is logged, and the next one comes

The leases, the sweeper, the beat, the router, the receivers and others each take one
*turn* after the other. An error in a turn, in the pause before it, or in its report
ends that turn and not the thread. Otherwise a moment without memory, or a logging
filter of the application, would end a thread that keeps runs alive, and the process
would live on as if nothing had happened.

Other failures are seen from outside. A thread is *gone* if it ended without being
stopped, and it *stands still* if a turn takes longer than its patience. It *has no file
descriptors left*, or no memory, if all its turns have failed for want of them for some
time: a step has leaked them, and they come back when the process ends.
:func:`ailing` names such threads of this process: readiness asks it, the worker reports
it to ``flask durable health``, and a worker ends itself for it (``worker/vitals.py``).
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import typing as t
import weakref

from .lack import Lack

#: Seconds that one turn may take. The slowest turns wait several times for a server's
#: answer, or twenty seconds for a message of Amazon SQS.
PATIENCE = 60.0

#: The beginning of the ailment of a thread whose turn takes too long.
STILL = "stands still"

#: Seconds before the next turn if the turn itself set no pause.
PAUSE = 1.0


class Loop:
    """A thread that takes one turn after the other until it is stopped.

    :param name: The thread's name.
    :param turn: Takes one turn and returns the seconds until the next one.
    :param failed: Called with the error of a turn. Reports it, and returns the seconds
        until the next turn.
    :param patience: Seconds that a turn may take; ``math.inf`` for a loop that nothing
        depends on.
    :param stopping: The event that ends the loop, if it is shared with others.
    """

    def __init__(
        self,
        name: str,
        turn: t.Callable[[], float],
        failed: t.Callable[[BaseException], float],
        *,
        patience: float = PATIENCE,
        stopping: threading.Event | None = None,
    ) -> None:
        self.name = name
        self.stopping = stopping or threading.Event()
        self._turn = turn
        self._failed = failed
        self._patience = patience
        self._pause = 0.0
        #: The time of the last sign of progress, or of the next one that is due.
        self._moved_at = time.monotonic()
        self._lack = Lack()
        self._ended = False
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """True if there is, or was, a thread."""
        return self._thread is not None

    @property
    def alive(self) -> bool:
        """True if the thread exists, in this process."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, first: float = 0.0) -> None:
        """Start the thread.

        :param first: Seconds before the first turn.
        """
        self._pause = first
        self._moved_at = time.monotonic() + first
        thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        thread.start()
        # Set only now: a thread that could not be started is started by the next call.
        self._thread = thread
        _started.add(self)

    def stop(self, timeout: float | None = None) -> bool:
        """End the thread after its current turn.

        :param timeout: Seconds to wait for that; ``None`` waits as long as it takes.
        :returns: True if the thread has ended.
        """
        self.stopping.set()
        return self.join(timeout)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; return whether it has.

        :param timeout: Seconds to wait; ``None`` waits as long as it takes.
        """
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def ailment(self) -> str | None:
        """Return the thread's ailment, in a few words, or ``None``."""
        if self._thread is None or self.stopping.is_set():
            return None
        if not self._thread.is_alive():
            return "is gone"
        if self._patience < math.inf and (lacking := self._lack.lasting()):
            return lacking
        still = time.monotonic() - self._moved_at
        return f"{STILL} for {still:.0f} s" if still > self._patience else None

    def run(self) -> None:
        """Take turns in the calling thread until the loop is stopped."""
        _local.loop = self
        while not self._ended:
            # An error can come between two instructions of the loop itself: a turn, and
            # the handling of its error, each have this around them.
            with contextlib.suppress(BaseException):
                self._take_turns()

    def _take_turns(self) -> None:
        while not self._is_over():
            # An error before the turn returns its own pause is followed by this one.
            self._pause = PAUSE
            self._moved_at = time.monotonic()
            try:
                self._pause = self._turn()
                self._lack.clear()
            except BaseException as error:
                self._lack.note(error)
                self._pause = self._failed(error)
            # Until then a pause does not count as standing still.
            self._moved_at = time.monotonic() + self._pause
        self._ended = True

    def _is_over(self) -> bool:
        # A pause waits with a lock, where an error from outside does most harm.
        pause = self._pause
        return self.stopping.wait(pause) if pause > 0 else self.stopping.is_set()


def moved() -> None:
    """Note progress in a turn of the calling thread, if that thread takes turns.

    Call it where something takes long for a good reason: an outage that is waited out,
    one more round of many.
    """
    loop: Loop | None = getattr(_local, "loop", None)
    if loop is not None:
        loop._moved_at = time.monotonic()


def ailing() -> dict[str, str]:
    """Return the threads of this process that should run and do not, with ailments."""
    found = [(loop.name, loop.ailment()) for loop in list(_started)]
    # Several loops may have one name: those of two apps, or of one that was closed.
    return {name: ailment for name, ailment in found if ailment is not None}


_local = threading.local()
_started: weakref.WeakSet[Loop] = weakref.WeakSet()


def _forget() -> None:
    # The threads of the parent are not those of a child.
    global _started
    _started = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
