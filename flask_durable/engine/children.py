"""Runs of one function that are started by name: by ``step.invoke`` and ``start``.

Such a run has an event like any other. It was never sent: it is checked, sealed and
stored with the run, and no other function gets it. Its name is that of the data's
model, or else the first name that starts the function, so that the function gets the
model it expects. A function that no event starts has the models of its annotation;
without one it gets ``durable/function.invoked``.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import replace

from ..errors import EventError
from ..errors import StepUsageError
from ..events.builtin import INVOKED
from ..events.model import Event
from ..events.model import EventData
from ..events.model import RESERVED_PREFIX
from ..functions.function import FAILURE_SUFFIX
from ..functions.function import Function
from ..messages import EventMessage
from ..serialization import Codec
from ..serialization import codec_for
from ..serialization import PLAIN
from ..store.directory import Description
from ..store.run_reader import Record

if t.TYPE_CHECKING:
    from .services import EngineServices

AnyFunction = Function[t.Any, t.Any]

#: The name that data of a function has while it is checked, if its own is reserved.
_CHECKED_AS = "function/invoked"


@dataclass(frozen=True)
class Callee:
    """A function that is to have a run.

    :param names: The events that start it, without wildcards, or of its models.
    :param function: Its code; ``None`` if that is elsewhere.
    """

    id: str
    queue: str
    timeout: float | None
    start_timeout: float | None
    names: tuple[str, ...]
    function: AnyFunction | None

    @property
    def version(self) -> str:
        """The version of its code; empty if that is elsewhere."""
        return "" if self.function is None else self.function.version


def id_of(function: t.Any) -> str:
    """Return the id of a durable function, or of text that is one.

    :raises StepUsageError: It is neither.
    """
    if not isinstance(function, (Function, str)):
        raise StepUsageError(
            f"{function!r} is not a durable function.",
            hint="Give what @durable.function made, or its id as text. A plain function"
            " is called with step.run.",
        )
    return function if isinstance(function, str) else function.id


def callee_of(services: EngineServices, id: str) -> Callee:
    """Return the function to be run, from the code here or from the directory.

    :raises StepUsageError: No process has it, or it is a failure handler.
    """
    if id.endswith(FAILURE_SUFFIX):
        raise StepUsageError(
            f"{id!r} is a failure handler, which only the failure of a run starts.",
            hint="Put the work into a durable function of its own, and start that.",
        )
    code = services.functions.get(id)
    if code is not None:
        names = tuple(dict.fromkeys([*code.schemas, *code.triggers]))
        given = (code.queue, code.timeout, code.start_timeout)
        return Callee(id, *given, _exact(names), code)
    description = services.directory.remembered.functions.get(id)
    if description is None:
        published = services.retry_until_answered(services.directory.current)
        description = published.functions.get(id)
    if description is None:
        raise StepUsageError(
            f"No process has a function {id!r}.",
            hint="Register it with this app, or start a worker that has it.",
        )
    return _elsewhere(id, description)


def result_codec(services: EngineServices, function: AnyFunction | str) -> Codec:
    """Return the codec of a function's results.

    :raises StepUsageError: Its return annotation cannot be stored.
    """
    code = function if isinstance(function, Function) else None
    code = code or services.functions.get(id_of(function))
    return PLAIN if code is None else codec_for(code.body)


def _elsewhere(id: str, description: Description) -> Callee:
    return Callee(
        id,
        description["queue"],
        description["timeout"],
        description["start_timeout"],
        _exact(description["triggers"] or description["schemas"]),
        None,
    )


def _exact(names: t.Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not name.endswith("*"))


def message_for(
    services: EngineServices, callee: Callee, data: t.Any, id: str
) -> EventMessage:
    """Return the event of a new run of *callee*, checked against the callee's model.

    :param data: A model, a mapping, or ``None`` for no data.
    :param id: The event's id.
    :raises EventError: The data does not fit.
    """
    name = _name_of(callee, data)
    if isinstance(data, t.Mapping):
        data = dict(data)
    # Names of our own are refused in what users send.
    checked_as = _CHECKED_AS if name.startswith(RESERVED_PREFIX) else name
    try:
        message = services.message_of(Event(checked_as, data), id)
    except EventError as error:
        if checked_as == name:
            raise
        faults = [f"{fault['field']} {fault['message']}" for fault in error.errors]
        raise EventError(
            f"The event of a run of {callee.id!r} is not valid: {'; '.join(faults)}.",
            errors=error.errors,
        ) from None
    if checked_as != name:
        schema = services.functions.schemas.version(name)
        message = replace(message, name=name, schema=schema)
    if callee.function is not None:
        callee.function.event_for(message)
    return message


def _name_of(callee: Callee, data: t.Any) -> str:
    own = type(data).__event_name__ if isinstance(data, EventData) else None
    if own is None:
        return callee.names[0] if callee.names else INVOKED
    if callee.names and own not in callee.names:
        expected = " or ".join(callee.names)
        raise EventError(
            f"{callee.id!r} takes {expected}, and was given {own}.",
            errors=[{"field": "name", "message": f"is not {expected}"}],
        )
    return own


def is_quiet(record: Record) -> bool:
    """Return True if the children of a run send no events when they end.

    Otherwise a function that listens to the ends of runs could set itself off by the
    runs that it invokes.

    :param record: The record of the parent.
    """
    name = record["event_name"]
    reserved = name.startswith(RESERVED_PREFIX) and name != INVOKED
    return reserved or "cause" in record or "quiet" in record
