"""Keeps the newest log lines of each run, at no cost to its steps.

::

    run threads ──► lines of each attempt ──► (a quarter of a second) ──► one thread
                    in memory                                             writes all of
                                                                          them at once

No step and no run waits for a line. A process that is killed loses the lines of the
last moment, and lines that the server does not take are lost. A run that logs nothing
costs no write.

A logging handler collects the log lines of the current run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import typing as t
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from ..common.times import datetime_of
from ..common.times import milliseconds_of
from ..payloads.sealing import Payloads
from ..redis.errors import log_failure
from ..store.run_logs import RunLogStore
from .logging import RunFilter

#: Seconds from the first line until it is written, with all lines that came since.
TAIL_WRITE_PAUSE = 0.25

#: Seconds that the thread waits for a line before it shows that it is alive.
WRITER_IDLE = 5.0

#: Most attempts whose lines wait to be written; beyond it the newest are kept.
MAX_WAITING_TAILS = 10_000

#: Seconds that a process that ends waits until the last lines are written.
LAST_WRITE_TIMEOUT = 2.0

logger = get_logger(__name__)


class _Tail:
    """The newest lines of one attempt that are not written yet."""

    def __init__(self, run_id: str, limit: int) -> None:
        self.run_id = run_id
        self.waits = False
        self._lines: deque[LogLine] = deque(maxlen=limit)

    def add(self, line: LogLine) -> None:
        self._lines.append(line)

    def take(self) -> list[LogLine]:
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._lines.popleft())
        return found


class RunLogs:
    """Collects the lines of runs that this process executes, and writes them.

    :param payloads: The codec that seals the lines.
    """

    def __init__(self, store: RunLogStore, payloads: Payloads) -> None:
        self._store = store
        self._payloads = payloads
        self._dirty: deque[_Tail] = deque(maxlen=MAX_WAITING_TAILS)
        # Not an event or a lock: an interrupt of a step's body that logs could leave it
        # locked. Both of these are atomic.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._loop = Loop("durable-run-logs", self._turn, self._failed)

    def keeping(self, run_id: str) -> contextlib.AbstractContextManager[None]:
        """Return a context that keeps the lines logged inside by this thread."""
        if self._store.lines == 0:
            return contextlib.nullcontext()
        tail = _Tail(run_id, self._store.lines)

        def keep(line: LogLine) -> None:
            tail.add(line)
            if not tail.waits:
                tail.waits = True
                self._dirty.append(tail)
                if self._loop.started:
                    self._wake.put(None)

        return tailed(keep)

    def start(self) -> None:
        """Write lines on a thread of its own from now on."""
        with self._lock:
            if not self._loop.started and self._store.lines:
                self._loop.start()

    def close(self) -> None:
        """Write the lines that are left, and end the thread."""
        self._loop.stopping.set()
        self._wake.put(None)
        self._loop.join(LAST_WRITE_TIMEOUT)

    def flush(self) -> None:
        """Write the waiting lines now; those that the server does not take are lost."""
        batches = []
        with contextlib.suppress(IndexError):
            while True:
                tail = self._dirty.popleft()
                # First: a line that comes from now on makes it wait again.
                tail.waits = False
                if lines := tail.take():
                    seal = self._payloads.seal_text
                    batches.append((tail.run_id, [seal(x.dump()) for x in lines]))
        try:
            self._store.append(batches)
        except Exception as error:
            logger.warning(
                "Log lines of %d run(s) are lost: %s",
                len(batches),
                error,
                extra={"action": "run_log_lost"},
            )

    def _turn(self) -> float:
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=WRITER_IDLE)
        if self._dirty:
            self._loop.stopping.wait(TAIL_WRITE_PAUSE)
            # Before the flush, which writes the lines of all that have woken it so far:
            # one turn for each of them could never catch up with runs that log.
            with contextlib.suppress(queue.Empty):
                for _ in range(self._wake.qsize()):
                    self._wake.get_nowait()
            self.flush()
        return 0

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "write log lines of runs", error)
        return TAIL_WRITE_PAUSE


#: Most characters of a line's message, and of its logger's name.
MAX_LINE = 1000
MAX_NAME = 100

_keep: ContextVar[t.Callable[[LogLine], None] | None] = ContextVar(
    "flask_durable.tail", default=None
)


@contextlib.contextmanager
def tailed(keep: t.Callable[[LogLine], None]) -> t.Iterator[None]:
    """Give *keep* each line that this thread logs inside the block."""
    reset = _keep.set(keep)
    try:
        yield
    finally:
        _keep.reset(reset)


class TailHandler(logging.Handler):
    """Makes lines of the records of run threads; does nothing in other threads."""

    def __init__(self) -> None:
        super().__init__()
        self._is_new = RunFilter().filter

    def handle(self, record: logging.LogRecord) -> bool:
        """Give the record's line to the thread's collector, if it is new."""
        # No lock: an interrupt of a step's body could leave it locked for ever.
        keep = _keep.get()
        if keep is None or not self._is_new(record):
            return False
        # The other handlers report a record that cannot be formatted.
        with contextlib.suppress(Exception):
            keep(_line_of(record))
        return True


def install_tail(logger: logging.Logger) -> None:
    """Add a :class:`TailHandler` to *logger*, once."""
    if not any(isinstance(handler, TailHandler) for handler in logger.handlers):
        logger.addHandler(TailHandler())


def _line_of(record: logging.LogRecord) -> LogLine:
    message = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        # The failure of the run keeps the traceback.
        error = record.exc_info[1]
        message = f"{_cut(message, MAX_LINE // 2)}\n{type(error).__name__}: "
        message += _text_of(error)
    fields: t.Any = record
    return LogLine(
        number=0,
        at=datetime.fromtimestamp(record.created, timezone.utc),
        level=record.levelname.lower(),
        logger=_cut(record.name, MAX_NAME),
        step=fields.durable_step,
        attempt=fields.durable_attempt,
        message=_cut(message, MAX_LINE),
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # an interrupt never comes while code of ours is called
        return "<unprintable>"


def _cut(text: str, limit: int) -> str:
    # A lone surrogate could not be stored.
    text = text[: limit + 1].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


@dataclass(frozen=True)
class LogLine:
    """A line that was logged while a run was executed.

    :param number: The number of the line in the run, from 1; numbers are missing if
        there were too many lines to keep.
    :param at: The moment it was logged, by its worker's clock.
    :param level: The level of the record: ``"info"``, ``"warning"``, …
    :param logger: The logger's name.
    :param step: The step whose body logged it, ``None`` between steps.
    :param attempt: The number of the attempt, of the step or otherwise of the body.
    :param message: The message and, if there was an exception, its type and text.
    """

    number: int
    at: datetime
    level: str
    logger: str
    step: str | None
    attempt: int | None
    message: str

    def dump(self) -> str:
        """Return the line as it is stored, without its number."""
        milliseconds = milliseconds_of(self.at)
        fields = [milliseconds, self.level, self.logger, self.step, self.attempt]
        return json.dumps(
            [*fields, self.message], ensure_ascii=False, separators=(",", ":")
        )

    @classmethod
    def load(cls, number: int, text: str) -> LogLine:
        """Return the line that was stored as *text*."""
        milliseconds, *fields = json.loads(text)
        at = datetime_of(milliseconds)
        return cls(number, at, *fields)
