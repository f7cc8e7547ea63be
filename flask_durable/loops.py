"""The threads that a process cannot do without, and the one loop that they run in.

::

    start ─► pause ─► turn ─► pause ─► turn … ─► stop
               ▲        │
               └────────┘ a turn that raised is told of, and the next one comes

The leases, the sweeper, the beat, the router, the receivers and their like each take
one *turn* after the other. Whatever is raised in a turn, in the pause before it, or in
telling of an error, ends that turn and not the thread: a moment without memory, or a
logging filter of the application, would otherwise end what keeps runs alive, and the
process would live on as if nothing had happened.

What this cannot mend is seen from outside. A thread is *gone* if it ended although
nobody stopped it, and it *stands still* if a turn takes longer than its patience.
:func:`ailing` names those of this process: readiness asks it, the worker tells it to
``flask durable health``, and a worker ends itself for it (``worker/vitals.py``).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import typing as t
import weakref

#: Seconds that one turn may take. The slowest ones wait for a server's answer several
#: times, or twenty seconds for a message of Amazon SQS.
PATIENCE = 60.0

#: Seconds before the next turn where nothing could be said about it.
PAUSE = 1.0


class Loop:
    """A thread that takes one turn after the other until it is stopped.

    :param name: The thread's name.
    :param turn: Takes one turn and returns the seconds until the next one.
    :param failed: Called with the error of a turn. Tells of it, and returns the seconds
        until the next turn.
    :param patience: Seconds that a turn may take; ``math.inf`` for one that nothing
        depends on.
    :param stopping: The event that ends the loop, if it is another one's too.
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
        #: When it showed last that it gets on, or is to show it next.
        self._moved_at = time.monotonic()
        self._ended = False
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """Whether there is, or was, a thread."""
        return self._thread is not None

    @property
    def alive(self) -> bool:
        """Whether the thread is there, in this process."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, first: float = 0.0) -> None:
        """Start the thread.

        :param first: Seconds before the first turn.
        """
        self._pause = first
        self._moved_at = time.monotonic() + first
        thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        thread.start()
        # Not before: one that cannot be started now is started by the next call.
        self._thread = thread
        _started.add(self)

    def stop(self, timeout: float | None = None) -> bool:
        """End the thread after the turn that it takes.

        :param timeout: Seconds to wait for that; ``None`` waits as long as it takes.
        :returns: Whether it has ended.
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
        """Return what is wrong with the thread, in a few words, or ``None``."""
        if self._thread is None or self.stopping.is_set():
            return None
        if not self._thread.is_alive():
            return "is gone"
        still = time.monotonic() - self._moved_at
        return f"stands still for {still:.0f} s" if still > self._patience else None

    def run(self) -> None:
        """Take turns in the calling thread until the loop is stopped."""
        _local.loop = self
        while not self._ended:
            # An error can come between two instructions of the loop itself: a turn, and
            # what is done about its error, each have this around them.
            with contextlib.suppress(BaseException):
                self._take_turns()

    def _take_turns(self) -> None:
        while not self._is_over():
            # What is raised before it is known better is followed by a pause.
            self._pause = PAUSE
            self._moved_at = time.monotonic()
            try:
                self._pause = self._turn()
            except BaseException as error:
                self._pause = self._failed(error)
            # Until then a pause is no standing still.
            self._moved_at = time.monotonic() + self._pause
        self._ended = True

    def _is_over(self) -> bool:
        # A pause waits with a lock, in which an error from outside is worst.
        pause = self._pause
        return self.stopping.wait(pause) if pause > 0 else self.stopping.is_set()


def moved() -> None:
    """Note that a turn of the calling thread, if it takes turns, gets on.

    To be called where something takes long for a good reason: an outage that is waited
    out, one more round of many.
    """
    loop: Loop | None = getattr(_local, "loop", None)
    if loop is not None:
        loop._moved_at = time.monotonic()


def ailing() -> dict[str, str]:
    """Return the threads of this process that should run and do not: what is wrong."""
    found = {loop.name: loop.ailment() for loop in list(_started)}
    return {name: ailment for name, ailment in found.items() if ailment is not None}


_local = threading.local()
_started: weakref.WeakSet[Loop] = weakref.WeakSet()


def _forget() -> None:
    # The threads of the parent are not those of a child.
    global _started
    _started = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
