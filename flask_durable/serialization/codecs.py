"""The codec for the results of a step's function, and the check of its arguments."""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing as t
import weakref

from ..errors import StepUsageError
from ..functions.callables import annotation_of
from ..functions.callables import place_of
from ..functions.callables import underlying
from ..functions.callables import UnresolvedAnnotation
from .plain import ATOMS
from .plain import PlainCodec
from .refusal import is_orm_object
from .refusal import ORM_HINT
from .typed import TypedCodec

Codec = PlainCodec | TypedCodec

#: The codec of results of a function whose code is elsewhere.
PLAIN = PlainCodec()

#: Return annotations that say nothing about the result.
_UNTYPED = (
    inspect.Parameter.empty,
    None,
    type(None),
    t.Any,
    object,
    t.Never,
    t.NoReturn,
)

_codecs: weakref.WeakKeyDictionary[t.Any, Codec] = weakref.WeakKeyDictionary()


def codec_for(function: t.Callable[..., t.Any]) -> Codec:
    """Return the codec for the results of *function*, by its return annotation.

    Partials, bound methods, callable objects and classes work too.

    :raises StepUsageError: The annotation cannot be resolved or stored, or the
        function is async or a generator. The function has not been called then.
    """
    source = underlying(function)
    try:
        return _codecs[source]
    except (KeyError, TypeError):  # TypeError: it cannot be weakly referenced
        codec = _make_codec(source)
    with contextlib.suppress(TypeError):
        _codecs[source] = codec
    return codec


def item_codec_for(function: t.Callable[..., t.Any]) -> Codec:
    """Return the codec for the items that *function* is called with, one a call.

    The annotation of its first parameter says how an item is stored.

    :raises StepUsageError: The annotation cannot be resolved or stored.
    """
    try:
        first = next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):  # of some builtins there is none
        return PLAIN
    if first is None or isinstance(function, type):
        return PLAIN
    source = underlying(function)
    try:
        annotation = annotation_of(source, first)
    except UnresolvedAnnotation as error:
        raise StepUsageError(
            f"The annotation {error} (at {place_of(source)}).",
            hint="Import what it names at run time, outside TYPE_CHECKING.",
        ) from None
    if annotation in _UNTYPED or isinstance(annotation, t.TypeVar):
        return PLAIN
    return _typed(annotation)


def check_arguments(
    args: t.Sequence[t.Any], kwargs: t.Mapping[str, t.Any] | None = None
) -> None:
    """Refuse ORM objects as arguments of a step; containers are not looked into.

    The session of such an object ends before the step begins.

    :raises StepUsageError: An argument is an ORM object.
    """
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) not in ATOMS and is_orm_object(value):
            raise StepUsageError(
                f"A step was given the ORM object {type(value).__name__}, whose "
                "session ends before the step begins.",
                hint=ORM_HINT,
            )


def _make_codec(function: t.Any) -> Codec:
    _check_kind(function)
    if isinstance(function, type):
        return _typed(function)
    try:
        annotation = annotation_of(function, "return")
    except UnresolvedAnnotation as error:
        raise StepUsageError(
            f"The return annotation {error} (at {place_of(function)}).",
            hint="Import what it names at run time, outside TYPE_CHECKING.",
        ) from None
    if annotation in _UNTYPED or isinstance(annotation, t.TypeVar):
        return PLAIN
    return _typed(annotation)


def _check_kind(function: t.Any) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise StepUsageError(
            f"The step's function at {place_of(function)} is async.",
            hint="Give a plain function that uses asyncio.run.",
        )
    if inspect.isgeneratorfunction(function):
        raise StepUsageError(
            f"The step's function at {place_of(function)} is a generator.",
            hint="Return a list.",
        )


def _typed(annotation: t.Any) -> TypedCodec:
    try:
        hash(annotation)
    except TypeError:
        return TypedCodec(annotation)
    return _typed_by_annotation(annotation)


# By annotation as well as by function: a function that is defined in a run's body is a
# new object in each attempt.
@functools.lru_cache(maxsize=512, typed=True)
def _typed_by_annotation(annotation: t.Any) -> TypedCodec:
    return TypedCodec(annotation)
