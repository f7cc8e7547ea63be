"""Sketches of steps' calls, to notice that a replay asks for another call's result.

A result is found by its step's name, so a replay that asks with other arguments gets
the result of the old ones. A memo therefore keeps a digest of the call that made it.
The digest covers only what means the same in every process: the callable's name and
plain values. Of other values only the type counts: an object's address, its ``repr``
and the hash of a text differ from process to process, and to compare objects is to call
the user's code.

=========================  ============================================================
part of a call             what counts
=========================  ============================================================
callable                   its qualified name; of a ``partial`` also its arguments
text, bytes                length and content, up to 64 KiB of it
numbers, bool, None        the value
list, tuple                the items
dict                       the items, in the order of their keys
date, time, UUID, Decimal  the value
enumeration's member       its name
any other value            its type's name
=========================  ============================================================

At most 200 values of a call are looked at.
"""

from __future__ import annotations

import functools
import types
import typing as t
import zlib
from datetime import date
from datetime import datetime
from datetime import time
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from operator import itemgetter
from uuid import UUID

from ..functions.step_function import StepFunction

#: Most values of a call that are looked at, and the deepest level.
MAX_VALUES = 200
MAX_DEPTH = 12

#: Characters or bytes of one value that are looked at.
MAX_TEXT = 64 * 1024

#: A longer text is represented by its length and checksum.
_SHORT = 100

_PLAIN = frozenset({float, bool, type(None)})
_PRINTABLE = frozenset({date, datetime, time, timedelta, Decimal, UUID})
_NAMED = frozenset(
    {
        types.FunctionType,
        types.MethodType,
        types.BuiltinFunctionType,
        types.MethodDescriptorType,
        type,
    }
)


def sketch_of(
    fn: t.Any, args: t.Sequence[t.Any] = (), kwargs: t.Mapping[str, t.Any] = {}
) -> bytes:
    """Return the sketch of a call. Equal calls have equal ones, in every process.

    :param fn: The callable, or a value that stands for it.
    """
    found: list[t.Any] = []
    _add_callable(fn, found)
    if args:
        _add_all(args, found, 0)
    if kwargs:
        _add_dict(kwargs, found, 0)
    return repr(found).encode()


def _add_callable(fn: t.Any, found: list[t.Any]) -> None:
    if type(fn) is functools.partial:
        _add_callable(fn.func, found)
        _add_all(fn.args, found, 0)
        _add_dict(fn.keywords, found, 0)
    elif type(fn) is StepFunction:
        found.append(fn.name)
    elif type(fn) in _NAMED:
        found.append(fn.__qualname__)
    else:
        found.append(type(fn).__qualname__)


def _add_all(values: t.Iterable[t.Any], found: list[t.Any], depth: int) -> None:
    for value in values:
        if len(found) >= MAX_VALUES:
            return
        kind = type(value)
        if kind is str:
            found.append(value if len(value) <= _SHORT else _checked(value))
        elif kind in _PLAIN:
            found.append(value)
        elif kind is int:
            # The text of a very long number is refused.
            found.append(value if value.bit_length() <= 128 else value % 2**128)
        elif kind is dict:
            _add_dict(value, found, depth + 1)
        elif kind is list or kind is tuple:
            found.append(("[", len(value)))
            if depth < MAX_DEPTH:
                _add_all(value, found, depth + 1)
        elif kind is bytes:
            found.append((len(value), zlib.crc32(value[:MAX_TEXT])))
        elif kind in _PRINTABLE:
            found.append(str(value))
        elif issubclass(kind, Enum):
            found.append(value.name)
        elif kind in _NAMED or kind is functools.partial or kind is StepFunction:
            _add_callable(value, found)
        else:
            found.append(kind.__qualname__)


def _add_dict(values: t.Mapping[t.Any, t.Any], found: list[t.Any], depth: int) -> None:
    found.append(("{", len(values)))
    if len(values) > MAX_VALUES or depth > MAX_DEPTH:
        return
    # Equal dictionaries may have their items in another order.
    if all([type(key) is str for key in values]):
        for key in sorted(values):
            found.append(key)
            _add_all((values[key],), found, depth)
        return
    pairs = [(_key(key), value) for key, value in values.items()]
    for key, value in sorted(pairs, key=itemgetter(0)):
        found.append(key)
        _add_all((value,), found, depth)


def _key(key: t.Any) -> str:
    found: list[t.Any] = []
    _add_all((key,), found, MAX_DEPTH)
    return repr(found)


def _checked(text: str) -> tuple[int, int]:
    part = text[:MAX_TEXT].encode("utf-8", "surrogatepass")
    return len(text), zlib.crc32(part)
