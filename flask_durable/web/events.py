"""``POST <prefix>/events``: the HTTP route that accepts events.

The body is one event or a list of at most 100, all valid or none taken. 202 with the
ids once the queue or the outbox owns each of them; 4xx if one is not valid, and none is
accepted; 413 if the queue never takes one, with the additions on its way; 503 with a
status for each event if they could not all be taken in time. Sending the same ids again
is harmless.

Every answer is JSON; every error has a ``code`` and a ``message``.
"""

from __future__ import annotations

import dataclasses
import typing as t

from flask import request
from flask import Response

from ..app.state import AppState
from ..common.ids import derived_event_id
from ..common.ids import new_event_id
from ..common.safe_logging import get_logger
from ..errors import EventError
from ..events.acceptance import check_message
from ..events.model import check_event_id
from ..events.schemas import path_of
from ..events.schemas import Schemas
from ..messages import EventMessage
from ..messages import failures
from .access import Credentials
from .access import is_local
from .http import error_body
from .http import items_of
from .http import json_response
from .http import log_refusal
from .http import MAX_EVENTS_BODY
from .http import parse_body
from .http import read_body
from .http import Refused
from .http import RETRY_AFTER_SECONDS
from .http import trace_headers

logger = get_logger(__name__)

#: Most characters of an ``Idempotency-Key``.
MAX_SEED = 255

#: Most events of one request.
MAX_EVENTS = 100

#: Most faults of one request that are reported.
MAX_ERRORS = 100

_FIELDS = {"name", "data", "id", "at"}

#: The names of two of the fields in a Standard Webhooks payload.
_WEBHOOK_NAMES = {"name": "type", "at": "timestamp"}


class EventsRoute:
    """The view of the route ``events`` of one app."""

    def __init__(self, state: AppState, open_ingest: bool) -> None:
        self.state = state
        self.open_ingest = open_ingest
        self.credentials = Credentials.of(state.settings)
        limit = state.settings.event_limit
        self.max_body = min(MAX_EVENTS * limit, MAX_EVENTS_BODY)
        self.reader = BatchReader(state.schemas, limit)

    def accept(self) -> Response:
        request.max_content_length = self.max_body
        webhook_id = self._authorize()
        if not request.is_json:
            # A page of another origin cannot send this type without being asked first.
            raise Refused(415, "Send JSON with Content-Type: application/json.")
        messages = self.reader.read(
            self._body(),
            headers=trace_headers(),
            seed=_seed(),
            webhook_id=webhook_id,
        )
        return self._send_and_answer(messages)

    def _authorize(self) -> str | None:
        """Return the ``webhook-id`` of a signed request, otherwise ``None``."""
        if not self.credentials:
            if self.open_ingest and is_local(request.environ):
                return None
            raise Refused(
                403,
                "This endpoint is closed. Configure DURABLE_EVENT_KEYS or "
                "DURABLE_SIGNING_SECRETS; `flask durable secret` makes one.",
            )
        headers = {name.lower(): value for name, value in request.headers}
        if self.credentials.has_key(headers):
            return None
        webhook_id = self.credentials.signed_id(headers, self._body)
        if webhook_id is None:
            raise Refused(401, "A valid event key or signature is required.")
        return webhook_id

    def _body(self) -> bytes:
        return read_body(self.max_body)

    def _send_and_answer(self, messages: list[EventMessage]) -> Response:
        outcomes = self.state.event_sender.send(messages)
        events = [
            {"id": message.id, "status": o if isinstance(o, str) else "failed"}
            for message, o in zip(messages, outcomes, strict=True)
        ]
        failed = failures(outcomes)
        if not failed:
            ids = [message.id for message in messages]
            return json_response({"ids": ids, "events": events}, 202)
        if all(isinstance(error, EventError) for error in failed):
            return _never_taken(t.cast("list[EventError]", failed), events)
        log_refusal(logger, failed[0])
        body = error_body(
            "unavailable", "Send the failed events again with the same ids."
        )
        response = json_response({**body, "events": events}, 503)
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response


def _never_taken(
    failed: t.Sequence[EventError], events: list[dict[str, str]]
) -> Response:
    """Answer that the queue never takes events: they are too large."""
    logger.warning(
        "The queue never takes %d event(s): %s",
        len(failed),
        failed[0].message,
        extra={"action": "events_refused"},
    )
    faults = [fault for error in failed for fault in error.errors]
    body = error_body("too_large", failed[0].message)
    return json_response({**body, "errors": faults, "events": events}, 413)


def _seed() -> str | None:
    seed = request.headers.get("idempotency-key", "").strip()
    if len(seed) > MAX_SEED:
        raise Refused(400, f"Idempotency-Key is longer than {MAX_SEED}.")
    return seed or None


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
        parsed = parse_body(body)
        webhook_form = webhook_id is not None and _is_webhook(parsed)
        if webhook_form:
            items = [_from_webhook(parsed)]
        else:
            items = items_of(parsed, MAX_EVENTS)
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
