"""The loggers of the package, whose calls never raise, and wait for no handler.

Logging decides nothing here, so nothing may depend on it: no run, message, lease or
thread. The application's logging can stand in the way in two manners.

*It raises.* Python's logging catches the errors of a handler that writes. Errors of the
application's filters, record factories and handlers before that come out of the log
call: those of a filter that reads ``flask.request`` outside a request, for example.
:class:`SafeLogger` catches them.

*It hangs.* A handler that sends to a collector which reads no more, and a stderr that
is a full pipe, return from no call. In a process that keeps runs or other processes,
lines are therefore handed to a thread that does nothing else::

    the threads that receive, renew,  ──► a bounded ──► (a twentieth of a ──► one thread
    route, acknowledge, sweep, drain      queue          second)              tells all

A line that finds the queue full is dropped and counted. A record is made where it is
logged, so it keeps its time, its thread, its context variables and its error. Lines of
a run are the exception (:func:`at_once`): they stay in order with those of its body,
which waits for the same handlers anyway. One thread that tells many lines also costs a
fifth of what run threads would spend. A process that is killed loses the lines of the
last moment.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import math
import os
import queue
import sys
import threading
import traceback
import typing as t
from contextvars import ContextVar

from .loops import Loop

#: Lines that may wait. Further ones are dropped.
MAX_WAITING = 10_000

#: Seconds from the first line until it is told, with all that came since.
PAUSE = 0.05

#: Seconds that the telling thread waits for a line before it looks for its end.
IDLE = 5.0

#: Seconds that a process that ends waits for the last lines.
PATIENCE = 2.0

#: True where lines are told by the thread that logs them.
_at_once: ContextVar[bool] = ContextVar("flask_durable.at_once", default=False)


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Passes records on to a logger, and catches the errors that logging raises.

    Only an :class:`Exception` is caught. Anything else, such as an interrupt or a web
    server's end of its process, was meant for the caller.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, None)
        self._handing = _HandingLogger(logger)

    def log(self, level: int, msg: object, *args: object, **kwargs: t.Any) -> None:
        """Log a record as :meth:`logging.Logger.log` does, if that is possible."""
        try:
            if self.logger.isEnabledFor(level):
                # The record is to name the caller, not this line.
                taker = self.logger if _teller_here() is None else self._handing
                taker.log(level, msg, *args, stacklevel=2, **kwargs)
        except Exception as error:
            hand_to_teller(functools.partial(_tell, self.logger.name, error))


def get_logger(name: str) -> SafeLogger:
    """Return the logger of the module *name*."""
    return SafeLogger(logging.getLogger(name))


class _HandingLogger(logging.Logger):
    """Makes records as *logger* does, and hands them to the telling thread."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger.name)
        self._logger = logger

    def isEnabledFor(self, level: int) -> bool:
        return True  # the caller has asked the logger itself

    def makeRecord(self, *args: t.Any, **kwargs: t.Any) -> logging.LogRecord:
        return self._logger.makeRecord(*args, **kwargs)

    def handle(self, record: logging.LogRecord) -> None:
        context = contextvars.copy_context()
        hand_to_teller(lambda: context.run(_handle, self._logger, record))


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    try:
        logger.handle(record)
    except Exception as error:
        _tell(logger.name, error)


class _Teller:
    """The lines of this process that wait, and the thread that tells them."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[t.Callable[[], object]] = queue.SimpleQueue()
        self._dropped = 0
        # Nothing depends on it: a process is no worse off if it stands still.
        self._loop = Loop("durable-teller", self._turn, _next, patience=math.inf)

    def start(self) -> None:
        self._loop.start()

    def add(self, line: t.Callable[[], object]) -> None:
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(line)
        else:
            self._dropped += 1

    def finish(self, seconds: float) -> bool:
        """Return whether all lines were told within *seconds*; end the thread then."""
        told = threading.Event()
        self._waiting.put(told.set)
        if not told.wait(seconds):
            return False
        self._loop.stopping.set()
        self._waiting.put(bool)  # wakes it up
        self._loop.join(seconds)
        self._tell_all()  # what came since
        return True

    def _turn(self) -> float:
        _at_once.set(True)
        try:
            first = self._waiting.get(timeout=IDLE)
        except queue.Empty:
            return 0
        self._loop.stopping.wait(PAUSE)
        first()
        self._tell_all()
        return 0

    def _tell_all(self) -> None:
        while not self._waiting.empty():
            self._waiting.get()()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                logger.warning(
                    "%d lines were dropped: more came than the handlers took.",
                    dropped,
                    extra={"action": "lines_dropped"},
                )


def _next(error: BaseException) -> float:
    return 0.0  # the line that raised is lost, others wait


_teller: _Teller | None = None


def hand_to_teller(line: t.Callable[[], object]) -> None:
    """Call *line*, which tells something: on the telling thread, if there is one."""
    if (teller := _teller_here()) is not None:
        teller.add(line)
    else:
        line()


def _teller_here() -> _Teller | None:
    """Return the telling thread, if lines of the calling thread are for it."""
    return None if _teller is None or _at_once.get() else _teller


@contextlib.contextmanager
def at_once() -> t.Iterator[None]:
    """Tell lines inside the block where they are logged."""
    reset = _at_once.set(True)
    try:
        yield
    finally:
        _at_once.reset(reset)


@contextlib.contextmanager
def telling() -> t.Iterator[None]:
    """Tell lines inside the block on a thread of its own, if one can start."""
    global _teller
    if _teller is None:
        teller = _Teller()
        with contextlib.suppress(RuntimeError):
            teller.start()
            _teller = teller
    try:
        yield
    finally:
        finish_telling()


def finish_telling(seconds: float = PATIENCE) -> bool:
    """Wait until all lines are told; further ones are told where they are logged.

    :returns: False if they were not all told within *seconds*. The thread goes on then,
        and lines are still for it.
    """
    global _teller
    teller = _teller
    if teller is None:
        return True
    if not teller.finish(seconds):
        return False
    _teller = None
    return True


def _forget() -> None:
    # The thread of the parent is not there in a child.
    global _teller
    _teller = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


#: Types of the errors that logging raised and that were reported.
_told: set[type[BaseException]] = set()


def _tell(name: str, error: Exception) -> None:
    """Write to stderr that a line is lost, as Python's logging does, once a type."""
    with contextlib.suppress(Exception):
        if type(error) in _told or not logging.raiseExceptions or sys.stderr is None:
            return
        _told.add(type(error))
        sys.stderr.write(
            f"--- A line of {name} was not logged: the application's logging raised ---"
            f"\n{''.join(traceback.format_exception(error))}"
        )


logger = get_logger(__name__)
