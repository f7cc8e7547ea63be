"""The event that a schedule makes of each of its instants."""

from __future__ import annotations

from datetime import datetime

from .model import EventData

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
