"""Schedules: each instant of a function's :class:`Cron` gets one run.

Every worker looks, and none has to be the leader. The id of a tick is derived from its
function and its instant, and so is the id of the run: the first worker creates it, and
later ones find it. The *mark* of a schedule (``cron_marks.lua``) holds the time up to
which some worker has created the runs.

The due instants follow from the directory, so that all workers follow the schedule of
the function's newest version. Only a process that has the code of a function carries
its schedule out, so a schedule whose code is gone stops.
"""

from __future__ import annotations

import json
import time
import typing as t
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from datetime import UTC

from ..common.ids import derived_id
from ..common.ids import run_id
from ..common.safe_logging import get_logger
from ..errors import DurableError
from ..events.builtin import CronTick
from ..events.builtin import SCHEDULE_HEADER
from ..functions.cron import Cron
from ..messages import EventMessage
from ..redis.errors import is_transient
from ..store.directory import Published
from ..store.replies import creation_of
from ..store.replies import Queued
from ..store.run_store import NewRun
from .outbox import Outbox
from .services import EngineServices

#: Seconds between two looks, unless an instant comes sooner.
INTERVAL = 30.0

#: Milliseconds within which all missed instants are made up. If there is none within,
#: the latest older one is made up alone.
ALL_MADE_UP = 300_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Description = t.Mapping[str, t.Any]

logger = get_logger(__name__)


@dataclass(frozen=True)
class _Schedule:
    """One published schedule of a function."""

    function: Description
    cron: Cron

    @property
    def key(self) -> str:
        """Its name on the state server: another expression is another schedule."""
        cron = self.cron
        return f"{self.function['id']} {cron.expression} {cron.timezone}"


class Schedules:
    """Creates the runs of schedules for functions with code in this process."""

    def __init__(self, services: EngineServices, outbox: Outbox) -> None:
        self._services = services
        self._outbox = outbox
        self._schedules: tuple[Published, list[_Schedule]] = (Published(-1, {}), [])
        #: Schedule to the time up to which this process created runs.
        self._done: dict[str, int] = {}
        self._next_look = 0.0

    def look(self) -> None:
        """Create the runs of the instants that have come since the last look.

        :raises redis.RedisError: The server did not answer.
        """
        published = self._services.directory.remembered
        if published is not self._schedules[0]:
            self._schedules = (published, list(self._found_in(published)))
            self._next_look = 0.0
        schedules = self._schedules[1]
        if not schedules or time.monotonic() < self._next_look:
            return
        now, marks = self._ask(schedules)
        if marks is None:
            return  # the directory changed: the next look reads it
        due = {
            schedule.key: _due(schedule.cron, marks[schedule.key], now)
            for schedule in schedules
        }
        if any(due.values()):
            self._create_due(schedules, due, now)
        else:
            self._done = dict.fromkeys(due, now)
        soonest = min(_seconds_to_next(schedule.cron, now) for schedule in schedules)
        self._next_look = time.monotonic() + soonest

    def start(self, function_id: str, instant: datetime) -> bool:
        """Create the run that a function has for *instant*, whatever its schedules.

        The instant comes from another clock and may be some seconds late. So its minute
        counts: no schedule is finer.

        :returns: True if this process has a function of that name with a schedule.
        :raises redis.RedisError: The server did not answer.
        """
        function = self._services.functions.get(function_id)
        if function is None or not function.crons:
            return False
        instant = instant.replace(second=0, microsecond=0)
        cron = next((cron for cron in function.crons if cron.has(instant)), None)
        published = self._services.directory.remembered.functions
        description = published.get(function_id) or function.spec()
        self._create([_run_of(description, cron, instant)])
        return True

    def _found_in(self, published: Published) -> t.Iterator[_Schedule]:
        for function in self._services.functions:
            description = published.functions.get(function.id, {})
            for spec in description.get("crons", ()):
                try:
                    yield _Schedule(description, Cron(**spec))
                except (DurableError, TypeError) as error:
                    # Published by other code, which knows expressions that this code
                    # does not.
                    logger.warning(
                        "The schedule of %s: %s",
                        function.id,
                        error,
                        extra={"action": "schedule_deferred"},
                    )

    def _ask(self, schedules: list[_Schedule]) -> tuple[int, dict[str, int] | None]:
        done = {schedule.key: self._done.get(schedule.key, 0) for schedule in schedules}
        version = self._schedules[0].version
        return self._services.directory.schedule_marks(done, version)

    def _create_due(
        self,
        schedules: list[_Schedule],
        due: dict[str, list[datetime]],
        now: int,
    ) -> None:
        runs: dict[str, NewRun] = {}
        for schedule in schedules:
            for instant in due[schedule.key]:
                run = _run_of(schedule.function, schedule.cron, instant)
                # Two schedules of a function may meet: the first one makes the tick.
                runs.setdefault(run.id, run)
        failed = self._create(list(runs.values()))
        self._done = {
            schedule.key: now
            for schedule in schedules
            if schedule.function["id"] not in failed
        }
        # At once, so that other workers do not look for instants that are done.
        self._ask(schedules)

    def _create(self, runs: list[NewRun]) -> set[str]:
        """Create *runs*; return the functions that had a run fail to be created."""
        mark = self._services.barrier_mark()
        store = self._services.store
        replies = store.server.call_many([store.creation(run) for run in runs])
        failed, queued = set(), []
        for run, reply in zip(runs, map(creation_of, replies), strict=True):
            if isinstance(reply, Exception):
                if is_transient(reply):
                    raise reply
                logger.error(
                    "Could not create run %s: %s",
                    run.id,
                    reply,
                    extra={"action": "run_not_created"},
                )
                failed.add(run.function)
            elif isinstance(reply, Queued):
                queued.append((run.id, run.function, run.queue, reply.time))
        self._outbox.send_runs(queued)
        self._services.wait_durable(mark)
        return failed


def _due(cron: Cron, mark: int, now: int) -> list[datetime]:
    """Return the instants after *mark* that are to get a run."""
    instants = list(cron.instants(_datetime(mark), _datetime(now)))
    late = _datetime(now - ALL_MADE_UP)
    return [instant for instant in instants if instant > late] or instants[-1:]


def _seconds_to_next(cron: Cron, now: int) -> float:
    time_now = _datetime(now)
    following = cron.next_after(time_now)
    if following is None:
        return INTERVAL
    return min((following - time_now).total_seconds(), INTERVAL)


def _run_of(function: Description, cron: Cron | None, instant: datetime) -> NewRun:
    """Return the run of a function for *instant*; *cron* has it, if given."""
    message = _message_of(function, cron, instant)
    return NewRun(
        id=run_id(function["id"], message.id),
        function=function["id"],
        queue=function["queue"],
        event=message.encode(),
        event_id=message.id,
        event_name=message.name,
        timeout=function["timeout"],
        start_timeout=function["start_timeout"],
        start_at=message.due,
        unfiltered=bool(function["where"]),
    )


def _message_of(
    function: Description, cron: Cron | None, instant: datetime
) -> EventMessage:
    id = function["id"]
    scheduled = _milliseconds(instant)
    tick = CronTick(function_id=id, scheduled_at=instant)
    delay, headers = 0.0, {}
    if cron is not None:
        known = {"expression": cron.expression, "timezone": cron.timezone}
        tick = tick.model_copy(update=known)
        delay = cron.delay(id, instant)
        headers = _headers_of(function, cron)
    at = scheduled + round(delay * 1000)
    return EventMessage(
        name=str(CronTick.__event_name__),
        data=tick.model_dump(mode="json"),
        id=derived_id("cron", id, str(scheduled)),
        at=at,
        headers=headers,
        due=at,
    )


def _headers_of(function: Description, cron: Cron) -> dict[str, str]:
    spec = cron.spec()
    if spec not in function["crons"]:
        # A task of older code: the newest version has no such schedule, and with the
        # number of another one its run would check in as that one's.
        return {}
    number = function["crons"].index(spec) + 1
    schedule = {**spec, "number": number, "timeout": function["timeout"]}
    return {SCHEDULE_HEADER: json.dumps(schedule)}


def _datetime(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _milliseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(milliseconds=1)
