"""A logging handler that collects the log lines of the current run."""

from __future__ import annotations

import contextlib
import logging
import typing as t
from contextvars import ContextVar
from datetime import datetime
from datetime import timezone

from ..log_line import LogLine
from .logging import RunFilter

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
