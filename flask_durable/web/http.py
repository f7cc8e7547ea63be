"""The parts that the HTTP routes which accept events share.

Every answer below their paths is JSON, whatever the error and whichever part found it:
the route, a hook of the app, or the app's routing before a route of ours was found.
"""

from __future__ import annotations

import json
import typing as t

from flask import request
from flask import Response
from werkzeug.exceptions import HTTPException

from ..common.safe_logging import get_logger
from ..common.safe_logging import SafeLogger

logger = get_logger(__name__)

#: Most bytes of a body.
MAX_EVENTS_BODY = 10 * 2**20

#: Seconds until a client may repeat a request that was not served.
RETRY_AFTER_SECONDS = 2

#: Request headers that travel with each event, and the most characters of one.
TRACE_HEADERS = ("traceparent", "tracestate", "sentry-trace", "baggage")
MAX_TRACE_HEADER = 1024


def log_refusal(logger: SafeLogger, error: Exception) -> None:
    """Log why the queue did not take the events of a request."""
    # Without the traceback: the variables of its frames are the events.
    logger.error(
        "The queue did not take all events: %s: %s",
        type(error).__name__,
        error,
        extra={"action": "events_refused"},
    )


def read_body(limit: int) -> bytes:
    """Return the request's body.

    :param limit: Most bytes of the body; the request's own limit is the same.
    :raises Refused: The body has more. Or a hook of the app has read it before and kept
        nothing: the rest is not the request, which the sender must repeat, so that is
        answered with 503.
    """
    known = vars(request._get_current_object())  # type: ignore[attr-defined]
    # A read with the cache, such as the signature's check, has left the body there.
    touched = "stream" in known and known.get("_cached_data") is None
    body = request.get_data()
    length = request.content_length
    if len(body) < (length if length is not None else touched):
        logger.error(
            "Something read the body of a request to %s before its route could: have "
            "it call request.get_data() without cache=False.",
            request.endpoint,
            extra={"action": "body_read_before"},
        )
        raise Refused(503, "The app has read the body of the request: send it again.")
    # Werkzeug cuts a chunked body at the limit without an error.
    if length is None and len(body) >= limit:
        raise Refused(413, f"A body may have {limit} bytes.")
    return body


def parse_body(body: bytes) -> t.Any:
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


def items_of(body: t.Any, limit: int) -> list[t.Any]:
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


def trace_headers() -> dict[str, str]:
    """Return the headers of the request that travel with its events."""
    found = {name: request.headers.get(name, "") for name in TRACE_HEADERS}
    return {
        name: value
        for name, value in found.items()
        if 0 < len(value) <= MAX_TRACE_HEADER
    }


def json_response(body: t.Mapping[str, t.Any], status: int) -> Response:
    """Return *body* as an answer that no cache keeps."""
    # Not jsonify: the app may have a JSON provider of its own.
    response = Response(json.dumps(body) + "\n", status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def error_body(code: str, message: str) -> dict[str, t.Any]:
    """Return the body of an answer that tells of an error."""
    return {"code": code, "message": message}


def with_headers_of(error: HTTPException, response: Response) -> Response:
    """Return *response* with the headers of *error*, such as ``Allow``."""
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


class Refused(Exception):
    """Raised when a request is answered with an error and none of its events is taken.

    :param status: The HTTP status of the answer.
    :param errors: One mapping for each fault: ``index``, ``field`` and ``message``.
    """

    def __init__(
        self, status: int, message: str, errors: t.Sequence[dict[str, t.Any]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = list(errors)
