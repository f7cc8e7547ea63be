"""Versions of event schemas, to tell if two releases check an event in the same way."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ..events.model import EventData
from .callables import code_version


def schema_version(schema: type[EventData]) -> str:
    """Return 12 characters that change with the data that *schema* accepts.

    They are the same in every process that runs the same code. Validators count by
    their code; the validators of models that are fields of it do not count.
    """
    text = "\n".join([_shape(schema), *sorted(_validators(schema))])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _shape(schema: type[EventData]) -> str:
    try:
        return json.dumps(schema.model_json_schema(), sort_keys=True, default=str)
    except Exception:  # a field of a type that JSON schemas do not know
        fields = schema.model_fields.items()
        return "\n".join(f"{name} {field.annotation}" for name, field in fields)


def _validators(schema: type[EventData]) -> t.Iterator[str]:
    found = schema.__pydantic_decorators__
    kinds: list[t.Mapping[str, t.Any]] = [found.validators, found.field_validators]
    for kind in [*kinds, found.model_validators]:
        for name, decorator in kind.items():
            yield f"{name} {code_version(decorator.func)}"
