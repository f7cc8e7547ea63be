"""Log records that carry their run and are not repeated on replay.

Fields of a record inside a run: ``durable_run_id``, ``durable_function``,
``durable_branch`` (``None`` outside of branches), ``durable_step`` (``None`` between
steps), ``durable_attempt`` and ``durable_event_id``.
Our own records have an ``action`` besides, a word that does not change.
"""

from __future__ import annotations

import logging
import typing as t

from ..current import run_context
from ..current import step_context

#: Format of the worker's console lines.
CONSOLE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s%(durable_suffix)s"

_PACKAGE = __package__.partition(".")[0]


class RunFilter(logging.Filter):
    """Adds the run's fields to records, and drops those that a replay logs again.

    A body runs from the top after each suspension. Its records before the last stored
    step were logged then. Steps do not run again, so their records are never dropped.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; return whether the record is new."""
        context = run_context()
        step = step_context() if context else None
        record.durable_run_id = context.id if context else None
        record.durable_function = context.function if context else None
        record.durable_branch = context.branch if context else None
        record.durable_step = step.name if step else None
        record.durable_attempt = _attempt(context)
        record.durable_event_id = context.event.id if context else None
        record.durable_suffix = _suffix(context)
        if context is None or step is not None or not context.replaying:
            return True
        return record.name.partition(".")[0] == _PACKAGE and record.name != RUN_LOGGER


#: The logger behind ``current_run.log``.
RUN_LOGGER = f"{_PACKAGE}.run"


def run_logger(function: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return the logger that is ``current_run.log`` in the runs of *function*."""
    return _RunAdapter(logging.getLogger(RUN_LOGGER), {"function": function})


def install(logger: logging.Logger) -> None:
    """Have the handlers of *logger* write records with the run's fields."""
    for handler in logger.handlers:
        if not any(isinstance(f, RunFilter) for f in handler.filters):
            handler.addFilter(RunFilter())


class _RunAdapter(logging.LoggerAdapter[logging.Logger]):
    """Passes records on, unless a replay logs them again."""

    def isEnabledFor(self, level: int) -> bool:
        context = run_context()
        if context is not None and context.replaying and step_context() is None:
            return False
        return super().isEnabledFor(level)

    def process(
        self, msg: t.Any, kwargs: t.MutableMapping[str, t.Any]
    ) -> tuple[t.Any, t.MutableMapping[str, t.Any]]:
        return msg, kwargs


def _attempt(context: t.Any) -> int | None:
    if context is None:
        return None
    step = step_context()
    return int(step.attempt if step else context.attempt)


def _suffix(context: t.Any) -> str:
    if context is None:
        return ""
    step = step_context()
    # The name of a step in a branch begins with that of the branch.
    name = step.name if step else context.branch
    place = context.function + (f"/{name}" if name else "")
    return f" [{place} run={context.id} attempt={_attempt(context)}]"
