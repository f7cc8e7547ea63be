"""Routing: one event becomes one run of each function that it fits.

::

    event message ──► match ──► where ──► run_create ──► run message, or a free thread
                                               │
                     deleted ◄── barrier ◄─────┘

Every write can be repeated: a run's id is derived from function and event. If the
process dies on the way, the message stays, and the next delivery goes the same way
again. Functions do not touch each other: an error for one makes its run FAILED.

An event that is not due yet is no special case here. Only the state server's clock says
when it is due, so the script that creates its run decides, and a thread that was taken
for it is given back. The clocks of senders and workers decide nothing.
"""

from __future__ import annotations

import functools
import math
import time
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..common.ids import new_token
from ..common.ids import run_id
from ..common.redelivery import pause_before
from ..common.safe_logging import get_logger
from ..common.safe_points import call
from ..errors import EventError
from ..errors import UnavailableError
from ..functions.function import Function
from ..functions.triggers import matches
from ..functions.triggers import TriggerIndex
from ..messages import EventMessage
from ..middleware import RoutedInfo
from ..middleware import RouteInfo
from ..redis.errors import is_transient
from ..store.directory import Published
from ..store.replies import Creation
from ..store.replies import creation_of
from ..store.replies import Known
from ..store.replies import Queued
from ..store.replies import Started
from ..store.run_store import NewRun
from .asking import Answer
from .asking import Question
from .claimed_run import ClaimedRun
from .event_sender import event_info
from .outbox import Outbox
from .services import EngineServices
from .waiting import WaitingSteps

logger = get_logger(__name__)


#: The answer of a function that has no filter.
_ADMITTED = Answer(True)


class EventDelivery(t.Protocol):
    """An event message in hand."""

    @property
    def message(self) -> t.Any: ...

    @property
    def text(self) -> str: ...

    @property
    def receive_count(self) -> int: ...

    def done(self) -> None: ...

    def failed(self, error: Exception, delay: float = 0.0) -> None: ...

    def dead(self, reason: str) -> None: ...


class RunSlots(t.Protocol):
    """The threads of this process that execute runs."""

    def serves(self, queue: str) -> bool:
        """Return whether runs of *queue* are executed here."""

    def reserve(self) -> bool:
        """Take a free thread; return whether there was one."""

    def release(self) -> None:
        """Give back a thread that was not used."""

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        """Have the reserved thread execute *run*."""


@dataclass
class _Routing:
    """The state of one delivery while it is routed."""

    delivery: EventDelivery
    message: EventMessage
    text: str = field(repr=False)
    #: The description of the routing for middleware.
    info: RoutedInfo
    functions: set[str] = field(default_factory=set)


class Router:
    """Turns events into runs.

    :param threads: The threads that may execute a run at once; ``None`` for none.
    """

    def __init__(
        self, services: EngineServices, outbox: Outbox, threads: RunSlots | None = None
    ) -> None:
        self._services = services
        self._outbox = outbox
        self._threads = threads
        self._index = (Published(-1, {}), TriggerIndex())
        self._waiting = WaitingSteps(services, outbox)

    def route(
        self, deliveries: t.Sequence[EventDelivery], *, until: float = math.inf
    ) -> None:
        """Route the events in hand, in as few round trips as one event needs.

        :param until: The moment, on the monotonic clock, to give up at while the state
            server does not answer.
        """
        together = RouteInfo([])
        opened = [r for d in deliveries if (r := self._open(d)) is not None]
        together.events += [routing.info for routing in opened]
        routings = self._checked(opened, until)
        with self._services.middleware.around_route(together):
            try:
                self._route(routings, until)
            except Exception as error:
                for routing in routings:
                    routing.info.error = error
                raise

    def _route(self, routings: list[_Routing], until: float) -> None:
        published = self._services.directory.remembered
        mark = self._services.barrier_mark()
        while routings:
            version = self._create(routings, published, until)
            if version == published.version:
                break
            # A function was published since; an event in hand may match it.
            published = self._services.retry_until_answered(
                lambda: self._services.directory.current(), until=until
            )
        for routing in routings:
            if self._waiting.awaits(routing.message.name, published):
                self._deliver_to_waits(routing, until)
        self._services.wait_durable(mark, until=until)
        for routing in routings:
            if routing.info.error is not None:
                delay = pause_before(routing.delivery.receive_count)
                routing.delivery.failed(routing.info.error, delay)
            else:
                routing.delivery.done()

    def _deliver_to_waits(self, routing: _Routing, until: float) -> None:
        deliver = functools.partial(
            self._waiting.deliver, routing.message, routing.text
        )
        try:
            self._services.retry_until_answered(
                deliver, while_draining=False, until=until
            )
        except Exception as error:
            if is_transient(error):
                raise
            routing.info.error = error

    def _open(self, delivery: EventDelivery) -> _Routing | None:
        message = delivery.message
        if not isinstance(message, EventMessage):
            delivery.dead("not an event")
            return None
        size = len(delivery.text)
        info = RoutedInfo(event_info(message), delivery.receive_count, size)
        return _Routing(delivery, message, delivery.text, info)

    def _checked(self, routings: list[_Routing], until: float) -> list[_Routing]:
        """Return those whose data fits their schemas; the others are settled."""
        hangs = self._services.functions.schemas.may_hang
        answers = self._services.asker.ask(
            [
                Question(
                    f"schema {routing.message.name}",
                    functools.partial(self._services.check_event, routing.message),
                )
                for routing in routings
                if hangs(routing.message.name)
            ]
        )
        asked = iter(answers)
        fitting = []
        for routing in routings:
            if hangs(routing.message.name):
                answer = next(asked)
            else:
                answer = self._check(routing.message)
            if answer == Answer():
                fitting.append(routing)
            else:
                self._turn_away(routing, answer, until)
        return fitting

    def _check(self, message: EventMessage) -> Answer:
        try:
            self._services.check_event(message)
        except EventError as error:
            return Answer(error=error)
        return Answer()

    def _turn_away(self, routing: _Routing, answer: Answer, until: float) -> None:
        """Settle an event that does not fit its schema, or cannot be checked.

        It is dead if it fits in no release. If its sender, or another version of its
        functions, has another schema for it, it goes back for a worker that has that.
        """
        name = routing.message.name
        if isinstance(answer.error, EventError):
            error = answer.error
            published = self._services.retry_until_answered(
                lambda: self._services.directory.current(), until=until
            )
            is_dead = not self._has_other_schema(routing.message, published)
        else:
            what = "did not answer in time"
            if not answer.late and not answer.rests:
                what = f"raised {answer.error!r}"  # as one does that exits
            error, is_dead = EventError(f"The schema of {name!r} {what}."), False
        routing.info.error = error
        if is_dead:
            routing.delivery.dead(str(error))
        else:
            pause = pause_before(routing.delivery.receive_count)
            routing.delivery.failed(error, pause)

    def _has_other_schema(self, message: EventMessage, published: Published) -> bool:
        """Return whether events like *message* have another schema in some release."""
        name = message.name
        own = self._services.functions.schemas.version(name)
        # Or in a release whose web process is there and whose workers are still to
        # come.
        return message.schema not in ("", own) or any(
            version.get("schemas", {}).get(name) != own
            for versions in published.versions.values()
            for version in versions
            if any(matches(trigger, name) for trigger in version["triggers"])
        )

    def _create(
        self,
        routings: list[_Routing],
        published: Published,
        until: float = math.inf,
    ) -> int:
        """Create the runs that are missing; return the directory's version."""
        planned: list[tuple[_Routing, NewRun]] = []
        command = self._services.directory.version_command
        try:
            for routing, run in self._plan(routings, published):
                planned.append((routing, run))
            calls = [self._services.store.creation(run) for _, run in planned]
            sent = time.monotonic()
            # A worker that stops leaves the events to the next one.
            replies = self._services.retry_until_answered(
                lambda: self._call_store(calls, command),
                while_draining=False,
                until=until,
            )
        except BaseException:
            self._release_threads(planned)
            raise
        queued = []
        for (routing, run), answer in zip(planned, replies, strict=False):
            reply = creation_of(answer)
            self._created(routing, run, reply, sent)
            if isinstance(reply, Queued):
                queued.append((run.id, run.function, run.queue, reply.time))
        unsent = self._outbox.send_runs(queued)
        for routing, run in planned:
            # The sweeper sends the run message later. On a FIFO queue the next event of
            # the group may not be routed before.
            if run.id in unsent and self._services.queue.is_ordered(run.queue):
                routing.info.error = UnavailableError(
                    f"{run.queue} took no run message"
                )
        return int(replies[-1] or 0)

    def _call_store(self, calls: list[t.Any], command: tuple[str, str]) -> list[t.Any]:
        replies = self._services.store.server.call_many(calls, command)
        for reply in replies:
            # Handed back to the queue, the event would be received again and again
            # until it counts as one that no worker can process.
            if is_transient(reply):
                raise reply
        if isinstance(replies[-1], Exception):
            raise replies[-1]
        return replies

    def _release_threads(self, planned: list[tuple[_Routing, NewRun]]) -> None:
        for _, run in planned:
            if run.token and self._threads is not None:
                self._threads.release()

    def _created(
        self, routing: _Routing, run: NewRun, reply: Creation | Exception, sent: float
    ) -> None:
        """Have a run that is claimed executed, and note what *reply* says."""
        if run.token and self._threads is not None:
            match reply:
                case Started():
                    claimed = _claimed_run(run, reply.time, sent)
                    self._threads.hand_over(run.queue, claimed)
                case _:
                    self._threads.release()
        match reply:
            case Exception():
                logger.error(
                    "Could not create run %s: %s",
                    run.id,
                    reply,
                    extra={"action": "run_not_created"},
                )
                routing.info.error = reply
            case Known():
                routing.info.existing[run.function] = run.id
            case _:
                routing.info.created[run.function] = run.id

    def _plan(
        self, routings: list[_Routing], published: Published
    ) -> t.Iterator[tuple[_Routing, NewRun]]:
        """Yield the runs to create. All filters are asked before the first one.

        So no thread is reserved for a run while filters are asked.
        """
        wanted: list[tuple[_Routing, str]] = []
        for routing in routings:
            for id in self._match(routing.message.name, published):
                if id not in routing.functions:
                    routing.functions.add(id)
                    wanted.append((routing, id))
        answers = iter(self._services.asker.ask([*self._questions(wanted)]))
        for routing, id in wanted:
            function = self._services.functions.get(id)
            if function is None:
                yield routing, self._remote_run(routing, published.functions[id])
                continue
            answer = _ADMITTED if function.where is None else next(answers)
            if answer.rests:
                # Another event is to blame; this one is asked about when it is back.
                routing.info.error = UnavailableError(
                    f"where= of {id!r} did not answer for another event"
                )
                continue
            if (run := self._local_run(routing, function, answer)) is not None:
                yield routing, run

    def _questions(self, wanted: list[tuple[_Routing, str]]) -> t.Iterator[Question]:
        for routing, id in wanted:
            function = self._services.functions.get(id)
            if function is not None and function.where is not None:
                ask = functools.partial(self._admits, function, routing.message)
                yield Question(f"where {id}", ask)

    def _match(self, name: str, published: Published) -> list[str]:
        if self._index[0] is not published:
            # The union. A function whose code is here is known even if the directory
            # was lost, and the version published last hides no function of the others.
            patterns = {f.id: [*f.triggers] for f in self._services.functions}
            for id, description in published.functions.items():
                known = patterns.setdefault(id, [])
                known += [p for p in description["triggers"] if p not in known]
            self._index = (published, TriggerIndex.of(patterns))
        return self._index[1].match(name)

    def _remote_run(self, routing: _Routing, description: dict[str, t.Any]) -> NewRun:
        """Make a run of a function whose code is elsewhere; it filters there."""
        return self._new_run(
            routing,
            description["id"],
            description["queue"],
            timeout=description["timeout"],
            start_timeout=description["start_timeout"],
            unfiltered=bool(description["where"]),
        )

    def _local_run(
        self, routing: _Routing, function: Function[t.Any, t.Any], answer: Answer
    ) -> NewRun | None:
        if answer.value is False:
            return None
        return self._new_run(
            routing,
            function.id,
            function.queue,
            timeout=function.timeout,
            start_timeout=function.start_timeout,
            unfiltered=answer.value is None,
            late=answer.late,
            version=function.version,
            token=new_token() if self._may_run_here(function.queue) else "",
        )

    def _new_run(
        self, routing: _Routing, function_id: str, queue: str, **given: t.Any
    ) -> NewRun:
        message = routing.message
        return NewRun(
            id=run_id(function_id, message.id),
            function=function_id,
            queue=queue,
            event=routing.text,
            event_id=message.id,
            event_name=message.name,
            start_at=message.due,
            **given,
        )

    def _admits(
        self, function: Function[t.Any, t.Any], message: EventMessage
    ) -> bool | None:
        """Ask the function's ``where``; ``None`` if it cannot be asked here.

        Then, and if it raises, the run asks it again and fails with its error, as any
        run fails: with its failure handler, and with its events. An event with its data
        in the blob store is not read here: no other event is to wait for that.
        """
        opened = self._services.payloads.open_inline_event(message)
        if opened is None or function.where is None:
            return None
        with self._services.scope():
            event = call(function.event_for, (opened,), {})
            return bool(call(function.where, (event,), {}))

    def _may_run_here(self, queue: str) -> bool:
        threads = self._threads
        return (
            threads is not None
            and not self._services.draining.is_set()
            and threads.serves(queue)
            and threads.reserve()
        )


def _claimed_run(run: NewRun, started: int, sent: float) -> ClaimedRun:
    record = {
        "function": run.function,
        "queue": run.queue,
        "event": run.event,
        "event_id": run.event_id,
        "event_name": run.event_name,
        "generation": "0",
        "attempt": "0",
        "started": str(started),
    }
    if run.unfiltered:
        record["unfiltered"] = "late" if run.late else "1"
    return ClaimedRun(run.id, run.token, record, {}, sent)
