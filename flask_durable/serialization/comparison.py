"""The check that a value which was read back is the value that was written."""

from __future__ import annotations

import dataclasses
import math
import typing as t
from collections import deque
from datetime import datetime
from datetime import time
from datetime import timezone
from enum import Enum

from pydantic import BaseModel

from .refusal import ATOMS
from .refusal import MAX_DEPTH
from .refusal import place_in_container
from .refusal import refuse_depth
from .refusal import refuse_orm_object
from .refusal import Refused

_HINT = "Annotate the step's function with the type that it has."


def compare(value: t.Any, loaded: t.Any, depth: int = 1) -> None:
    """Refuse *value* if it came back different, as *loaded*.

    Models and dataclasses are compared by their fields: the private attributes of a
    model are not part of a result.
    """
    if type(value) in ATOMS:
        if type(value) is not type(loaded) or value != loaded:
            _compare_leaf(value, loaded)
        return
    if depth > MAX_DEPTH:
        refuse_depth()
    if isinstance(value, BaseModel):
        _compare_fields(value, loaded, type(value).model_fields, depth)
        extra = value.__pydantic_extra__
        if extra:
            _compare_items(value, extra.items(), loaded.__pydantic_extra__, depth)
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        _compare_fields(value, loaded, names, depth)
    elif isinstance(value, dict) and isinstance(loaded, dict):
        _compare_items(value, value.items(), loaded, depth)
    elif isinstance(value, (list, tuple)) and isinstance(loaded, (list, tuple)):
        if hasattr(value, "_fields") and type(value) is not type(loaded):
            raise _changed(value, loaded)  # a named tuple that lost its names
        _compare_items(value, enumerate(value), dict(enumerate(loaded)), depth)
    else:
        _compare_leaf(value, loaded)


def _compare_fields(
    value: t.Any, loaded: t.Any, names: t.Iterable[str], depth: int
) -> None:
    refuse_orm_object(value)
    if type(value) is not type(loaded):
        raise _changed(value, loaded)
    for name in names:
        try:
            compare(getattr(value, name, None), getattr(loaded, name, None), depth + 1)
        except Refused as error:
            raise error.inside(f".{name}") from None


def _compare_items(
    value: t.Any,
    items: t.Iterable[tuple[t.Any, t.Any]],
    loaded: t.Mapping[t.Any, t.Any] | None,
    depth: int,
) -> None:
    read = list((loaded or {}).items())
    written = list(items)
    if len(read) != len(written):
        raise _changed(value, loaded)
    for (key, item), (other, back) in zip(written, read, strict=True):
        if key != other or not _is_kept(key, other):
            raise Refused(
                f"has the key {key!r}, which would come back as {other!r}.", _HINT
            )
        _check_zone(key)
        try:
            compare(item, back, depth + 1)
        except Refused as error:
            raise error.inside(place_in_container(key)) from None


def _compare_leaf(value: t.Any, loaded: t.Any) -> None:
    _check_zone(value)
    if isinstance(value, (set, frozenset, deque)):
        for item in value:
            _check_zone(item)
    if not _is_kept(value, loaded) or not _is_equal(value, loaded):
        raise _changed(value, loaded)


def _check_zone(value: t.Any) -> None:
    """Refuse a time whose zone is more than an offset from UTC.

    Only the offset comes back. A day later, when the zone's clocks have changed, the
    time would be another hour.
    """
    if not isinstance(value, (datetime, time)) or value.tzinfo is None:
        return
    try:
        fixed = value.tzinfo.utcoffset(None) is not None
    except Exception:  # a zone that has to be given a time
        fixed = False
    if fixed:
        return
    in_utc = (
        "in UTC, value.astimezone(timezone.utc),"
        if isinstance(value, datetime)
        else ("without its zone")
    )
    raise Refused(
        f"has the time zone {value.tzinfo}, which would come back as an offset.",
        f"Return it {in_utc} and the zone's name beside it.",
    )


def _is_kept(value: t.Any, loaded: t.Any) -> bool:
    kind, back = type(value), type(loaded)
    if kind is back or (kind is int and back is float):
        return True
    # A subclass may be read as its base. But a member of an enumeration would lose its
    # name, and True is not 1.
    return isinstance(value, back) and not isinstance(value, (Enum, bool))


def _is_equal(value: t.Any, loaded: t.Any) -> bool:
    if isinstance(value, float) and isinstance(loaded, float) and math.isnan(value):
        return math.isnan(loaded)
    try:
        return _comparable(value) == _comparable(loaded)
    except Exception:  # a user's comparison may raise
        return False


def _comparable(value: t.Any) -> object:
    if isinstance(value, datetime) and value.tzinfo:
        # A time that a zone has twice equals no time in another zone.
        return value.astimezone(timezone.utc)
    # A type whose objects equal only themselves: comparing the types has to do.
    equals: t.Any = type(value).__eq__
    return None if equals is object.__eq__ else value


def _changed(value: t.Any, loaded: t.Any) -> Refused:
    kind, back = type(value).__name__, type(loaded).__name__
    if kind == back:
        return Refused(
            f"is of the type {kind} and would come back with another value.",
            "Return what its type writes and reads.",
        )
    return Refused(f"is of the type {kind} and would come back as {back}.", _HINT)
