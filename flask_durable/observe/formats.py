"""Formats of the log records of our own processes: text, or JSON lines.

The web process is the application's: nothing here is called there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import typing as t
from datetime import datetime
from datetime import timezone

from flask.logging import default_handler

from ..common.safe_logging import get_logger
from .logging import CONSOLE_FORMAT
from .logging import install
from .run_logs import install_tail

LogFormat = t.Literal["console", "json"]

#: Packages with the loggers that a worker needs.
_LOGGERS = (__package__.partition(".")[0], "dramatiq")

#: The attributes of every record, and fields that have shorter names here.
_KNOWN = {
    *vars(logging.makeLogRecord({})),
    *("message", "asctime", "taskName", "action", "durable_suffix"),
    *("durable_run_id", "durable_function", "durable_branch", "durable_step"),
    *("durable_attempt", "durable_event_id"),
}


logger = get_logger(__name__)


class JsonFormatter(logging.Formatter):
    """Writes a record as one line: a JSON object.

    ``time`` (UTC), ``level``, ``logger`` and ``message`` are always there; ``action``,
    ``run``, ``function``, ``branch``, ``step``, ``attempt``, ``event`` and
    ``exception`` where the record has them. The values of ``extra`` follow, as text if
    they are no JSON.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break."""
        found = {name: value for name, value in self._ours(record) if value is not None}
        for name, value in vars(record).items():
            if name not in _KNOWN:
                found.setdefault(name, _shown(value))
        return json.dumps(found, ensure_ascii=False, skipkeys=True, default=str)

    def _ours(self, record: logging.LogRecord) -> t.Iterator[tuple[str, t.Any]]:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        yield "time", at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield "level", record.levelname.lower()
        yield "logger", record.name
        yield "message", _message_of(record)
        yield "action", getattr(record, "action", None)
        for name in ("run_id", "function", "branch", "step", "attempt", "event_id"):
            value = getattr(record, f"durable_{name}", None)
            yield name.removesuffix("_id"), value
        if record.exc_info:
            yield "exception", self.formatException(record.exc_info)


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # Better than no line: the arguments do not fit, or cannot be shown.
        return str(record.msg)


def _shown(value: t.Any) -> t.Any:
    """Return *value* if it can be written as JSON, otherwise as text."""
    if value is None or isinstance(value, (str, int)):
        return value
    try:
        json.dumps(value, skipkeys=True, default=str, allow_nan=False)
        return value
    except Exception:
        # It is a number that JSON lacks, contains itself, or cannot be shown.
        with contextlib.suppress(Exception):
            return str(value)
        return f"<{type(value).__name__}>"


def set_up(app_logger: logging.Logger, log_format: LogFormat | None = None) -> None:
    """Write the records of this process to stderr, with the run that they belong to.

    :param app_logger: The application's own logger.
    :param log_format: The format that replaces all handlers of the application;
        ``None`` leaves them, and writes text if there are none.
    """
    root = logging.getLogger()
    is_bare = not root.handlers
    switched_off = _switch_on()
    if log_format is not None:
        _remove_handlers(root)
        if app_logger.propagate:
            _remove_handlers(app_logger)
    if not root.handlers:
        root.addHandler(_handler(log_format or "console"))
        if app_logger.propagate:
            # Flask adds this handler by itself where the root logger has none yet.
            # With both, each line of the app would be written twice.
            app_logger.removeHandler(default_handler)
        # Dramatiq logs each message, which is each run, at a level of its own choice.
        logging.getLogger("dramatiq").setLevel(logging.WARNING)
    if is_bare:
        root.setLevel(logging.INFO)
    _install(root, app_logger)
    _tell_of(switched_off)


def set_up_pushed(app_logger: logging.Logger) -> None:
    """Give the records of a process that serves pushed messages the run's fields.

    Its handlers and levels are the application's, or the platform's.
    """
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        # lastResort writes while there is no handler, but a run's lines need one.
        root.addHandler(logging.lastResort)
    switched_off = _switch_on()
    _install(root, app_logger)
    _tell_of(switched_off)


def _install(root: logging.Logger, app_logger: logging.Logger) -> None:
    install_tail(root)
    for each in (root, app_logger):
        install(each)


def _switch_on() -> list[str]:
    """Switch our loggers on again; return the names of those that were off.

    ``logging.config`` switches off all loggers that exist when it is called, unless it
    is told otherwise. Few mean that, and a worker could log no failure.
    """
    found = []
    for name, logger in list(logging.root.manager.loggerDict.items()):
        ours = name.partition(".")[0] in _LOGGERS
        if ours and isinstance(logger, logging.Logger) and logger.disabled:
            logger.disabled = False
            found.append(name)
    return found


def _tell_of(switched_off: list[str]) -> None:
    if switched_off:
        logger.warning(
            "%d loggers of this package were switched off by logging.config, and are "
            'on again in this process. Write "disable_existing_loggers": False there: '
            "in web processes they are still off.",
            len(switched_off),
            extra={"action": "loggers_switched_on"},
        )


def _handler(log_format: LogFormat) -> logging.Handler:
    handler = logging.StreamHandler()
    console = logging.Formatter(CONSOLE_FORMAT)
    handler.setFormatter(JsonFormatter() if log_format == "json" else console)
    return handler


def _remove_handlers(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
