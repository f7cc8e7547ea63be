"""Events: a name, an id and a time, with data that a schema may type.

Names, ids and trigger patterns are checked here as well.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t
from datetime import datetime
from datetime import timezone

from pydantic import BaseModel
from pydantic import ConfigDict
from typing_extensions import TypeVar

from ..common.ids import new_event_id
from ..errors import DefinitionError
from ..errors import EventError

#: Names under this prefix are sent by Flask-Durable itself only.
RESERVED_PREFIX = "durable/"


class EventData(BaseModel):
    """Base class of event schemas: a frozen pydantic model that knows its event's name.

    ::

        class TranscriptionRequested(EventData, name="transcription/requested"):
            audio_url: str
            tenant: str

    A subclass without ``name=`` is abstract: it can be inherited from, not sent.
    Fields that the schema does not have are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: The event's name, or ``None`` on an abstract schema.
    __event_name__: t.ClassVar[str | None] = None

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: t.Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            problem = check_event_name(name)
            if problem:
                raise DefinitionError(f"The event name {name!r} {problem}.")
        cls.__event_name__ = name

    def __sentry_repr__(self) -> str:
        # Shown by Sentry for a local variable, so without the data.
        return f"<{type(self).__name__}>"


D = TypeVar("D", default=t.Any)
E = t.TypeVar("E", bound=EventData)


@dataclasses.dataclass(frozen=True, init=False)
class Event(t.Generic[D]):
    """One thing that happened. Its id is fixed when the object is made.

    :param name: The kind of event, such as ``"media/uploaded"``: 1 to 255 characters.
    :param data: A JSON object, or the schema's model.
    :param id: The event's id: of two events with one id a function runs once.
    :param at: The time of the event (an aware datetime; default now). If it is given, a
        run does not start before it.
    :raises EventError: The name or id is malformed, *data* is not an object, or *at*
        has no time zone.
    """

    name: str
    data: D
    id: str
    at: datetime

    def __init__(
        self,
        name: str,
        data: D = t.cast(t.Any, None),  # noqa: B008
        *,
        id: str | None = None,
        at: datetime | None = None,
    ) -> None:
        generated, scheduled = id is None, at is not None
        if id is None:
            id = new_event_id()
        if at is None:
            at = datetime.now(timezone.utc)
        errors = _faults(name, data, id, at)
        if errors:
            raise EventError(
                f"The event {name!r} is not valid: "
                + "; ".join(f"{e['field']} {e['message']}" for e in errors),
                errors=errors,
            )
        put = object.__setattr__
        put(self, "name", name)
        put(self, "data", {} if data is None else data)
        put(self, "id", id)
        put(self, "at", at.astimezone(timezone.utc))
        put(self, "_generated_id", generated)
        put(self, "_scheduled", scheduled)

    def __sentry_repr__(self) -> str:
        # Shown by Sentry for a local variable, so without the data.
        return f"<Event {self.name!r} {self.id!r}>"

    @staticmethod
    def of(data: E, *, id: str | None = None, at: datetime | None = None) -> Event[E]:
        """Make an event from an :class:`EventData` model, named by its class.

        :raises EventError: The model's class has no event name.
        """
        name = getattr(type(data), "__event_name__", None)
        if name is None:
            raise EventError(
                f"{type(data).__name__} has no event name and cannot be sent.",
                hint="Declare it as \"class X(EventData, name='a/b')\".",
            )
        return Event(name, data, id=id, at=at)


def _faults(name: t.Any, data: t.Any, id: t.Any, at: t.Any) -> list[dict[str, str]]:
    found = []
    if problem := check_event_name(name):
        found.append({"field": "name", "message": problem})
    if problem := check_event_id(id):
        found.append({"field": "id", "message": problem})
    if data is not None and not isinstance(data, (dict, BaseModel)):
        found.append({"field": "data", "message": "must be an object"})
    if not isinstance(at, datetime) or at.tzinfo is None:
        found.append({"field": "at", "message": "must be a datetime with a time zone"})
    return found


#: The arguments, besides a name, that :meth:`flask_durable.Durable.send` takes.
EventLike = EventData | Event[t.Any]

#: Most characters of an event name and of an event id.
MAX_NAME = 255
MAX_ID = 128

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:\-]*")
_ID = re.compile(r"[A-Za-z0-9_.:\-]+")


def check_event_name(name: t.Any) -> str | None:
    """Return the fault of *name*, as the rest of a sentence, or ``None``."""
    if not isinstance(name, str) or not name:
        return "must be text that is not empty"
    if len(name) > MAX_NAME:
        return f"must have at most {MAX_NAME} characters"
    if not _NAME.fullmatch(name):
        return "may only have letters, digits and the characters _ . / : -"
    return None


def check_event_id(id: t.Any) -> str | None:
    """Return the fault of *id*, as the rest of a sentence, or ``None``."""
    if not isinstance(id, str) or not id:
        return "must be text that is not empty"
    if len(id) > MAX_ID:
        return f"must have at most {MAX_ID} characters"
    if not _ID.fullmatch(id):
        return "may only have letters, digits and the characters _ . : -"
    return None


def check_pattern(pattern: str) -> str | None:
    """Return the fault of a trigger's name or wildcard, or ``None``."""
    if pattern == "*":
        return None
    if not pattern.endswith("*"):
        return check_event_name(pattern)
    if pattern[-2:] not in ("/*", ".*") or "*" in pattern[:-1]:
        return 'may have one "*", at the end, after "/" or "."'
    return check_event_name(pattern[:-1])
