"""The codec of a function's results: by its return annotation, or a plain one.

The plain codec takes the values that come back equal from JSON. A type has the codec of
``typed``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import typing as t
import weakref
from datetime import datetime
from datetime import time
from enum import Enum

from ..errors import StepUsageError
from ..functions.callables import annotation_of
from ..functions.callables import place_of
from ..functions.callables import positions_of
from ..functions.callables import underlying
from ..functions.callables import UnresolvedAnnotation
from .refusal import ATOMS
from .refusal import is_orm_object
from .refusal import MAX_DEPTH
from .refusal import ORM_HINT
from .refusal import place_in_container
from .refusal import refuse_depth
from .refusal import refuse_orm_object
from .refusal import Refused
from .refusal import UnserializableValue
from .typed import TypedCodec

_CONTAINERS = frozenset({dict, list, tuple})

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


class PlainCodec:
    """Stores the values that JSON gives back equal; tuples come back as lists."""

    def round_trip(self, value: t.Any) -> tuple[str, t.Any]:
        """Return *value* as JSON text, and as :meth:`load` gives it back.

        :raises UnserializableValue: The value would not come back equal.
        """
        text = self.dump(value)
        return text, value if type(value) in ATOMS else self.load(text)

    def dump(self, value: t.Any) -> str:
        """Return *value* as JSON text.

        :raises UnserializableValue: The value would not come back equal.
        """
        try:
            if type(value) not in ATOMS:
                _check(value, 1)
            text = _encode(value)
            if not text.isascii():
                text.encode()  # fails for half of a surrogate pair
        except Refused as error:
            raise error.public() from None
        except ValueError as error:
            raise _locate(value, error).public() from None
        return text

    def load(self, text: str | bytes) -> t.Any:
        """Return the value that :meth:`dump` stored."""
        return json.loads(text)


Codec = PlainCodec | TypedCodec

#: The codec of results of a function whose code is elsewhere.
PLAIN = PlainCodec()

# -- The codec of a function ------------------------------------------------------

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

_item_codecs: weakref.WeakKeyDictionary[t.Any, Codec] = weakref.WeakKeyDictionary()
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
        return _item_codecs[function]
    except (KeyError, TypeError):  # TypeError: it cannot be weakly referenced
        codec = _make_item_codec(function)
    with contextlib.suppress(TypeError):
        _item_codecs[function] = codec
    return codec


def _make_item_codec(function: t.Any) -> Codec:
    first, _ = positions_of(function)
    if not first or isinstance(function, type):
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


# -- What JSON gives back equal ---------------------------------------------------


def _check(value: t.Any, depth: int) -> None:
    """Refuse types that JSON does not have; atoms are judged when they are written."""
    if type(value) not in _CONTAINERS:
        _check_subclass(value)
    if depth > MAX_DEPTH:
        refuse_depth()
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                _check_key(key)
    for key, item in _items(value):
        if type(item) not in ATOMS:
            try:
                _check(item, depth + 1)
            except Refused as error:
                raise error.inside(place_in_container(key)) from None


def _items(value: t.Any) -> t.Iterable[tuple[t.Any, t.Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _check_key(key: t.Any) -> None:
    if not isinstance(key, str) or isinstance(key, Enum):
        kind = type(key)
        annotated = f"Annotate the step's function, such as \"-> dict[{kind.__name__}, "
        raise Refused(
            f"has the key {key!r}, which would come back as text.",
            _if_it_works(
                f'{annotated}Any]".',
                dict[kind, t.Any],  # type: ignore[valid-type]
                {key: None},
                "Make text of the keys.",
            ),
        )


def _check_subclass(value: t.Any) -> None:
    """Refuse *value* unless it is equal to an instance of one of JSON's types."""
    refuse_orm_object(value)
    # Members of enumerations and fields of named tuples have names, which would be
    # lost.
    named = isinstance(value, Enum) or hasattr(type(value), "_fields")
    if named or not isinstance(value, (dict, list, tuple, str, int, float)):
        name = type(value).__name__
        raise Refused(
            f"is of the type {name}, which JSON does not have.",
            _if_it_works(
                f'Annotate the step\'s function: "-> {name}", or a type that has it.',
                type(value),
                value,
                "Return what it holds as text, numbers, lists and dicts.",
            ),
        )


def _if_it_works(advice: str, annotation: t.Any, value: t.Any, otherwise: str) -> str:
    """Return *advice*, if the value can be stored with that annotation."""
    try:
        TypedCodec(annotation).round_trip(value)
    except UnserializableValue as error:
        # More than an annotation is needed.
        return error.hint if isinstance(value, (datetime, time)) else otherwise
    except Exception:  # the type's own code may raise, too
        return otherwise
    return advice


def _locate(value: t.Any, error: ValueError) -> Refused:
    """Return why and where a value of the right types cannot be written."""
    found = _unwritable(value)
    return found or Refused(f"cannot be stored: {error}.", "Return something else.")


def _unwritable(value: t.Any) -> Refused | None:
    if isinstance(value, str):
        return _unencodable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return Refused(
            f"is {value}, which JSON does not have.",
            'Return None in its place, or annotate the step\'s function: "-> float", '
            'or what has it, such as "-> list[float]".',
        )
    if isinstance(value, int):
        return _too_large(value)
    for key, item in _items(value):
        found = _unwritable(item) or (
            _unencodable(key) if isinstance(key, str) else None
        )
        if found:
            return found.inside(place_in_container(key))
    return None


def _unencodable(text: str) -> Refused | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return Refused(
            "has text with half of a surrogate pair.",
            'Return bytes, or decode with errors="replace".',
        )
    return None


def _too_large(number: int) -> Refused | None:
    try:
        int.__repr__(number)
    except ValueError as error:
        return Refused(f"is too large a number: {error}.", "Return it as bytes.")
    return None
