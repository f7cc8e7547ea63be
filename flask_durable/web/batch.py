"""Reads a request's body: one event or a list of them, all valid or none taken."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ..common.ids import derived_event_id
from ..common.ids import new_event_id
from ..errors import EventError
from ..events.acceptance import check_message
from ..events.model import check_event_id
from ..events.schemas import path_of
from ..events.schemas import Schemas
from ..messages import EventMessage
from .http import Refused

#: Most events of one request.
MAX_EVENTS = 100

#: Most faults of one request that are reported.
MAX_ERRORS = 100

_FIELDS = {"name", "data", "id", "at"}

#: The names of two of the fields in a Standard Webhooks payload.
_WEBHOOK_NAMES = {"name": "type", "at": "timestamp"}


@dataclasses.dataclass(frozen=True)
class BatchReader:
    """Turns bodies into messages.

    :param schemas: The schemas that data has to fit.
    :param limit: Most bytes of one encoded message.
    """

    schemas: Schemas
    limit: int

    def read(
        self,
        body: bytes,
        *,
        headers: t.Mapping[str, str],
        seed: str | None = None,
        webhook_id: str | None = None,
    ) -> list[EventMessage]:
        """Return the events of *body*.

        :param headers: The trace headers that every message gets.
        :param seed: A text that generated ids derive from, so that a repeated request
            repeats them.
        :param webhook_id: The id of a signed request. It is then the seed, and the body
            may be a Standard Webhooks payload.
        :raises Refused: The body is malformed, or at least one event is not valid.
        """
        parsed = parse(body)
        webhook_form = webhook_id is not None and _is_webhook(parsed)
        items = [_from_webhook(parsed)] if webhook_form else items_of(parsed)
        own_id = _own_id(parsed, webhook_id)
        messages: list[EventMessage] = []
        errors: list[dict[str, t.Any]] = []
        for index, item in enumerate(items):
            try:
                default = own_id or _default_id(webhook_id or seed, index)
                lead = None if webhook_form else 0
                messages.append(self._message(item, default, headers, lead))
            except EventError as error:
                errors += _located(error, index, webhook_form)
        if errors:
            raise Refused(
                422,
                "At least one event is not valid; none was accepted.",
                errors[:MAX_ERRORS],
            )
        return messages

    def _message(
        self,
        item: t.Any,
        default_id: str,
        headers: t.Mapping[str, str],
        lead: int | None,
    ) -> EventMessage:
        if not isinstance(item, dict):
            raise _fault("", "must be an object")
        if unknown := item.keys() - _FIELDS:
            known = ", ".join(sorted(_FIELDS))
            raise EventError(
                "unknown fields",
                errors=[
                    {"field": path_of((), root=name), "message": f"is none of {known}"}
                    for name in sorted(unknown)[:MAX_ERRORS]
                ],
            )
        return check_message(
            item.get("name"),
            _or(item.get("data"), {}),
            _or(item.get("id"), default_id),
            item.get("at"),
            schemas=self.schemas,
            limit=self.limit,
            headers=headers,
            lead=lead,
        )


def parse(body: bytes) -> t.Any:
    """Return the JSON value of *body*.

    :raises Refused: The body is not JSON.
    """
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Refused(400, "The body is not UTF-8.") from None
    except RecursionError:
        raise Refused(400, "The body is nested too deeply.") from None
    except ValueError as error:
        raise Refused(400, f"The body is not JSON: {error}.") from None


def _refuse_constant(name: str) -> t.NoReturn:
    raise ValueError(f"{name} is no number there")


def items_of(body: t.Any, limit: int = MAX_EVENTS) -> list[t.Any]:
    """Return the one event, or several, of *body* as a list.

    :param limit: The most events.
    :raises Refused: The list is longer, or the body is neither an object nor a list.
    """
    if isinstance(body, list):
        if len(body) > limit:
            raise Refused(413, f"A request may have {limit} events, not {len(body)}.")
        return body
    if not isinstance(body, dict):
        raise Refused(400, "The body is neither an event nor a list of events.")
    return [body]


def _is_webhook(body: t.Any) -> bool:
    return isinstance(body, dict) and "type" in body and "name" not in body


def _from_webhook(payload: dict[str, t.Any]) -> dict[str, t.Any]:
    fields = {field: payload.get(name) for field, name in _WEBHOOK_NAMES.items()}
    return {**fields, "data": payload.get("data")}


def _located(
    error: EventError, index: int, webhook_form: bool
) -> list[dict[str, t.Any]]:
    names = _WEBHOOK_NAMES if webhook_form else {}
    faults = error.errors or [{"field": "", "message": error.message}]
    return [
        {"index": index, **fault, "field": names.get(fault["field"], fault["field"])}
        for fault in faults
    ]


def _own_id(body: t.Any, webhook_id: str | None) -> str | None:
    """Return the id of a signed request's single event, when it can be one."""
    if isinstance(body, list) or check_event_id(webhook_id):
        return None
    return webhook_id


def _default_id(seed: str | None, index: int) -> str:
    return new_event_id() if seed is None else derived_event_id(seed, index)


def _or(value: t.Any, default: t.Any) -> t.Any:
    return default if value is None else value


def _fault(field: str, message: str) -> EventError:
    return EventError(message, errors=[{"field": field, "message": message}])
