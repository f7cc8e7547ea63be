"""The decorators that an app's extension and a group have in common."""

from __future__ import annotations

import typing as t

from ..errors import DefinitionError
from ..events.builtin import CronTick
from ..events.model import Event
from ..events.model import EventData
from .cron import Cron
from .definition import define_function
from .definition import define_step
from .definition import MISSING
from .definition import refuse_bare
from .function import Function
from .options import FunctionKeywords
from .options import FunctionOptions
from .options import StepKeywords
from .registry import FunctionRegistry
from .step_function import StepFunction
from .triggers import Trigger

if t.TYPE_CHECKING:
    from .step import Step

Data = t.TypeVar("Data", bound=EventData)
Schema = t.TypeVar("Schema", bound=type[EventData])
Given = t.TypeVar("Given")
R = t.TypeVar("R")
P = t.ParamSpec("P")


class FunctionDecorator(t.Protocol):
    """Makes a function of a body that gets events of several kinds."""

    def __call__(
        self, body: t.Callable[[Event[t.Any], Step], R], /
    ) -> Function[t.Any, R]: ...


class TypedFunctionDecorator(t.Protocol[Data]):
    """Makes a function of a body that gets events with data of one class."""

    def __call__(
        self, body: t.Callable[[Event[Data], Step], R], /
    ) -> Function[Data, R]: ...


class InvokedFunctionDecorator(t.Protocol):
    """Makes a function of a body that no event starts, with the data it is given."""

    def __call__(
        self, body: t.Callable[[Event[Given], Step], R], /
    ) -> Function[Given, R]: ...


class StepDecorator(t.Protocol):
    """Makes a declared step of a function."""

    def __call__(self, function: t.Callable[P, R], /) -> StepFunction[P, R]: ...


class Decorators:
    """``function``, ``step`` and ``event``, which declare into a registry."""

    #: The registry that takes the declarations.
    functions: FunctionRegistry
    #: Put before the id of each function and the name of each declared step.
    _prefix: str = ""
    #: The options of functions that set none themselves.
    _defaults: FunctionKeywords = {}

    @t.overload
    def function(
        self,
        *,
        on: type[Data],
        id: str | None = None,
        where: t.Callable[[Event[Data]], bool] | None = None,
        **options: t.Unpack[FunctionKeywords],
    ) -> TypedFunctionDecorator[Data]: ...

    @t.overload
    def function(
        self,
        *,
        on: Cron,
        id: str | None = None,
        where: t.Callable[[Event[CronTick]], bool] | None = None,
        **options: t.Unpack[FunctionKeywords],
    ) -> TypedFunctionDecorator[CronTick]: ...

    @t.overload
    def function(
        self,
        *,
        on: None,
        id: str | None = None,
        where: t.Callable[[Event[t.Any]], bool] | None = None,
        **options: t.Unpack[FunctionKeywords],
    ) -> InvokedFunctionDecorator: ...

    @t.overload
    def function(
        self,
        *,
        on: str | t.Sequence[Trigger],
        id: str | None = None,
        where: t.Callable[[Event[t.Any]], bool] | None = None,
        **options: t.Unpack[FunctionKeywords],
    ) -> FunctionDecorator: ...

    def function(
        self,
        *bare: t.Any,
        on: t.Any = MISSING,
        id: str | None = None,
        where: t.Any = None,
        **options: t.Any,
    ) -> t.Any:
        """Declare a durable function.

        :param on: The triggers: an event's name, a wildcard (``"media/*"``), an
            :class:`EventData` class, a schedule (:class:`Cron`), a sequence of these,
            or ``None`` for a function that is only invoked. ``event.data`` is a model
            for the events whose class is named, a :class:`CronTick` for those of a
            schedule, otherwise a plain dict. With ``None`` the class is the one in the
            body's annotation, ``event: Event[X]``.
        :param id: An id that is unique in the app (default the function's name). Runs
            are found by it, so keep it when the function is renamed.
        :param where: A callable that tells for an event if it starts a run.
        :param queue: The queue that its runs wait in (default ``"default"``).
        :param retries: The number of attempts of each step, and of the body, after the
            first one (default 3).
        :param backoff: The delays between attempts.
        :param non_retriable: Exception classes that end a step or the run at once.
        :param timeout: The longest time of a run, its wait in the queue included; then
            it is cancelled.
        :param start_timeout: The longest wait of a run for its start; then it is
            cancelled.
        :param awaits: The events that its steps wait for, as names or classes: they are
            kept from now on, also for a wait that begins later.
        :raises DefinitionError: The declaration is wrong; the message has the fix.
        """
        if bare:
            refuse_bare(bare[0])
        checked = FunctionOptions.of({**self._defaults, **options})

        def decorate(body: t.Any) -> Function[t.Any, t.Any]:
            function = define_function(
                body, on=on, id=id, where=where, prefix=self._prefix, options=checked
            )
            self._open()
            self.functions.add(function)
            return function

        return decorate

    @t.overload
    def step(self, function: t.Callable[P, R], /) -> StepFunction[P, R]: ...

    @t.overload
    def step(
        self, name: str | None = None, /, **options: t.Unpack[StepKeywords]
    ) -> StepDecorator: ...

    def step(self, name: t.Any = None, /, **options: t.Any) -> t.Any:
        """Declare a step: in a run's body it runs as a step, elsewhere it is a call.

        Works bare, as ``@durable.step``, and with options. Options that are not given
        are as the function says.

        :param name: The step's name, unique in the app (default the function's name).
        :param retries: The number of attempts after the first one.
        :param backoff: The delays between attempts.
        :param non_retriable: Exception classes that end the step at once.
        :param timeout: The longest time of one attempt.
        :param lease: The longest time that the body holds the interpreter in C code.
        :param at_most_once: True to never repeat an attempt whose outcome is unknown.
        :raises DefinitionError: The declaration is wrong; the message has the fix.
        """
        if callable(name):
            return self.step()(name)

        def decorate(body: t.Any) -> StepFunction[..., t.Any]:
            step = define_step(
                body,
                name=name,
                keywords=t.cast(StepKeywords, options),
                prefix=self._prefix,
            )
            self._open()
            self.functions.add_step(step)
            return step

        return decorate

    def event(self, schema: Schema) -> Schema:
        """Declare the schema of an event that no ``on=`` names.

        :raises DefinitionError: The schema has no event name, or the name has another
            schema.
        """
        if not (isinstance(schema, type) and issubclass(schema, EventData)):
            raise DefinitionError(
                f"{schema!r} is not a subclass of EventData.",
                hint="Declare it as \"class X(EventData, name='a/b')\".",
            )
        self._open()
        self.functions.add_schema(schema)
        return schema

    def _open(self) -> None:
        """Check that more may be declared.

        :raises DefinitionError: The app or the group takes no more declarations.
        """
