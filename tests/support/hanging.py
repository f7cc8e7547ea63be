"""A logging handler that hangs, as one of a collector does that reads no more."""

from __future__ import annotations

import contextlib
import logging
import threading
import typing as t


class HangingHandler(logging.Handler):
    """Keeps records, but waits at the first one until it is released."""

    def __init__(self) -> None:
        super().__init__()
        #: Set once a record came.
        self.reached = threading.Event()
        self.records: list[logging.LogRecord] = []
        self._released = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self._released.wait(120)
        self.records.append(record)

    def go_on(self) -> None:
        self._released.set()


@contextlib.contextmanager
def hanging(name: str) -> t.Iterator[HangingHandler]:
    """Give the logger *name* a handler that hangs until the end of the block."""
    logger = logging.getLogger(name)
    handler = HangingHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        handler.go_on()
        logger.removeHandler(handler)
        logger.setLevel(level)
