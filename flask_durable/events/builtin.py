"""The events that Flask-Durable sends itself when a run ends.

They are sent only if a function names them in its ``on=``, and not about runs that such
an event started: a function that listens to failures cannot set itself off.

The ticks of a schedule are events too: one for each of its instants.
"""

from __future__ import annotations

import typing as t
from datetime import datetime

from .model import EventData


class FunctionFinished(EventData, name="durable/function.finished"):
    """A run ended, however it did.

    :param function_id: The function's id.
    :param run_id: The run's id.
    :param status: ``completed``, ``failed`` or ``cancelled``.
    :param event: The event that the run was created for: name, data, id, at.
    :param result: The function's result, as JSON gives it back; ``None`` if that has
        more than 64 KiB. The run has it.
    :param failure: The fields of :class:`~flask_durable.Failure`, if it failed.
    """

    function_id: str
    run_id: str
    status: str
    event: dict[str, t.Any]
    result: t.Any = None
    failure: dict[str, t.Any] | None = None


class FunctionFailed(FunctionFinished, name="durable/function.failed"):
    """A run ended as failed. The fields are those of :class:`FunctionFinished`."""


class FunctionCancelled(FunctionFinished, name="durable/function.cancelled"):
    """A run was cancelled. The fields are those of :class:`FunctionFinished`."""


#: The name of the event of a run whose function no event starts: it was invoked, or
#: started by its id.
INVOKED = "durable/function.invoked"

#: A header of the event: JSON that says which schedule made it, for cron monitors.
#: ``expression``, ``timezone`` and ``jitter`` are the schedule's; ``number`` counts the
#: schedules of the function from 1; ``timeout`` is that of the function, or ``null``.
SCHEDULE_HEADER = "cron-schedule"


class CronTick(EventData, name="durable/cron.tick"):
    """An instant of a function's schedule has come.

    It starts that function only, once. The event's ``at`` is when the run may start:
    the instant and, where the schedule has a jitter, the delay of this tick.

    :param function_id: The function's id.
    :param scheduled_at: The instant, in UTC.
    :param expression: The expression of the schedule, or ``None`` where a task with the
        function's name was called at a time that is none of its own schedules'.
    :param timezone: The zone that the expression is in.
    """

    function_id: str
    scheduled_at: datetime
    expression: str | None = None
    timezone: str = "UTC"
