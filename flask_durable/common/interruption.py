"""Interrupts a step's body in time, and gives up one that does not end.

::

    running ──► overdue ──► interrupted ──► ended
       │           │ ▲           │
       │           │ └───────────┘ swallowed: again after 2 s
       ▼           ▼
     ended      given up, 5 s after its time was over

A body is *overdue* when its timeout is over, the worker has to exit, or its run is lost
or cancelled. The watchdog then looks at its thread, at first each millisecond, until it
stands where an exception leaves nothing held (see ``safe_points``). Only the body is
ever interrupted, neither a commit nor the beginning or the end of the step's context.
The end of a body and the raising of an interrupt exclude each other.

A whole attempt is a body as well, around those of its steps. Its time is over only when
its run is lost or cancelled, and only the function's own code is interrupted.

A body that has not ended 5 s after its time was over is in a call that does not return,
or does not let itself be interrupted. It is *given up*: its step settles the attempt
from another thread, and the thread counts as lost until the body ends after all.

Where a body calls us, the interrupt waits until our own I/O is done. Between a command
and its reply it would leave the reply in the connection, for the next user of that.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
import time
import typing as t

from .loops import Loop
from .safe_logging import get_logger
from .safe_points import take_back
from .safe_points import try_to_raise

#: Seconds from the end of its time until a body is given up.
GRACE = 5.0

#: Seconds until an interrupt that did not end the body is raised again.
AGAIN = 2.0

#: Seconds between two looks at a thread that could not be interrupted; they grow.
FIRST_LOOK = 0.001
LAST_LOOK = 0.02
LOOKS_GROW = 1.1
#: The same once the body was given up.
RARE_LOOK = 0.1

#: Most seconds that the watchdog waits before it shows that it is alive.
IDLE = 10.0

logger = get_logger(__name__)

#: The body that each thread is in.
_local = threading.local()


def shielded() -> contextlib.AbstractContextManager[None]:
    """Return a context that keeps interrupts out of our own I/O, in a body or not."""
    body: Body | None = getattr(_local, "body", None)
    if body is None or not body.active:
        return contextlib.nullcontext()
    return body.shielded()


class Body:
    """One execution of a step's body in the calling thread; a context manager.

    :param timeout: Seconds after which it is interrupted, or ``None``.
    :param give_up: A callable that gets the kind of interrupt, in a thread of its own,
        if the body does not end; ``None`` for a body that is never given up.
    """

    def __init__(
        self,
        timeout: float | None = None,
        give_up: t.Callable[[type[Interrupt]], None] | None = None,
    ) -> None:
        self._timeout = timeout
        self._give_up = give_up
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._active = False
        self._shields = 0
        self._outer: Body | None = None
        #: The moments when its time was over, and when it was last interrupted.
        self._overdue = 0.0
        self._raised = 0.0
        self._look = FIRST_LOOK
        #: The kind of interrupt that it is to end by, if any.
        self.interrupted: type[Interrupt] | None = None
        #: True once another thread settles its attempt.
        self.given_up = False

    @property
    def active(self) -> bool:
        """True while the body is running."""
        return self._active

    def __enter__(self) -> Body:
        self._active = True
        self._outer = getattr(_local, "body", None)
        _local.body = self
        if self._timeout is not None:
            try:
                watchdog.add(self, self._timeout)
            except BaseException:
                self._end()  # no __exit__ follows
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()
        if self._timeout is not None:
            watchdog.forget()

    def _end(self) -> None:
        with self._lock:
            self._active = False
            _local.body = self._outer
            if self.interrupted is not None:
                # Not delivered yet; if it was delivered already, this does nothing.
                take_back()

    def interrupt(self, kind: type[Interrupt]) -> None:
        """Raise *kind* in the body's thread, as soon as that leaves nothing held.

        The first kind stands. Nothing happens if the body is not running.
        """
        with self._lock:
            if not self._active or self.interrupted is not None:
                return
            self._become_overdue(kind)
        pause = self.press()
        if pause is not None:
            watchdog.add(self, pause)

    def press(self) -> float | None:
        """Interrupt the body, whose time is over, or give it up.

        :returns: Seconds until this is to be done again, ``None`` if the body ended.
        """
        with self._lock:
            if not self._active:
                return None
            now = time.monotonic()
            if self.interrupted is None:
                self._become_overdue(TimeoutInterrupt)
            kind = self.interrupted
            assert kind is not None
            pause = self._raise(kind, now)
            left = self._overdue + GRACE - now
            if self._give_up is None or kind is ShutdownInterrupt:
                return pause  # a drain hands its run back itself
            if left > 0:
                return min(pause, left)
            # give_up talks to the state server, and other bodies are not to wait for
            # that. The end of the body waits for this lock, and sees that it was given
            # up.
            threading.Thread(
                target=self._give_up, args=(kind,), name="durable-give-up", daemon=True
            ).start()
            self._give_up, self.given_up = None, True
        return pause

    def _become_overdue(self, kind: type[Interrupt]) -> None:
        self.interrupted = kind
        self._overdue = time.monotonic()

    def _raise(self, kind: type[Interrupt], now: float) -> float:
        """Raise *kind* if it may be; return seconds until the next look."""
        if self._raised and now - self._raised < AGAIN:
            return self._raised + AGAIN - now
        if not self._shields and try_to_raise(self._thread, kind):
            self._raised = now
            self._look = FIRST_LOOK
            return AGAIN
        if now - self._overdue >= GRACE:
            return RARE_LOOK
        pause = self._look
        self._look = min(pause * LOOKS_GROW, LAST_LOOK)
        return pause

    @contextlib.contextmanager
    def shielded(self) -> t.Iterator[None]:
        """Let an interrupt that comes inside the block take effect at its end."""
        with self._lock:
            if self.interrupted is not None:
                # It was raised a moment ago, and would be delivered inside.
                take_back()
                raise self.interrupted
            self._shields += 1
        try:
            yield
        finally:
            with self._lock:
                self._shields -= 1
                postponed = None if self._shields else self.interrupted
        if postponed is not None:
            raise postponed


class WholeAttempt(Body):
    """An attempt, as the body around those of its steps."""

    _late_since = math.inf

    def interrupt_late(self, kind: type[Interrupt]) -> None:
        """Interrupt the function's own code if it had time to end by itself.

        It may be in a ``finally`` block, on its way out. The caller repeats this.
        """
        now = time.monotonic()
        self._late_since = min(self._late_since, now)
        if now - self._late_since >= AGAIN:
            self.interrupt(kind)


#: The watchdog drops bodies that ended early only from this number on.
_MANY_ENDED = 1000


class Watchdog:
    """One thread that presses the bodies whose time is over to end."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._ended = 0
        self._deadlines: list[tuple[float, int, Body]] = []
        self._order = itertools.count()
        self._loop = Loop("durable-watchdog", self._turn, self._failed)

    def add(self, body: Body, seconds: float) -> None:
        """Press *body* to end in some seconds, unless it ended before."""
        entry = (time.monotonic() + seconds, next(self._order), body)
        with self._condition:
            heapq.heappush(self._deadlines, entry)
            if not self._loop.alive:  # not yet, or not in a forked process
                self._loop.start()
            self._condition.notify()

    def forget(self) -> None:
        """Note that a body ended. Most do so long before their deadlines.

        Ended bodies are dropped when they are the greater part, which costs little for
        each.
        """
        with self._condition:
            self._ended += 1
            if self._ended > max(_MANY_ENDED, len(self._deadlines) // 2):
                self._deadlines = [
                    entry for entry in self._deadlines if entry[2].active
                ]
                heapq.heapify(self._deadlines)
                self._ended = 0

    def _turn(self) -> float:
        body = self._wait()
        if body is not None:
            self._press(body)
        return 0

    def _wait(self) -> Body | None:
        """Return the next body whose time is over; ``None`` if none is for a while."""
        with self._condition:
            left = IDLE
            if self._deadlines:
                due, _, body = self._deadlines[0]
                left = min(due - time.monotonic(), IDLE)
                if left <= 0:
                    heapq.heappop(self._deadlines)
                    return body
            self._condition.wait(left)
            return None

    def _press(self, body: Body) -> None:
        pause: float | None = LAST_LOOK
        try:
            pause = body.press()
        except Exception as error:
            # For example no memory for a thread. All other bodies wait for this one.
            logger.error(
                "A body is not interrupted: %s",
                error,
                extra={"action": "interrupt_failed"},
            )
        finally:
            if pause is not None:
                self.add(body, pause)

    def _failed(self, error: BaseException) -> float:
        logger.error(
            "Bodies are not interrupted for a moment: %s",
            error,
            extra={"action": "interrupt_failed"},
        )
        return RARE_LOOK


watchdog = Watchdog()


class Interrupt(BaseException):
    """Base class of the exceptions that another thread raises into a step's body."""


class TimeoutInterrupt(Interrupt):
    """The step's body took longer than its timeout."""


class ShutdownInterrupt(Interrupt):
    """The worker has to exit before the step's body is done."""
