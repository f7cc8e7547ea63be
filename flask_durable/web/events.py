"""The HTTP routes that accept events and tell whether the app is up.

``POST <prefix>/events``
    One event or a list of at most 100. 202 with the ids once the queue or the outbox
    owns each of them; 4xx if one is not valid, and none is accepted; 413 if the queue
    never takes one, with the additions on its way; 503 with a status for each event if
    they could not all be taken in time. Sending the same ids again is harmless.
``GET <prefix>/healthz``
    200 while this process answers.
``GET <prefix>/readyz``
    200 while it can accept events, otherwise 503.

Every answer is JSON; every error has a ``code`` and a ``message``.
"""

from __future__ import annotations

import typing as t

from flask import request
from flask import Response

from ..app.state import AppState
from ..common.safe_logging import get_logger
from ..errors import EventError
from ..messages import EventMessage
from ..messages import failures
from .access import Credentials
from .access import is_local
from .batch import BatchReader
from .http import json_response
from .http import log_refusal
from .http import MAX_EVENTS_BODY
from .http import read_body
from .http import Refused
from .http import RETRY_AFTER_SECONDS
from .http import trace_headers

logger = get_logger(__name__)

#: Most characters of an ``Idempotency-Key``.
MAX_SEED = 255


class EventRoutes:
    """The views of the routes ``events``, ``healthz`` and ``readyz`` of one app."""

    def __init__(self, state: AppState, open_ingest: bool) -> None:
        self.state = state
        self.open_ingest = open_ingest
        self.credentials = Credentials.of(state.settings)
        limit = state.settings.event_limit
        self.max_body = min(100 * limit, MAX_EVENTS_BODY)
        self.reader = BatchReader(state.schemas, limit)
        #: The problems of the last readiness check that were logged.
        self.logged: t.Sequence[str] = ()

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

    def healthz(self) -> Response:
        return json_response({"status": "ok"}, 200)

    def readyz(self) -> Response:
        try:
            problems = self.state.readiness.problems()
        except Exception:
            logger.exception(
                "The check for readiness failed.",
                extra={"action": "readiness_check_failed"},
            )
            problems = ["check failed"]
        if not problems:
            return json_response({"status": "ok"}, 200)
        # A probe may ask at any rate: the result of each check is logged once.
        if problems is not self.logged:
            self.logged = problems
            logger.warning(
                "This process is not ready: %s",
                "; ".join(problems),
                extra={"action": "not_ready"},
            )
        return json_response({"status": "unavailable"}, 503)

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
        outcomes = self.state.send_messages(messages)
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


def error_body(code: str, message: str) -> dict[str, t.Any]:
    return {"code": code, "message": message}
