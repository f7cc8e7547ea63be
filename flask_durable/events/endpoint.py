"""The HTTP routes that accept events and tell whether the app is up.

``POST <prefix>/events``
    One event or a list of at most 100. 202 with the ids once the queue has all of
    them; 4xx and nothing accepted when any is not valid; 503 with a status for each
    event when the queue could not take them all. Sending the same ids again is
    harmless.
``GET <prefix>/healthz``
    200 while this process answers.
``GET <prefix>/readyz``
    200 while it can accept events, else 503.

Every answer is JSON; every error has a ``code`` and a ``message``.
"""

from __future__ import annotations

import json
import logging
import typing as t

from flask import Blueprint
from flask import current_app
from flask import request
from flask import Response
from werkzeug.exceptions import HTTPException

from ..queue.envelope import EventMessage
from .access import Credentials
from .access import is_local
from .batch import BatchReader
from .batch import Refused

if t.TYPE_CHECKING:
    from ..config import Settings
    from .schemas import Schemas

logger = logging.getLogger(__name__)

#: Bytes of a body: a hundred times the inline limit, but never more than this.
MAX_BODY = 10 * 2**20

#: Seconds after which a client may send again what the queue did not take.
RETRY_AFTER = 2

#: Characters of an ``Idempotency-Key``.
MAX_SEED = 255

#: Request headers that travel with each event, and the characters of one.
TRACE_HEADERS = ("traceparent", "tracestate", "sentry-trace", "baggage")
MAX_TRACE_HEADER = 1024


class EventSink(t.Protocol):
    """What the routes need of the extension."""

    @property
    def settings(self) -> Settings:
        """The app's settings."""

    @property
    def schemas(self) -> Schemas:
        """The app's event schemas."""

    def send_messages(
        self, messages: list[EventMessage]
    ) -> t.Sequence[Exception | None]:
        """Put *messages* on the event queue.

        :return: For each one ``None`` once the queue owns it, else why it does not.
        """

    def ready(self) -> t.Sequence[str]:
        """Return what keeps this process from accepting events; empty is ready.

        The text is logged, never answered.
        """


def events_blueprint(sink: EventSink, *, open_ingest: bool = False) -> Blueprint:
    """Return the blueprint with the routes, for one app and ``url_prefix``.

    :param sink: Takes what was accepted.
    :param open_ingest: While no event key and no signing secret is configured, accept
        events from this machine; else such an endpoint is closed.
    """
    prefix = sink.settings.url_prefix or "/"
    blueprint = Blueprint("durable", __name__, url_prefix=prefix)
    routes = _Routes(sink, open_ingest)
    blueprint.add_url_rule("/events", "events", routes.accept, methods=["POST"])
    blueprint.add_url_rule("/healthz", "healthz", routes.healthz)
    blueprint.add_url_rule("/readyz", "readyz", routes.readyz)
    blueprint.register_error_handler(Refused, _refused)
    blueprint.register_error_handler(HTTPException, _http_error)
    blueprint.record_once(lambda state: _exempt_from_csrf(state.app, blueprint))
    blueprint.before_app_request(_Outside(blueprint, prefix))
    return blueprint


class _Routes:
    def __init__(self, sink: EventSink, open_ingest: bool) -> None:
        self.sink = sink
        self.open_ingest = open_ingest
        self.credentials = Credentials.of(sink.settings)
        limit = sink.settings.inline_limit
        self.max_body = min(100 * limit, MAX_BODY)
        self.reader = BatchReader(sink.schemas, limit)

    def accept(self) -> Response:
        request.max_content_length = self.max_body
        webhook_id = self._authorize()
        if not request.is_json:
            # A page of another origin cannot send this type without being asked first.
            raise Refused(415, "Send JSON with Content-Type: application/json.")
        messages = self.reader.read(
            self._body(),
            headers=_trace_headers(),
            seed=_seed(),
            webhook_id=webhook_id,
        )
        return self._send(messages)

    def healthz(self) -> Response:
        return _json({"status": "ok"}, 200)

    def readyz(self) -> Response:
        try:
            problems = self.sink.ready()
        except Exception:
            logger.exception("The check for readiness failed.")
            problems = ["check failed"]
        if not problems:
            return _json({"status": "ok"}, 200)
        logger.warning("This process is not ready: %s", "; ".join(problems))
        return _json({"status": "unavailable"}, 503)

    def _authorize(self) -> str | None:
        """Return the ``webhook-id`` of a signed request, ``None`` for another one."""
        if not self.credentials:
            if self.open_ingest and is_local(request.remote_addr, request.host):
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
        body = request.get_data()
        # Werkzeug cuts a chunked body at the limit without an error.
        if request.content_length is None and len(body) >= self.max_body:
            raise Refused(413, f"A body may have {self.max_body} bytes.")
        return body

    def _send(self, messages: list[EventMessage]) -> Response:
        outcomes = self._outcomes(messages) if messages else []
        events = [
            {"id": message.id, "status": "accepted" if error is None else "failed"}
            for message, error in zip(messages, outcomes, strict=True)
        ]
        failure = next((error for error in outcomes if error is not None), None)
        if failure is None:
            ids = [message.id for message in messages]
            return _json({"ids": ids, "events": events}, 202)
        logger.error("The queue did not take all events.", exc_info=failure)
        body = _error("unavailable", "Send the failed events again with the same ids.")
        response = _json({**body, "events": events}, 503)
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response

    def _outcomes(self, messages: list[EventMessage]) -> t.Sequence[Exception | None]:
        try:
            return self.sink.send_messages(messages)
        except Exception as error:
            # Some may be on the queue. Their ids are fixed, so the client's repeat
            # of all of them makes no second run.
            return [error] * len(messages)


class _Outside:
    """Answers what fails before a route of ours is found, such as a wrong method.

    Flask gives such errors to the app's handlers only, which may make HTML of them.
    """

    def __init__(self, blueprint: Blueprint, prefix: str) -> None:
        self.blueprint = blueprint
        base = prefix.rstrip("/")
        self.paths = {f"{base}/{name}" for name in ("events", "healthz", "readyz")}
        self.below = f"{base}/" if base else None

    def __call__(self) -> Response | None:
        # Flask-WTF may have been set up after this blueprint was registered.
        _exempt_from_csrf(current_app, self.blueprint)
        error = request.routing_exception
        if error is None or (error.code or 500) < 400 or not self._is_ours():
            return None
        return _http_error(error)

    def _is_ours(self) -> bool:
        path = request.path
        return path in self.paths or bool(self.below and path.startswith(self.below))


def _exempt_from_csrf(app: t.Any, blueprint: Blueprint) -> None:
    # A key or signature authorizes a request here, never a cookie.
    csrf = app.extensions.get("csrf")
    if csrf is not None and hasattr(csrf, "exempt"):
        csrf.exempt(blueprint)


def _seed() -> str | None:
    seed = request.headers.get("idempotency-key", "").strip()
    if len(seed) > MAX_SEED:
        raise Refused(400, f"Idempotency-Key is longer than {MAX_SEED}.")
    return seed or None


def _trace_headers() -> dict[str, str]:
    found = {name: request.headers.get(name, "") for name in TRACE_HEADERS}
    return {
        name: value
        for name, value in found.items()
        if 0 < len(value) <= MAX_TRACE_HEADER
    }


_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    413: "too_large",
    415: "unsupported_type",
    422: "event.invalid",
}


def _refused(refusal: Refused) -> Response:
    body = _error(_CODES[refusal.status], refusal.message)
    if refusal.errors:
        body["errors"] = refusal.errors
    response = _json(body, refusal.status)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:
        return t.cast(Response, error.response)
    status = error.code or 500
    code = _CODES.get(status, error.name.lower().replace(" ", "_"))
    response = _json(_error(code, str(error.description or error.name)), status)
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def _error(code: str, message: str) -> dict[str, t.Any]:
    return {"code": code, "message": message}


def _json(body: dict[str, t.Any], status: int) -> Response:
    # Not jsonify: the app may have a JSON provider of its own.
    response = Response(json.dumps(body) + "\n", status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
