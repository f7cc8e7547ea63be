"""Raising an interrupt into a thread that runs a step's body, and into nothing else.

CPython delivers an asynchronous exception at some later bytecode of the thread. It
could come when the body has returned and its result is being committed; so the end of
a body and the raising of an interrupt exclude each other, and what was raised but not
yet delivered is taken back. A body inside a C call is interrupted when that returns.

Where a body calls us, the interrupt waits until our own I/O is done: between a command
and its reply it would leave the reply in the connection, for whoever uses that next.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import itertools
import threading
import time
import typing as t

from .control import Interrupt
from .control import TimeoutInterrupt

_raise = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise.restype = ctypes.c_int
_NOTHING = ctypes.py_object()  # a NULL pointer: takes back what is pending


#: The body that the thread is in.
_local = threading.local()


def shielded() -> contextlib.AbstractContextManager[None]:
    """Return what keeps interrupts out of our own I/O, in a body or elsewhere."""
    body: Body | None = getattr(_local, "body", None)
    return contextlib.nullcontext() if body is None else body.shielded()


class Body:
    """One execution of a step's body in the calling thread; a context manager.

    :param timeout: Seconds after which it is interrupted, or ``None``.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self._timeout = timeout
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._active = False
        self._shields = 0
        self._outer: Body | None = None
        #: The kind of interrupt that was raised into the body, if any.
        self.interrupted: type[Interrupt] | None = None

    @property
    def active(self) -> bool:
        """Whether the body is running."""
        return self._active

    def __enter__(self) -> Body:
        self._active = True
        self._outer = getattr(_local, "body", None)
        _local.body = self
        if self._timeout is not None:
            try:
                watchdog.add(self, self._timeout, TimeoutInterrupt)
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
                # Not delivered yet, or delivered already: then this does nothing.
                _raise(self._thread, _NOTHING)

    def interrupt(self, kind: type[Interrupt]) -> None:
        """Raise *kind* in the body's thread, if the body is still running."""
        with self._lock:
            if self._active and self.interrupted is None:
                self.interrupted = kind
                if not self._shields:
                    _raise(self._thread, kind)

    @contextlib.contextmanager
    def shielded(self) -> t.Iterator[None]:
        """Let an interrupt that comes inside the block take effect at its end."""
        with self._lock:
            if self.interrupted is not None:
                # It was raised a moment ago, and would be delivered inside.
                _raise(self._thread, _NOTHING)
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


#: Bodies that ended before their deadline and are kept at least.
_MANY_ENDED = 1000


class Watchdog:
    """One thread that interrupts the bodies whose time is over."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._ended = 0
        self._deadlines: list[tuple[float, int, Body, type[Interrupt]]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, body: Body, timeout: float, kind: type[Interrupt]) -> None:
        """Interrupt *body* with *kind* in *timeout* seconds unless it ended before."""
        entry = (time.monotonic() + timeout, next(self._order), body, kind)
        with self._condition:
            heapq.heappush(self._deadlines, entry)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._watch, name="durable-watchdog", daemon=True
                )
                self._thread.start()
            self._condition.notify()

    def forget(self) -> None:
        """Note that a body ended. Most do so long before their deadlines.

        They leave when they are the greater part, which costs little for each.
        """
        with self._condition:
            self._ended += 1
            if self._ended > max(_MANY_ENDED, len(self._deadlines) // 2):
                self._deadlines = [
                    entry for entry in self._deadlines if entry[2].active
                ]
                heapq.heapify(self._deadlines)
                self._ended = 0

    def _watch(self) -> t.NoReturn:
        while True:
            with self._condition:
                while not self._deadlines:
                    self._condition.wait()
                due, _, body, kind = self._deadlines[0]
                left = due - time.monotonic()
                if left > 0:
                    self._condition.wait(left)
                    continue
                heapq.heappop(self._deadlines)
            body.interrupt(kind)


watchdog = Watchdog()
