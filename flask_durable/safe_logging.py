"""The loggers of the package, whose calls never raise.

Python's logging keeps what a handler raises while it writes to itself. What filters,
record factories and handlers of the application's own raise earlier comes out of the
log call: a filter that reads ``flask.request``, say, which there is in a request only.
Logging decides nothing here, so that must change nothing: no run, no message and no
thread depends on a line that could not be written.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
import typing as t


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Passes records on to a logger, and keeps to itself what logging raises.

    Only an :class:`Exception` is kept: anything else, such as an interrupt or a web
    server that ends its process, was meant for whoever called.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, None)

    def log(self, level: int, msg: object, *args: object, **kwargs: t.Any) -> None:
        """Log a record as :meth:`logging.Logger.log` does, if that is possible."""
        try:
            if self.logger.isEnabledFor(level):
                # The record is to name the caller, not this line.
                self.logger.log(level, msg, *args, stacklevel=2, **kwargs)
        except Exception as error:
            _tell(self.logger.name, error)


def get_logger(name: str) -> SafeLogger:
    """Return the logger of the module *name*."""
    return SafeLogger(logging.getLogger(name))


#: Types of what logging raised, as far as it was told.
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
