"""Results with a type: values that pydantic writes as it and reads back the same."""

from __future__ import annotations

import typing as t

from pydantic import ConfigDict
from pydantic import TypeAdapter
from pydantic import ValidationError
from typing_extensions import TypeAliasType

from ..errors import StepUsageError
from .comparison import compare
from .refusal import ORM_HINT
from .refusal import place_in_container
from .refusal import Refused
from .refusal import UnreadableValue

#: Applies to all but pydantic models, which have a configuration of their own.
_CONFIG = ConfigDict(
    ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)


class TypedCodec:
    """Stores values of one type, which come back as that type.

    :param annotation: A type that pydantic can write and read.
    :raises StepUsageError: The annotation is no such type.
    """

    def __init__(self, annotation: t.Any) -> None:
        self._name = _name_of(annotation)
        self._adapter = _adapter_of(annotation, self._name)

    def dump(self, value: t.Any) -> str:
        """Return *value* as JSON text.

        :raises UnserializableValue: The value is not of the type, or would not come
            back the same.
        """
        return self.round_trip(value)[0]

    def round_trip(self, value: t.Any) -> tuple[str, t.Any]:
        """Return *value* as JSON text, and as :meth:`load` gives it back.

        :raises UnserializableValue: The value is not of the type, or would not come
            back the same.
        """
        try:
            text = self._write(value)
            loaded = self._read(text)
            # Finds all that pydantic would warn of. Pydantic, told how to warn by a
            # text, raises and drops an exception first, and releases the interpreter's
            # lock over it: among eight threads that costs more than all the rest.
            compare(value, loaded)
        except Exception as error:  # a user's serializer may raise, too
            refused = self._refusal(value, error)
            raise refused.public() from (None if refused is error else error)
        return text.decode(), loaded

    def load(self, text: str | bytes) -> t.Any:
        """Return the value that :meth:`dump` stored.

        :raises UnreadableValue: The type changed since, and the text does not fit it.
        """
        try:
            return self._read(text)
        except ValueError as error:
            raise UnreadableValue(
                f'The stored result does not fit "-> {self._name}" any more: {error}'
            ) from None

    # Fields by their names: an alias for writing need not be one for reading.

    def _write(
        self, value: t.Any, *, warnings: bool | t.Literal["error"] = False
    ) -> bytes:
        return self._adapter.serializer.to_json(
            value, by_alias=False, round_trip=True, warnings=warnings
        )

    def _read(self, text: str | bytes) -> t.Any:
        return self._adapter.validator.validate_json(text, by_alias=False, by_name=True)

    def _refusal(self, value: t.Any, error: Exception) -> Refused:
        """Return pydantic's complaint about *value*, or *error* itself."""
        try:
            self._write(value, warnings="error")
        except Exception as warned:
            return self._explain(value, warned)
        return error if isinstance(error, Refused) else self._explain(value, error)

    def _explain(self, value: t.Any, error: Exception) -> Refused:
        """Return why *value* could not be written or read, and where."""
        hint = f'Return what the annotation "-> {self._name}" says, or change it.'
        for look in (self._look_at_value, self._look_at_text):
            try:
                look(value)
            except ValidationError as invalid:
                fault = invalid.errors(include_url=False, include_context=False)[0]
                refused = Refused(f"is not as annotated: {fault['msg']}.", hint)
                refused.path = _path_of(fault["loc"], value)[::-1]
                return refused
            except Refused as refused:
                return refused
            except Exception:  # a user's validator may raise
                continue
        return Refused(f"cannot be stored: {_text_of(error)}.", hint)

    def _look_at_value(self, value: t.Any) -> None:
        self._adapter.validate_python(value, strict=True, by_alias=False, by_name=True)

    def _look_at_text(self, value: t.Any) -> None:
        # Finds a fault within a model, which is not looked into as a value.
        compare(value, self._read(self._write(value)))


def _adapter_of(annotation: t.Any, name: str) -> TypeAdapter[t.Any]:
    if _has_orm_class(annotation):
        raise StepUsageError(
            f'Results annotated "-> {name}" cannot be stored: ORM objects belong to '
            "the session of one step.",
            hint=ORM_HINT,
        )
    try:
        # Under another name: pydantic takes no configuration for a dataclass or a
        # TypedDict itself.
        renamed = t.cast(t.Any, TypeAliasType)("Result", annotation)
        adapter = TypeAdapter[t.Any](renamed, config=_CONFIG)
        adapter.rebuild(raise_errors=True)
    except Exception as error:
        raise StepUsageError(
            f'Results annotated "-> {name}" cannot be stored: {_text_of(error)}.',
            hint="Annotate a pydantic model, a dataclass or a type of plain values.",
        ) from None
    return adapter


def _has_orm_class(annotation: t.Any) -> bool:
    if isinstance(annotation, type) and hasattr(annotation, "__mapper__"):
        return True
    return any(_has_orm_class(inner) for inner in t.get_args(annotation))


def _path_of(location: t.Sequence[t.Any], value: t.Any) -> list[str]:
    """Return pydantic's *location* in *value*, without the names of union members."""
    path = []
    for part in location:
        if isinstance(value, (dict, list, tuple)):
            try:
                value = value[part]
            except (LookupError, TypeError):
                continue
            path.append(place_in_container(part))
        elif isinstance(part, str) and part.isidentifier() and hasattr(value, part):
            value = getattr(value, part)
            path.append(f".{part}")
    return path


def _name_of(annotation: t.Any) -> str:
    if isinstance(annotation, type) and not t.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _text_of(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.endswith("warnings:")]
    return (told[0] if told else type(error).__name__).rstrip(".")[:300]
