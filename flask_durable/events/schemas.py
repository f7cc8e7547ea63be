"""Event schemas by name, one registry an app."""

from __future__ import annotations

import json
import typing as t

from pydantic import ValidationError

from ..common.safe_logging import get_logger
from ..errors import DefinitionError
from ..errors import EventError
from .model import EventData

logger = get_logger(__name__)

#: Most faults of one event that are reported.
MAX_FAULTS = 20

#: Most characters of a path and of a message that are repeated to the sender.
MAX_FIELD = 120
MAX_MESSAGE = 300


class Schemas:
    """The event schemas that one app knows.

    :param version_of: A callable that returns a text which changes with the data that a
        schema accepts.
    """

    def __init__(self, version_of: t.Callable[[type[EventData]], str] = repr) -> None:
        self._by_name: dict[str, type[EventData]] = {}
        self._may_hang: dict[type[EventData], bool] = {}
        self._version_of = version_of
        self._versions: dict[type[EventData], str] = {}

    def add(self, schema: type[EventData]) -> None:
        """Remember *schema* under its event's name. Repeating it is harmless.

        :raises DefinitionError: The schema has no name, or another class has the same
            one.
        """
        name = schema.__event_name__
        if name is None:
            raise DefinitionError(
                f"{_place(schema)} has no event name.",
                hint="Declare it as \"class X(EventData, name='a/b')\".",
            )
        known = self._by_name.setdefault(name, schema)
        if known is not schema:
            raise DefinitionError(
                f"The event {name!r} has two schemas: {_place(known)} and "
                f"{_place(schema)}.",
                hint="Import the first one where the second one is used.",
            )

    def get(self, name: str) -> type[EventData] | None:
        """Return the schema of the event *name*, if there is one."""
        return self._by_name.get(name)

    def version(self, name: str) -> str:
        """Return the version of the schema of the event *name*; empty for none."""
        schema = self._by_name.get(name)
        if schema is None:
            return ""
        if schema not in self._versions:
            self._versions[schema] = self._version_of(schema)
        return self._versions[schema]

    def names(self) -> list[str]:
        """Return the names of the events that have a schema."""
        return list(self._by_name)

    def may_hang(self, name: str) -> bool:
        """Return whether code of the application checks the data of the event *name*.

        Compiled code checks plain models, in a time that their data bounds.
        """
        schema = self._by_name.get(name)
        if schema is None:
            return False
        if schema not in self._may_hang:
            self._may_hang[schema] = _runs_code(schema)
        return self._may_hang[schema]

    def validate(self, name: str, data: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return *data* unchanged when it fits the schema of *name*, or has none.

        Fields that the schema lacks stay, since another consumer may know them.

        :raises EventError: The data does not fit; each fault names its field.
        """
        schema = self._by_name.get(name)
        if schema is not None:
            load(schema, data)
        return data


def _runs_code(schema: type[EventData]) -> bool:
    """Return whether checking data calls Python code, as far as this can be known.

    In doubt it is True: a class that is completed later has no core schema yet.
    """
    core = getattr(schema, "__pydantic_core_schema__", None)
    return not isinstance(core, dict) or _has_code(core)


def _has_code(core: t.Any) -> bool:
    if isinstance(core, (list, tuple)):
        return any(map(_has_code, core))
    if not isinstance(core, dict):
        return False
    called = ("custom_init", "post_init", "missing")
    if str(core.get("type")).startswith("function") or any(map(core.get, called)):
        return True
    if core.get("default_factory") not in (None, list, dict, set):
        return True
    return any(_has_code(part) for key, part in core.items() if key != "metadata")


S = t.TypeVar("S", bound=EventData)


def load(schema: type[S], data: t.Mapping[str, t.Any]) -> S:
    """Return *data*, a JSON object, as a model of *schema*.

    :raises EventError: The data does not fit; each fault names its field.
    """
    try:
        # As JSON, so that text is read as a date, UUID or bytes in strict models too.
        return schema.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise _event_error(schema, error) from None
    except Exception as error:
        # A validator of the schema is broken. The sender gets an answer all the same,
        # and the log of the app gets the traceback.
        logger.exception(
            "The event schema %s raised an error.",
            _place(schema),
            extra={"action": "schema_failed"},
        )
        fault = {"field": "data", "message": f"made the schema raise {_kind(error)}"}
        raise EventError(
            f"The event {schema.__event_name__!r} cannot be checked: it made its schema"
            f" raise {_kind(error)}.",
            errors=[fault],
        ) from error


def path_of(parts: t.Iterable[str | int], root: str = "data") -> str:
    """Return a path such as ``"data.items[3].title"``, shortened and safe to print."""
    path = root
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        if len(path) > MAX_FIELD:
            return clean(path, MAX_FIELD)
    return clean(path, MAX_FIELD)


def clean(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return *text* in one line of at most *limit* characters that UTF-8 can encode.

    It is logged too: a field that a sender names must not look like another record.
    """
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text.encode("utf-8", "replace").decode("utf-8")


def _event_error(schema: type[EventData], error: ValidationError) -> EventError:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    faults = [
        {"field": path_of(fault["loc"]), "message": clean(fault["msg"])}
        for fault in found[:MAX_FAULTS]
    ]
    return EventError(
        f"The data of {schema.__event_name__!r} does not fit {schema.__name__}: "
        + "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults),
        errors=faults,
    )


def _place(schema: type[EventData]) -> str:
    return f"{schema.__module__}.{schema.__qualname__}"


def _kind(error: Exception) -> str:
    return type(error).__name__
