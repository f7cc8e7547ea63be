"""Hooks around the work of a process: it sends events, routes them, and executes runs.

====================  ===================================  ===========================
hook                  surrounds                            runs in
====================  ===================================  ===========================
``around_send``       one ``send()``, request or step      the sending thread
                      that sends events
``around_route``      events becoming runs, some together  a worker's router thread
``around_attempt``    one attempt of a run, from its       a worker's run thread
                                            claim to its end
``around_step``       one attempt of a step that is not    the attempt's thread
                      memoized yet, and its commit
====================  ===================================  ===========================

If a process is killed, the hooks of its runs are entered and never left, and the next
attempt enters them again. So count in the store what has to add up, and not here.
"""

from __future__ import annotations

import contextlib
import typing as t
from contextlib import AbstractContextManager
from dataclasses import dataclass
from dataclasses import field

if t.TYPE_CHECKING:
    from .errors import Failure
    from .messages import Outcome

from .common.safe_logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class EventInfo:
    """An event, without its data.

    :param name: The event's name.
    :param id: The event's id.
    :param at: The time of the event: milliseconds since 1970, UTC.
    :param headers: The headers that travel with it; see :attr:`SendInfo.headers`.
    """

    name: str
    id: str
    at: int
    headers: t.Mapping[str, str]


@dataclass
class SendInfo:
    """Events on their way to the event queue.

    :param events: The events, in order.
    """

    events: t.Sequence[EventInfo]
    #: Names and values that a hook adds travel with each of the events, through queue
    #: and store: to the routing, to each attempt of each run, and to its steps.
    headers: dict[str, str] = field(default_factory=dict)
    #: Bytes of their messages, once they are made.
    size: int = 0
    #: The outcome of each, once it is known: ``"accepted"``, ``"spooled"``, or the
    #: error that left it without an owner.
    outcomes: t.Sequence[Outcome] = ()


@dataclass
class RoutedInfo:
    """An event that becomes runs.

    :param event: The event that was received.
    :param receive_count: The number of times it was received, this one included.
    :param size: Bytes of its message.
    """

    event: EventInfo
    receive_count: int
    size: int
    #: The runs that were created, by the id of their function.
    created: dict[str, str] = field(default_factory=dict)
    #: The runs that were there already, since the event came before.
    existing: dict[str, str] = field(default_factory=dict)
    #: The error for which it is received again, or became a dead letter.
    error: Exception | None = None


@dataclass
class RouteInfo:
    """Events that are routed together.

    :param events: The events in hand. A message that is no event, or does not fit the
        schema of its name, is among them with its error.
    """

    events: list[RoutedInfo]


#: The outcome of a wait; see :attr:`WaitInfo.outcome`.
WaitOutcome = t.Literal["completed", "failed", "timeout"]


@dataclass(frozen=True)
class WaitInfo:
    """A step that waited, and has its answer now.

    :param name: The step's name in this run.
    :param kind: The kind of step: ``"event"``, ``"signal"``, ``"url"``, ``"invoke"``,
        ``"poll"``, or ``"group"``, a step with branches.
    :param seconds: The time that it waited, by the server's clock.
    :param outcome: ``"failed"`` if the run that it invoked, or too many of its
        branches, failed; ``"timeout"`` if it got no answer in its time.
    """

    name: str
    kind: str
    seconds: float
    outcome: WaitOutcome


#: The outcome of an attempt; see :attr:`AttemptInfo.outcome`.
AttemptOutcome = t.Literal["completed", "failed", "suspended", "lost"]

#: The outcome of an attempt of a step; see :attr:`StepInfo.outcome`.
StepOutcome = t.Literal["completed", "failed", "retried", "waiting", "interrupted"]


@dataclass
class AttemptInfo:
    """One attempt of a run.

    :param run_id: The run's id.
    :param function: The id of its function.
    :param queue: The queue of its function.
    :param event: The event that it was created for.
    :param number: The number of the body's attempt since a step was done last, from 1.
    :param created: The moment the run was created: milliseconds since 1970, by the
        server's clock.
    :param queued: The moment it was queued for this attempt, likewise.
    :param claimed: The moment the attempt claimed it, likewise.
    :param memoized: The number of steps that the attempt finds done.
    :param size: Bytes of the event as it is stored with the run.
    :param branch: The name of the branch, such as ``"chunks[3]"``; ``None`` for a run
        that is no branch.
    """

    run_id: str
    function: str
    queue: str
    event: EventInfo
    number: int
    created: int
    queued: int
    claimed: int
    memoized: int
    size: int
    branch: str | None = None
    #: The branch without its place, such as ``"chunks[]"``: all branches of a step have
    #: the same.
    branch_pattern: str = ""
    #: The waits of its steps that have ended since the attempt before. Each is in one
    #: attempt: the first that comes to its answer.
    waits: list[WaitInfo] = field(default_factory=list)
    #: The failure of the body's attempt before this one, if it can be read.
    previous: Failure | None = None
    #: ``"completed"`` or ``"failed"`` if the run ended, ``"suspended"`` if it goes on
    #: later, ``"lost"`` if another worker has it by now, or it was cancelled.
    outcome: AttemptOutcome = "lost"
    #: The reason for a suspension or a loss: ``"sleep"``, ``"retry"``, …
    reason: str = ""
    #: The error of the run or of its body; dropped once all hooks have ended.
    error: BaseException | None = None
    #: The step whose failure failed the run; empty if it was the body's own.
    failed_step: str = ""


@dataclass
class StepInfo:
    """One attempt of a step.

    :param attempt: The attempt of the run.
    :param name: The step's name in this run, such as ``"transcode#2"``.
    :param kind: The kind of step: ``"run"``, ``"send_event"``, ``"invoke"``, …
    :param number: The number of its attempt, counted from 1.
    """

    attempt: AttemptInfo
    name: str
    kind: str
    number: int
    #: The failure of the attempt before this one, if it can be read.
    previous: Failure | None = None
    #: True if its body goes on from a checkpoint of an earlier call.
    resumed: bool = False
    #: The number of its branches; 0 for a step that has none.
    branches: int = 0
    #: ``"completed"`` or ``"failed"`` if that is committed, ``"retried"`` if there is
    #: to be another attempt, ``"waiting"`` if the run is suspended until the step has
    #: its answer (see :attr:`AttemptInfo.waits`) or until the next look of a poll,
    #: ``"interrupted"`` if the attempt of the run ended before.
    outcome: StepOutcome = "interrupted"
    #: The error of its body; dropped once all hooks have ended.
    error: BaseException | None = None

    @property
    def pattern(self) -> str:
        """The name without the place of a branch, such as ``"chunks[]/transcribe"``.

        Names for series and groups have to be few, and a step may have 1,000 branches.
        """
        if self.attempt.branch is None:
            return self.name
        return self.attempt.branch_pattern + self.name.removeprefix(self.attempt.branch)


Around = AbstractContextManager[object]

#: A context for moments that no hook overrides.
NOTHING: t.Final[Around] = contextlib.nullcontext()


class Middleware:
    """Hooks around each send, routing, attempt and step of an app in this process.

    Override the hooks of interest. Each is called just before, and returns a context
    manager that is entered then and left afterwards, in the same thread; a generator
    that :func:`contextlib.contextmanager` decorates does. The outcome is in the
    argument by then::

        class StepTimes(Middleware):
            @contextmanager
            def around_step(self, step: StepInfo) -> Iterator[None]:
                began = time.monotonic()
                yield
                print(step.name, step.outcome, time.monotonic() - began)

        durable = Durable(middleware=[StepTimes()])

    The first of several is the outermost. An error of a hook is logged and goes no
    further, so no event and no run is lost by it. A hook does not see the errors of the
    code inside as exceptions. The time of a hook is added to the run's.
    """

    def around_send(self, send: SendInfo) -> Around:
        """Surround the sending of events."""
        return NOTHING

    def around_route(self, route: RouteInfo) -> Around:
        """Surround the routing of events."""
        return NOTHING

    def around_attempt(self, attempt: AttemptInfo) -> Around:
        """Surround an attempt of a run."""
        return NOTHING

    def around_step(self, step: StepInfo) -> Around:
        """Surround an attempt of a step."""
        return NOTHING


class MiddlewareChain:
    """All middleware of an app, outermost first."""

    def __init__(self, members: t.Sequence[Middleware] = ()) -> None:
        self._send = _overriding(members, "around_send")
        self._route = _overriding(members, "around_route")
        self._attempt = _overriding(members, "around_attempt")
        self._step = _overriding(members, "around_step")

    def around_send(self, send: SendInfo) -> Around:
        """Return the hooks' context for the sending of events."""
        return _Guarded(self._send, send) if self._send else NOTHING

    def around_route(self, route: RouteInfo) -> Around:
        """Return the hooks' context for the routing of events."""
        return _Guarded(self._route, route) if self._route else NOTHING

    def around_attempt(self, attempt: AttemptInfo) -> Around:
        """Return the hooks' context for an attempt of a run."""
        return _Guarded(self._attempt, attempt) if self._attempt else NOTHING

    def around_step(self, step: StepInfo) -> Around:
        """Return the hooks' context for an attempt of a step."""
        return _Guarded(self._step, step) if self._step else NOTHING


Hook = t.Callable[[t.Any], Around]


def _overriding(members: t.Sequence[Middleware], name: str) -> list[Hook]:
    inherited = getattr(Middleware, name)
    return [
        getattr(member, name)
        for member in members
        if getattr(type(member), name, None) is not inherited
    ]


class _Guarded:
    """Enters the contexts of hooks, and leaves them in reverse, whatever they raise."""

    def __init__(self, hooks: t.Sequence[Hook], info: object) -> None:
        self._hooks = hooks
        self._info = info
        self._entered: list[Around] = []

    def __enter__(self) -> None:
        for hook in self._hooks:
            try:
                around = hook(self._info)
                if around is NOTHING:
                    continue
                around.__enter__()
                self._entered.append(around)
            except BaseException as error:
                _drop(hook, error)

    def __exit__(self, *_: object) -> None:
        for around in reversed(self._entered):
            try:
                # Never an exception: a hook could swallow one that ends an attempt.
                around.__exit__(None, None, None)
            except BaseException as error:
                _drop(around, error)


def _drop(what: object, error: BaseException) -> None:
    """Log the error of a hook, and let nothing but an interrupt through.

    Even ``SystemExit``, which would end a worker's thread with its run in hand.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    logger.error(
        "Middleware failed: %r",
        what,
        exc_info=error,
        extra={"action": "middleware_failed"},
    )
