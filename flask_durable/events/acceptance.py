"""The checks that every event of a user passes on its way to the queue."""

from __future__ import annotations

import json
import math
import time
import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import UTC

from pydantic import BaseModel

from ..errors import EventError
from ..messages import EventMessage
from ..messages import MAX_DEPTH
from .model import check_event_id
from .model import check_event_name
from .model import Event
from .model import EventData
from .model import EventLike
from .model import RESERVED_PREFIX
from .schemas import clean
from .schemas import load
from .schemas import MAX_FAULTS
from .schemas import path_of
from .schemas import Schemas

#: The range of an event's time: milliseconds since 1970 of 1980 and of 2100. Seconds
#: that are given by mistake fall outside.
EARLIEST = 315_532_800_000
LATEST = 4_102_444_800_000

#: Most bits of a whole number. Python itself refuses to parse some thousand digits.
MAX_BITS = 1024

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Fault = dict[str, str]


def to_message(
    event: EventLike | str,
    data: t.Mapping[str, t.Any] | None = None,
    *,
    id: str | None = None,
    at: datetime | None = None,
    schemas: Schemas,
    limit: int,
    headers: t.Mapping[str, str] | None = None,
) -> EventMessage:
    """Return the event given to :meth:`flask_durable.Durable.send` as a queue message.

    :param event: A model, an :class:`Event`, or a name that goes with *data*.
    :param id: The event's id, in place of a generated one.
    :param at: The time of the event, in place of now; a run does not start before it.
    :param limit: Most bytes of the encoded message.
    :param headers: The trace headers of the event.
    :raises EventError: The event is not valid; each fault names its field.
    """
    made = _as_event(event, data, id, at)
    fields, faults = _as_json(made)
    faults += _name_faults(made.name)
    if not faults:
        # The queued data is JSON's copy, which the caller cannot change any more.
        fields = json.loads(json.dumps(fields))
    millis = _millis(made.at)
    message = EventMessage(
        made.name,
        fields,
        made.id,
        millis,
        dict(headers or {}),
        due=millis if vars(made)["_scheduled"] else 0,
        schema=schemas.version(made.name),
    )
    return _checked(message, schemas, limit, faults, _own_schema(made.data))


def check_message(
    name: t.Any,
    data: t.Any,
    id: t.Any,
    at: t.Any,
    *,
    schemas: Schemas,
    limit: int,
    headers: t.Mapping[str, str],
    lead: int | None = 0,
) -> EventMessage:
    """Return an event that was received as JSON as a queue message.

    :param at: The time of the event, as ISO-8601 text with a time zone or whole
        milliseconds since 1970: a run does not start before it. ``None``: now.
    :param lead: Milliseconds by which a run may start earlier than *at*; ``None`` if
        *at* is no wish to wait.
    :param limit: Most bytes of the encoded message.
    :raises EventError: The event is not valid; each fault names its field.
    """
    faults = _name_faults(name)
    if problem := check_event_id(id):
        faults.append({"field": "id", "message": problem})
    now = int(time.time() * 1000)
    millis, problem = (now, None) if at is None else read_time(at)
    if problem:
        faults.append({"field": "at", "message": problem})
    if isinstance(data, dict):
        faults += json_faults(data)
    else:
        faults.append({"field": "data", "message": "must be an object"})
    due = 0 if at is None or lead is None else millis - lead
    version = schemas.version(name) if isinstance(name, str) else ""
    message = EventMessage(
        name, data, id, millis, dict(headers), due=due, schema=version
    )
    return _checked(message, schemas, limit, faults)


def read_time(value: t.Any) -> tuple[int, str | None]:
    """Return *value* in milliseconds since 1970, and its fault or ``None``."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return 0, "must be ISO-8601 text or whole milliseconds since 1970"
        if moment.tzinfo is None:
            return 0, "must have a time zone, such as Z or +02:00"
        value = _millis(moment)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0, "must be ISO-8601 text or whole milliseconds since 1970"
    return value, _time_fault(value)


def json_faults(data: t.Mapping[t.Any, t.Any]) -> list[Fault]:
    """Return at most 20 faults of *data*: values that JSON refuses or changes."""
    faults: list[Fault] = []
    # The event itself is the first level.
    _walk(data, (), 2, faults)
    return faults


def _checked(
    message: EventMessage,
    schemas: Schemas,
    limit: int,
    faults: list[Fault],
    fallback: type[EventData] | None = None,
) -> EventMessage:
    if not faults:
        size = len(message.encode())
        if size > limit:
            problem = f"makes an event of {size} bytes as JSON, {limit} are allowed"
            faults = [{"field": "data", "message": problem}]
    if faults:
        raise EventError(
            "The event is not valid: "
            + "; ".join(f"{fault['field']} {fault['message']}" for fault in faults),
            errors=faults,
        )
    schema = schemas.get(message.name) or fallback
    if schema is not None:
        load(schema, message.opened)
    return message


def _as_event(
    event: EventLike | str,
    data: t.Mapping[str, t.Any] | None,
    id: str | None,
    at: datetime | None,
) -> Event[t.Any]:
    _refuse_time(at)
    if isinstance(event, str):
        given = dict(data) if isinstance(data, t.Mapping) else data
        return Event(event, given, id=id, at=at)
    if data is not None:
        raise EventError(
            "Data was given beside an event that has its own.",
            hint="Give a name and data, or a model or Event alone.",
        )
    if isinstance(event, Event):
        _refuse_time(event.at)
        made = Event(event.name, event.data, id=id or event.id, at=at or event.at)
        if at is None:
            # A time that the event took from the clock by itself is no wish to wait.
            vars(made)["_scheduled"] = vars(event)["_scheduled"]
        return made
    return Event.of(event, id=id, at=at)


def _refuse_time(at: t.Any) -> None:
    # Before an Event is made, since a time at the end of the calendar cannot be
    # converted to UTC.
    if isinstance(at, datetime) and at.tzinfo is not None:
        problem = _time_fault(_millis(at))
        if problem:
            raise EventError(
                f"The event's time {problem}.",
                errors=[{"field": "at", "message": problem}],
            )


def _as_json(event: Event[t.Any]) -> tuple[t.Any, list[Fault]]:
    data = event.data
    if isinstance(data, BaseModel):
        try:
            data = data.model_dump(
                mode="json", by_alias=True, round_trip=True, warnings="error"
            )
        except Exception as error:
            problem = clean(f"cannot be written as JSON: {error}")
            return {}, [{"field": "data", "message": problem}]
    return data, json_faults(data)


def _own_schema(data: t.Any) -> type[EventData] | None:
    return type(data) if isinstance(data, EventData) else None


def _name_faults(name: t.Any) -> list[Fault]:
    problem = check_event_name(name)
    if problem is None and name.startswith(RESERVED_PREFIX):
        problem = f"must not begin with {RESERVED_PREFIX!r}, which is reserved"
    return [{"field": "name", "message": problem}] if problem else []


def _millis(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _time_fault(millis: int) -> str | None:
    if EARLIEST <= millis < LATEST:
        return None
    return "must be between the years 1980 and 2100"


def _walk(
    value: t.Any, path: tuple[str | int, ...], depth: int, faults: list[Fault]
) -> None:
    if len(faults) >= MAX_FAULTS:
        return
    problem = None
    if isinstance(value, (dict, list, tuple)):
        if depth <= MAX_DEPTH:
            _walk_into(value, path, depth, faults)
        else:
            problem = f"is nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, str):
        problem = _text_fault(value)
    elif isinstance(value, float):
        problem = None if math.isfinite(value) else "must be a finite number"
    elif isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            problem = f"has more than {MAX_BITS} bits"
    elif value is not None:
        problem = f"is of type {type(value).__name__}, which JSON does not have"
    if problem:
        faults.append({"field": path_of(path), "message": problem})


def _walk_into(
    value: t.Any, path: tuple[str | int, ...], depth: int, faults: list[Fault]
) -> None:
    if not isinstance(value, dict):
        for index, item in enumerate(value):
            _walk(item, (*path, index), depth + 1, faults)
        return
    for key, item in value.items():
        if not isinstance(key, str):
            problem = f"has a key of type {type(key).__name__}, but keys must be text"
        elif _text_fault(key):
            problem = "has a key with a surrogate character alone"
        else:
            _walk(item, (*path, key), depth + 1, faults)
            continue
        if len(faults) < MAX_FAULTS:
            faults.append({"field": path_of(path), "message": problem})


def _text_fault(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a surrogate character alone, which UTF-8 cannot encode"
    return None
