"""Checks of declarations: ids, filters and the bodies of functions."""

from __future__ import annotations

import inspect
import re
import types
import typing as t

from pydantic import BaseModel

from ..errors import DefinitionError
from ..events.model import Event
from ..events.model import EventData
from .callables import annotation_of
from .callables import place_of
from .callables import underlying
from .callables import UnresolvedAnnotation
from .triggers import event_name_of

#: Characters of a function's id and of a step's name.
MAX_ID = 128
MAX_STEP_NAME = 200

_ID = re.compile(r"[A-Za-z0-9_.\-]+")


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
        the event unchecked, see :func:`annotated_schemas`.
    :raises DefinitionError: The body takes other parameters, or its annotation names
        another event.
    """
    check_kind(body)
    _check_arity(body, parameters)
    if schemas is not None:
        _check_annotation(body, tuple(schemas.values()))


def check_kind(body: t.Any) -> None:
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


def annotated_schemas(body: t.Any) -> dict[str, type[EventData]]:
    """Return the classes that the annotation of a body's event names, by event.

    They are the models of a function that no event starts: its ``on=`` names none.

    :raises DefinitionError: The annotation names a model that is no event, or the name
        of a model cannot be found.
    """
    first = next(iter(inspect.signature(body).parameters.values()))
    try:
        annotation = annotation_of(underlying(body), first.name)
    except UnresolvedAnnotation as error:
        if "[" not in error.annotation:  # a bare Event, for the type checker alone
            return {}
        raise DefinitionError(
            f"The function at {place_of(body)} takes its model from its annotation, "
            f"and {error}.",
            hint="Import what it names outside of TYPE_CHECKING, at the top of the "
            "module.",
        ) from None
    if _is_schema(annotation):
        name = annotation.__name__
        raise DefinitionError(
            f"The function at {place_of(body)} gets an Event with a {name} as its data,"
            f' and is annotated "{first.name}: {name}".',
            hint=f'Annotate "{first.name}: Event[{name}]".',
        )
    if t.get_origin(annotation) is not Event:
        return {}
    found: dict[str, type[EventData]] = {}
    for kind in _members(t.get_args(annotation)[0]):
        if _is_schema(kind):
            found[event_name_of(kind)] = kind
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            raise DefinitionError(
                f"The function at {place_of(body)} is annotated with "
                f"{kind.__name__}, which is not a subclass of EventData.",
                hint=f"Declare it as \"class {kind.__name__}(EventData, name='a/b')\".",
            )
    return found


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
