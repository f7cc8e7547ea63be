"""The checks of a declared function or step; each error has its fix."""

from __future__ import annotations

import inspect
import re
import types
import typing as t

from pydantic import BaseModel

from ..errors import DefinitionError
from ..events.model import Event
from ..events.model import EventData
from .function import Function
from .options import FunctionOptions
from .options import StepKeywords
from .signatures import annotation_of
from .signatures import place_of
from .signatures import underlying
from .signatures import UnresolvedAnnotation
from .step_function import StepFunction
from .triggers import read_triggers

#: Characters of a function's id and of a step's name.
MAX_ID = 128
MAX_STEP_NAME = 200

#: The default of ``on=``, to tell if it was given.
MISSING: t.Any = object()

_ID = re.compile(r"[A-Za-z0-9_.\-]+")
_NUMBERED = re.compile(r".*#[0-9]+", re.DOTALL)


def define_function(
    body: t.Any,
    *,
    on: t.Any = MISSING,
    id: str | None = None,
    where: t.Any = None,
    prefix: str = "",
    options: FunctionOptions,
) -> Function[t.Any, t.Any]:
    """Return the function that a decorator makes of *body*.

    :param prefix: A text put before the id, such as a group's name and a dot.
    :raises DefinitionError: The declaration is wrong.
    """
    if on is MISSING:
        raise DefinitionError(
            f"The function at {place_of(body)} does not say what starts it.",
            hint='Write on="media/uploaded", on=MediaUploaded, on=Cron("0 4 * * *"), '
            "or on=None for a function that is only invoked.",
        )
    if isinstance(body, Function):
        raise DefinitionError(
            f"{body.id!r} is a durable function already.",
            hint="Give several events as one list: on=[A, B].",
        )
    triggers = read_triggers(on)
    schemas = None if on is None else triggers.schemas
    check_body(body, ("event", "step"), schemas)
    name = prefix + _name_of(body, id, "id=")
    check_id(name)
    check_where(where)
    return Function(
        body,
        id=name,
        triggers=triggers.patterns,
        schemas=triggers.schemas,
        crons=triggers.crons,
        where=where,
        options=options,
    )


def define_step(
    body: t.Any, *, name: str | None, keywords: StepKeywords, prefix: str = ""
) -> StepFunction[..., t.Any]:
    """Return the step that a decorator makes of *body*.

    :raises DefinitionError: The declaration is wrong.
    """
    if isinstance(body, (Function, StepFunction)):
        raise DefinitionError(
            f"{body!r} cannot be declared as a step.", hint="Declare a plain function."
        )
    _check_kind(body)
    name = prefix + _name_of(body, name, "a name")
    if not name.strip() or len(name) > MAX_STEP_NAME or _NUMBERED.fullmatch(name):
        raise DefinitionError(
            f"A step cannot be called {name!r}.",
            hint=f"Use 1 to {MAX_STEP_NAME} characters that do not end in a number "
            "sign and digits.",
        )
    return StepFunction(body, name=name, keywords=keywords)


def refuse_bare(given: t.Any) -> t.NoReturn:
    """Refuse a positional argument of ``@durable.function``, or a bare function."""
    if inspect.isroutine(given):
        raise DefinitionError(
            f"{given.__name__!r} is declared without parentheses.",
            hint='Write "@durable.function(on=...)".',
        )
    shown = given.__name__ if isinstance(given, type) else repr(given)
    if isinstance(given, str):
        shown = f'"{given}"'
    raise DefinitionError(
        f"What starts a function is given by name, not by place: {shown}.",
        hint=f"Write @durable.function(on={shown}).",
    )


def check_id(id: t.Any) -> None:
    """Check that *id* is fit for a function.

    :raises DefinitionError: The id is malformed.
    """
    if not isinstance(id, str) or not _ID.fullmatch(id) or len(id) > MAX_ID:
        raise DefinitionError(
            f"The function id {id!r} is not 1 to {MAX_ID} letters, digits and the "
            "characters _ - .",
            hint="Give another with id=.",
        )


def check_where(where: t.Any) -> None:
    """Check that *where* takes an event.

    :raises DefinitionError: *where* is no plain function, or does not take one event.
    """
    if where is None:
        return
    if not callable(where) or inspect.iscoroutinefunction(underlying(where)):
        raise DefinitionError(
            f"where={where!r} is not a plain function of an event.",
            hint="Write where=lambda event: event.data.size > 0.",
        )
    _check_arity(where, ("event",))


def check_body(
    body: t.Any,
    parameters: t.Sequence[str],
    schemas: t.Mapping[str, type[EventData]] | None,
) -> None:
    """Check that *body* can be called with *parameters*.

    :param schemas: The classes that ``on=`` names; ``None`` to leave the annotation of
        the event unchecked.
    :raises DefinitionError: The body takes other parameters, or its annotation names
        another event.
    """
    _check_kind(body)
    _check_arity(body, parameters)
    if schemas is not None:
        _check_annotation(body, tuple(schemas.values()))


def _check_kind(body: t.Any) -> None:
    if not callable(body):
        raise DefinitionError(f"{body!r} is not a function.")
    function = underlying(body)
    place = place_of(body)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"The function at {place} is async, which is not supported.",
            hint='Write "def", and run what is async inside a step with asyncio.run.',
        )
    if inspect.isgeneratorfunction(function):
        raise DefinitionError(
            f"The function at {place} is a generator: it has a yield.",
            hint="Return a list, or make what follows each yield a step.",
        )


def _check_arity(body: t.Any, parameters: t.Sequence[str]) -> None:
    try:
        signature = inspect.signature(body)
    except ValueError:  # a builtin without one
        return
    try:
        signature.bind(*parameters)
    except TypeError as error:
        wanted = ", ".join(parameters)
        raise DefinitionError(
            f"The function at {place_of(body)} is called with ({wanted}), but takes "
            f"{_without_annotations(signature)}: {error}.",
            hint=f'Write "def {getattr(body, "__name__", "function")}({wanted})".',
        ) from None


def _without_annotations(signature: inspect.Signature) -> str:
    empty = inspect.Parameter.empty
    plain = [p.replace(annotation=empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _check_annotation(body: t.Any, schemas: tuple[type[EventData], ...]) -> None:
    first = next(iter(inspect.signature(body).parameters.values()))
    try:
        annotation = annotation_of(underlying(body), first.name)
    except UnresolvedAnnotation:  # imported for the type checker alone
        return
    if _is_schema(annotation):
        _disagree(body, schemas, f"{first.name}: {annotation.__name__}")
    if t.get_origin(annotation) is not Event:
        return
    kinds = _members(t.get_args(annotation)[0])
    if any(kind in (t.Any, object) or not isinstance(kind, type) for kind in kinds):
        return
    models = [kind for kind in kinds if issubclass(kind, BaseModel)]
    lacking = [schema for schema in schemas if not issubclass(schema, (*models,))]
    foreign = [kind for kind in models if not _covers(kind, schemas)]
    if lacking or foreign:
        names = " | ".join(kind.__name__ for kind in kinds)
        _disagree(body, schemas, f"{first.name}: Event[{names}]")


def _members(annotation: t.Any) -> list[t.Any]:
    """Return the members of a union, without the contents of their brackets."""
    if t.get_origin(annotation) in (t.Union, types.UnionType):
        return [t.get_origin(kind) or kind for kind in t.get_args(annotation)]
    return [t.get_origin(annotation) or annotation]


def _is_schema(kind: t.Any) -> t.TypeGuard[type[EventData]]:
    return isinstance(kind, type) and issubclass(kind, EventData)


def _covers(kind: type, schemas: tuple[type[EventData], ...]) -> bool:
    return any(issubclass(schema, kind) for schema in schemas)


def _disagree(
    body: t.Any, schemas: tuple[type[EventData], ...], said: str
) -> t.NoReturn:
    names = " | ".join(schema.__name__ for schema in schemas)
    actual = names or "no class: its data is a plain dict"
    raise DefinitionError(
        f'The function at {place_of(body)} is annotated "{said}", but on= names '
        f"{actual}.",
        hint=f'Annotate "event: Event[{names or "dict[str, Any]"}]", or name the class '
        "in on=.",
    )


def _name_of(body: t.Any, given: t.Any, option: str) -> str:
    if given is not None:
        if not isinstance(given, str):
            raise DefinitionError(f"The name {given!r} is not text.")
        return given
    name = getattr(body, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise DefinitionError(
            f"The function at {place_of(body)} has no name of its own.",
            hint=f"Give it {option}.",
        )
    return name
