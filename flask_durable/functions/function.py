"""A durable function: a body, its triggers, and the options of its runs."""

from __future__ import annotations

import functools
import typing as t
import weakref
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from typing_extensions import TypeVar

from ..errors import DefinitionError
from ..errors import EventError
from ..events.model import D
from ..events.model import Event
from ..events.model import EventData
from ..events.schemas import load
from .callables import code_version
from .callables import place_of
from .cron import Cron
from .options import FunctionOptions
from .retries import Backoff

if t.TYPE_CHECKING:
    from ..errors import Failure
    from ..messages import EventMessage
    from .registry import FunctionRegistry
    from .step import Step

R = TypeVar("R", default=t.Any)

#: The end of a failure handler's id, after the id of its function.
FAILURE_SUFFIX = "/on_failure"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Function(t.Generic[D, R]):
    """A function whose runs are durable. ``@durable.function`` makes it.

    Calling it calls the plain body, so that a unit test needs no engine.
    """

    #: The id, unique in an app.
    id: str
    #: Names and wildcards of the events that start it.
    triggers: tuple[str, ...]
    #: The schema of each event that ``on=`` names by class; with ``on=None``, that the
    #: annotation of the body names.
    schemas: t.Mapping[str, type[EventData]]
    #: The schedules that start it.
    crons: tuple[Cron, ...]
    #: Tells for a matching event if it starts a run.
    where: t.Callable[[Event[t.Any]], bool] | None
    #: The function that is called once for each run that failed for good.
    failure_handler: Function[D, object] | None
    #: A digest that changes with the body's code.
    version: str
    #: The place of its definition, as ``"file:line"``.
    defined_at: str
    #: Texts that error reports do not show, such as an address with a key in it.
    confidential: tuple[str, ...]

    def __init__(
        self,
        body: t.Callable[..., R],
        *,
        id: str,
        triggers: tuple[str, ...] = (),
        schemas: t.Mapping[str, type[EventData]] | None = None,
        crons: tuple[Cron, ...] = (),
        where: t.Callable[[Event[t.Any]], bool] | None = None,
        options: FunctionOptions | None = None,
    ) -> None:
        functools.update_wrapper(self, body, updated=())
        self.body = body
        self.id = id
        self.triggers = triggers
        self.schemas = dict(schemas or {})
        self.crons = crons
        self.where = where
        self.options = options or FunctionOptions()
        self.failure_handler = None
        self.version = code_version(body)
        self.defined_at = place_of(body)
        self.confidential = ()
        #: The registries that have it: its group's, and that of each extension.
        self.registries: weakref.WeakSet[FunctionRegistry] = weakref.WeakSet()

    @property
    def started_by(self) -> str:
        """Its triggers and schedules, for a person; empty if it is only invoked."""
        return ", ".join([*self.triggers, *map(str, self.crons)])

    @property
    def queue(self) -> str:
        """The queue that its runs wait in."""
        return self.options.queue

    @property
    def retries(self) -> int:
        """The number of attempts after the first one, of a step or of the body."""
        return self.options.retries

    @property
    def awaits(self) -> tuple[str, ...]:
        """The names of events that its steps wait for, as declared."""
        return tuple(self.options.awaited)

    @property
    def max_attempts(self) -> int:
        """The number of all attempts of a step or of the body."""
        return self.options.retries + 1

    @property
    def backoff(self) -> Backoff:
        """The delays between attempts."""
        return self.options.backoff

    @property
    def non_retriable(self) -> tuple[type[Exception], ...]:
        """Errors that end a step or the run at once."""
        return self.options.non_retriable

    @property
    def timeout(self) -> float | None:
        """Seconds after which a run that has not finished is cancelled."""
        return self.options.timeout

    @property
    def start_timeout(self) -> float | None:
        """Seconds from a run's creation within which it must start."""
        return self.options.start_timeout

    def __call__(self, event: Event[D], step: Step) -> R:
        """Call the plain body."""
        return self.body(event, step)

    def __repr__(self) -> str:
        return f"<Function {self.id!r} on {self.started_by or 'invoke only'}>"

    def start(
        self, data: D | t.Mapping[str, t.Any] | None = None, *, id: str | None = None
    ) -> str:
        """Start a run of this function alone. When this returns, the run is there.

        No event is sent: no other function gets one, and ``where`` is not asked. The
        run's event has the id *id*. Two starts with one id are one run.

        :param data: The data of the event that the function gets: its model, or a
            mapping that fits the model.
        :param id: The id of the event. Give one wherever the call may be repeated, such
            as in a step or in the view of a form.
        :returns: The run's id, for :meth:`durable.runs.wait
            <flask_durable.runs.runs.Runs.wait>` and the like.
        :raises EventError: The data does not fit the function's model.
        :raises UnavailableError: The state server did not take it in time. Starting it
            again with the same id is harmless.
        :raises StepUsageError: It is called in a function's body, outside a step.
        :raises RuntimeError: There is no app context, or the app does not have this
            function.
        """
        starters = [r.starter for r in self.registries if r.starter is not None]
        for starter in starters:
            # Of several apps that have the function, the current one.
            if starter.is_current or len(starters) == 1:
                return starter.start_run(self.id, data, id)
        raise RuntimeError(
            f"The function {self.id!r} is not registered with the current Flask app."
        )

    def on_failure(
        self, handler: t.Callable[[Event[D], Step, Failure], object]
    ) -> t.Callable[[Event[D], Step, Failure], object]:
        """Call *handler* once for each run that failed, with its event and failure.

        The handler has steps of its own, and the queue and retries of the function. Its
        outcome does not change that of the run.

        :raises DefinitionError: The function has a handler already, or this one does
            not take ``(event, step, failure)``.
        """
        from .checks import check_body

        if self.failure_handler is not None:
            raise DefinitionError(
                f"The function {self.id!r} has a failure handler already, at "
                f"{self.failure_handler.defined_at}; the second is at "
                f"{place_of(handler)}.",
                hint="Keep one: it may call the other.",
            )
        check_body(handler, ("event", "step", "failure"), self.schemas)
        self.failure_handler = Function(
            handler,
            id=self.id + FAILURE_SUFFIX,
            schemas=self.schemas,
            options=self.options.for_failure_handler(),
        )
        return handler

    def event_for(self, message: EventMessage) -> Event[D]:
        """Return the event that the body gets for *message*.

        Its data is a model exactly when ``on=`` names the class for the event's name,
        or, with ``on=None``, the body's annotation. Otherwise it is a plain dict.

        :raises EventError: The data does not fit the class, with a fault a field.
        """
        schema = self.schemas.get(message.name)
        return event_of(message, schema)

    def event_without_model(self, message: EventMessage) -> Event[t.Any]:
        """Return the event with its data as it was sent, as a plain dict."""
        return event_of(message, None)

    def spec(self) -> dict[str, t.Any]:
        """Return the published description of the function, as a JSON object."""
        handler = self.failure_handler
        return {
            "id": self.id,
            "triggers": list(self.triggers),
            "crons": [cron.spec() for cron in self.crons],
            "queue": self.queue,
            "where": self.where is not None,
            "timeout": self.timeout,
            "start_timeout": self.start_timeout,
            "version": self.version,
            "failure_handler": None if handler is None else handler.id,
            "max_attempts": self.max_attempts,
            "awaits": list(self.awaits),
        }


def event_of(message: EventMessage, schema: type[EventData] | None) -> Event[t.Any]:
    """Return the event of *message*, with a model if there is a schema.

    :raises EventError: The data does not fit the schema.
    """
    data: t.Any = message.opened
    if schema is not None:
        data = load(schema, data)
    try:
        at = _EPOCH + timedelta(milliseconds=message.at)
    except OverflowError:
        fault = {"field": "at", "message": "is not a time"}
        raise EventError(
            f"The event {message.name!r} is not valid: at is not a time.",
            errors=[fault],
        ) from None
    event = Event(message.name, data, id=message.id, at=at)
    # A copy that is sent on has no more to wait for than this one had.
    vars(event)["_scheduled"] = message.due > 0
    return event
