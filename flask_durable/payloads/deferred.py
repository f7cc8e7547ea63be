"""A field of a record that is opened when it is read, and not before.

A list of runs is shown without reading the blob store, and one value that cannot be
read does not keep others from being shown.
"""

from __future__ import annotations

import typing as t

T = t.TypeVar("T")


class Deferred(t.Generic[T]):
    """A value that is still to be opened.

    :param open: Returns the opened value.
    """

    def __init__(self, open: t.Callable[[], T]) -> None:
        self.open = open


class Stored(t.Generic[T]):
    """A dataclass field that takes a value or a :class:`Deferred` one.

    Reading it gives the value, and raises
    :class:`~flask_durable.errors.PayloadError` if it cannot be opened.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_stored_{name}"

    @t.overload
    def __get__(self, record: None, owner: type) -> t.NoReturn: ...

    @t.overload
    def __get__(self, record: object, owner: type) -> T: ...

    def __get__(self, record: object | None, owner: type) -> T:
        if record is None:
            raise AttributeError  # to a dataclass: there is no default
        value = record.__dict__[self._name]
        if isinstance(value, Deferred):
            value = record.__dict__[self._name] = value.open()
        return t.cast(T, value)

    def __set__(self, record: object, value: T | Deferred[T]) -> None:
        record.__dict__[self._name] = value
