"""The errors of values that cannot be stored, with their place in the result."""

from __future__ import annotations

import json
import typing as t

#: Most levels of nested lists, objects and models in a result.
MAX_DEPTH = 64

#: Types of values that hold no others.
ATOMS = frozenset({str, int, float, bool, type(None)})

ORM_HINT = "Use its id, and load the row again in the step that needs it."


class UnserializableValue(ValueError):
    """Raised when a value would not come back the same.

    :param path: The place of the value in the result, such as ``[0].created`` or
        ``.owner["id"]``; empty for the result itself.
    :param message: The fault of the value, as the rest of a sentence.
    :param hint: The advice to the user.
    """

    #: The code that a stored failure carries.
    code: t.ClassVar[str] = "step.unserializable"

    def __init__(self, path: str, message: str, hint: str) -> None:
        # A text that was refused for its surrogates could not be logged or stored.
        self.path = _printable(path)
        self.message = _printable(message)
        self.hint = _printable(hint)
        super().__init__(f"The result{self.path} {self.message} {self.hint}")


class UnreadableValue(ValueError):
    """Raised when a stored result does not fit the type that the code now gives it."""


class Refused(Exception):
    """Collects the path of a refused value while it is raised, inmost part first."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path: list[str] = []

    def inside(self, place: str) -> Refused:
        """Note that the refused value is at *place* of an enclosing value."""
        self.path.append(place)
        return self

    def public(self) -> UnserializableValue:
        """Return the error for the caller."""
        return UnserializableValue("".join(self.path[::-1]), self.message, self.hint)


def refuse_depth() -> t.NoReturn:
    """Refuse a value that is nested too deeply, or holds itself."""
    raise Refused(
        f"has more than {MAX_DEPTH} levels.", "Return a flatter value, or its text."
    )


def refuse_orm_object(value: t.Any) -> None:
    """Refuse *value* if it is a row of an object-relational mapper."""
    if is_orm_object(value):
        raise Refused(f"is the ORM object {type(value).__name__}.", ORM_HINT)


def is_orm_object(value: t.Any) -> bool:
    """Return whether *value* is a row of an object-relational mapper."""
    if hasattr(type(value), "__mapper__"):
        return True
    try:
        return "_sa_instance_state" in value.__dict__
    except Exception:  # no __dict__, or a proxy that stands for nothing here
        return False


def place_in_container(key: t.Any) -> str:
    """Return the part of a path for the value under *key* of a list or an object."""
    return f"[{json.dumps(key, ensure_ascii=False) if type(key) is str else repr(key)}]"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
