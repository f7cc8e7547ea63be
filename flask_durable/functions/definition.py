"""The checks of a declared function or step; each error has its fix."""

from __future__ import annotations

import inspect
import re
import typing as t

from ..errors import DefinitionError
from .callables import place_of
from .checks import annotated_schemas
from .checks import check_body
from .checks import check_id
from .checks import check_kind
from .checks import check_where
from .checks import MAX_STEP_NAME
from .function import Function
from .options import FunctionOptions
from .options import StepKeywords
from .step_function import StepFunction
from .triggers import read_triggers

#: The default of ``on=``, to tell if it was given.
MISSING: t.Any = object()
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
    check_body(body, ("event", "step"), None if on is None else triggers.schemas)
    schemas = annotated_schemas(body) if on is None else triggers.schemas
    name = prefix + _name_of(body, id, "id=")
    check_id(name)
    check_where(where)
    return Function(
        body,
        id=name,
        triggers=triggers.patterns,
        schemas=schemas,
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
    check_kind(body)
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
