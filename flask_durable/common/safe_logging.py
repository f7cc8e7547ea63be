"""The loggers of the package, whose calls never raise.

Python's logging catches the errors of a handler that writes. Errors of the
application's filters, record factories and handlers before that come out of the log
call: those of a filter that reads ``flask.request`` outside a request, for example.
Logging decides nothing here, so such an error must change nothing: no run, message or
thread depends on a line that could not be written.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
import typing as t


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Passes records on to a logger, and catches the errors that logging raises.

    Only an :class:`Exception` is caught. Anything else, such as an interrupt or a web
    server's end of its process, was meant for the caller.
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
