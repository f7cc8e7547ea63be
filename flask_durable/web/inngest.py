"""Inngest's event API: the route that the official SDKs send events to.

``POST /e/<event key>``, at the root of the site. One event, or a list of them: all are
accepted or none. An SDK repeats a request that failed, with the same body and the same
seed, so that the events keep their ids and no function runs twice for one.

======  ======================================================================
status  when
======  ======================================================================
200     the queue has all events; ``ids`` are theirs
400     the body is not JSON, or an event is not valid; nothing was accepted
401     the key is none of ``DURABLE_EVENT_KEYS``
403     the API is closed: no key is configured
413     too many events, or too large a body
503     the queue did not take all events; ``ids`` are those that it took
======  ======================================================================

Every answer is JSON with the same status in its body, and every error has a text: one
SDK judges by the body alone, and another takes an error without a text for a success.
"""

from __future__ import annotations

import dataclasses
import typing as t

from flask import Blueprint
from flask import request
from flask import Response
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import NotFound

from ..app.state import AppState
from ..common.ids import derived_id
from ..common.ids import new_event_id
from ..common.safe_logging import get_logger
from ..errors import EventError
from ..events.acceptance import check_message
from ..events.model import check_event_id
from ..events.schemas import clean
from ..events.schemas import Schemas
from ..events.seed import Seed
from ..events.seed import SEED_HEADER
from ..messages import EventMessage
from ..messages import failures
from ..security.keys import matches_event_key
from .access import Credentials
from .access import is_local
from .http import items_of
from .http import json_response
from .http import log_refusal
from .http import MAX_EVENTS_BODY
from .http import parse_body
from .http import read_body
from .http import Refused
from .http import RETRY_AFTER_SECONDS
from .http import trace_headers
from .http import with_headers_of
from .surroundings import Surroundings

logger = get_logger(__name__)

#: The path of the API, which is fixed in the SDKs.
PATH = "/e/"

#: Most events of one request. The SDKs do not split a list.
MAX_SDK_EVENTS = 5000

#: Most invalid events of one request that are reported.
MAX_TOLD = 10

#: Milliseconds that a run may start before the ``ts`` of its event. The SDKs stamp each
#: event with a clock that is not ours: an event that is due at once is not to wait for
#: a sweep.
STAMP_LEAD_MS = 2000

#: Prefix of the names that a client may not send there.
_RESERVED = "inngest/"


def inngest_blueprint(state: AppState, *, open_ingest: bool = False) -> Blueprint:
    """Return the blueprint with the route, for one app.

    :param state: The services of the app.
    :param open_ingest: True to accept events from this machine, with any key, while no
        event key and no signing secret is configured.
    """
    blueprint = Blueprint("durable_inngest", __name__)
    api = _EventAPI(state, open_ingest)
    blueprint.add_url_rule(f"{PATH}<key>", "send", api.accept, methods=["POST"])
    blueprint.register_error_handler(Refused, _refused)
    Surroundings.install(blueprint, lambda path: path.startswith(PATH), _http_error)
    return blueprint


class _EventAPI:
    def __init__(self, state: AppState, open_ingest: bool) -> None:
        self.state = state
        self.open_ingest = open_ingest
        self.credentials = Credentials.of(state.settings)
        self.reader = InngestReader(state.schemas, state.settings.event_limit)

    def accept(self, key: str) -> Response:
        request.max_content_length = MAX_EVENTS_BODY
        self._authorize(key)
        messages = self.reader.read(
            read_body(MAX_EVENTS_BODY),
            seed=Seed.parse(request.headers.get(SEED_HEADER, "")),
            headers=trace_headers(),
        )
        outcomes = self.state.event_sender.send(messages)
        pairs = zip(messages, outcomes, strict=True)
        ids = [message.id for message, outcome in pairs if isinstance(outcome, str)]
        failed = failures(outcomes)
        if not failed:
            return json_response({"ids": ids, "status": 200}, 200)
        if all(isinstance(error, EventError) for error in failed):
            return _error(413, f"Not all was accepted: {failed[0]}", ids)
        log_refusal(logger, failed[0])
        response = _error(503, "The queue did not take all events: send again.", ids)
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response

    def _authorize(self, key: str) -> None:
        if matches_event_key(key, self.credentials.key_hashes):
            return
        if self.credentials.key_hashes:
            raise Refused(401, "The event key in the path is not known here.")
        local = is_local(request.environ)
        if self.credentials or not self.open_ingest or not local:
            raise Refused(
                403,
                "This event API is closed. Configure DURABLE_EVENT_KEYS; "
                "`flask durable secret` makes a key.",
            )
        if not request.is_json:
            # If no key is needed, a page of another origin could send plain text.
            raise Refused(415, "Send JSON with Content-Type: application/json.")


@dataclasses.dataclass(frozen=True)
class InngestReader:
    """Turns bodies in Inngest's form into messages.

    :param schemas: The schemas that data has to fit.
    :param limit: Most bytes of one encoded message.
    """

    schemas: Schemas
    limit: int

    def read(
        self, body: bytes, *, seed: Seed | None, headers: t.Mapping[str, str]
    ) -> list[EventMessage]:
        """Return the events of *body*.

        :param seed: The source of ids for events that have none themselves.
        :param headers: The headers that every message gets.
        :raises Refused: The body is malformed, or at least one event is not valid.
        """
        messages: list[EventMessage] = []
        problems: list[str] = []
        for index, item in enumerate(items_of(parse_body(body), MAX_SDK_EVENTS)):
            default_id = new_event_id() if seed is None else seed.event_id(index)
            try:
                messages.append(self._message(item, default_id, headers))
            except EventError as error:
                problems.append(f"event {index}: {_told(error)}")
                if len(problems) == MAX_TOLD:
                    break
        if problems:
            raise Refused(400, f"Nothing was accepted: {'; '.join(problems)}.")
        return messages

    def _message(
        self, item: t.Any, default_id: str, headers: t.Mapping[str, str]
    ) -> EventMessage:
        if not isinstance(item, dict):
            raise _fault("it", "must be an object")
        name, data, ts = item.get("name"), item.get("data"), item.get("ts")
        if isinstance(name, str) and name.lower().startswith(_RESERVED):
            raise _fault("name", f"must not begin with {_RESERVED!r}")
        if ts in (None, 0) and ts is not False:
            ts = None
        elif not isinstance(ts, int):
            raise _fault("ts", "must be whole milliseconds since 1970")
        return check_message(
            name,
            {} if data is None else data,
            _id_of(item.get("id")) or default_id,
            ts,
            schemas=self.schemas,
            limit=self.limit,
            headers=headers,
            lead=STAMP_LEAD_MS,
        )


def _id_of(given: t.Any) -> t.Any:
    """Return an id of our form for any text: other texts have a hash of them."""
    if not isinstance(given, str) or not given or check_event_id(given) is None:
        return given
    return derived_id("inngest", given.encode("utf-8", "surrogatepass").hex())


def _fault(field: str, message: str) -> EventError:
    return EventError(message, errors=[{"field": field, "message": message}])


def _told(error: EventError) -> str:
    faults = error.errors[:MAX_TOLD]
    names = {"at": "ts"}
    told = [f"{names.get(f['field'], f['field'])} {f['message']}" for f in faults]
    return clean(", ".join(told))


def _refused(refusal: Refused) -> Response:
    return _error(refusal.status, refusal.message)


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:
        return t.cast(Response, error.response)
    text = str(error.description or error.name)
    if isinstance(error, NotFound):
        text = f"There is nothing here. Events are sent to {PATH}<event key>."
    return with_headers_of(error, _error(error.code or 500, text))


def _error(status: int, text: str, ids: t.Sequence[str] = ()) -> Response:
    return json_response({"ids": ids, "status": status, "error": text}, status)
