"""Registers every route of the extension, and makes the blueprint of most of them."""

from __future__ import annotations

import typing as t

from flask import Blueprint
from flask import Flask
from flask import Response
from werkzeug.exceptions import HTTPException

from ..app.addresses import ANSWERS_PATH
from ..app.addresses import BLUEPRINT
from ..app.state import AppState
from .answers import add_answer_routes
from .answers import STYLE_PATH
from .events import EventsRoute
from .health import HealthRoutes
from .http import error_body
from .http import json_response
from .http import Refused
from .http import with_headers_of
from .inngest import inngest_blueprint
from .metrics import add_metrics_route
from .push import add_push_route
from .surroundings import Surroundings


def register_routes(app: Flask, state: AppState, *, open_ingest: bool) -> None:
    """Register every route that the settings of *state* ask for.

    :param open_ingest: True to accept events from this machine while no event key and
        no signing secret is configured.
    :raises ConfigurationError: A library is missing that a route needs.
    """
    if state.settings.url_prefix is not None:
        blueprint = events_blueprint(state, open_ingest=open_ingest)
        add_answer_routes(blueprint, state)
        add_push_route(blueprint, state)
        add_metrics_route(blueprint, state)
        app.register_blueprint(blueprint)
    if state.settings.inngest_event_api:
        app.register_blueprint(inngest_blueprint(state, open_ingest=open_ingest))


def events_blueprint(state: AppState, *, open_ingest: bool = False) -> Blueprint:
    """Return the blueprint with the routes, for one app and ``url_prefix``.

    :param state: The services of the app.
    :param open_ingest: True to accept events from this machine while no event key and
        no signing secret is configured. Otherwise such an endpoint is closed.
    """
    prefix = state.settings.url_prefix or "/"
    blueprint = Blueprint(BLUEPRINT, __name__, url_prefix=prefix)
    events = EventsRoute(state, open_ingest)
    blueprint.add_url_rule("/events", "events", events.accept, methods=["POST"])
    health = HealthRoutes(state)
    blueprint.add_url_rule("/healthz", "healthz", health.healthz)
    blueprint.add_url_rule("/readyz", "readyz", health.readyz)
    blueprint.register_error_handler(Refused, _refused)
    Surroundings.install(blueprint, _paths_below(prefix), _http_error)
    return blueprint


def _paths_below(prefix: str) -> t.Callable[[str], bool]:
    base = prefix.rstrip("/")
    names = ("events", "healthz", "readyz", "worker", "metrics")
    paths = {*(f"{base}/{name}" for name in names), f"{base}{STYLE_PATH}"}
    below = f"{base}/" if base else ANSWERS_PATH
    return lambda path: path in paths or path.startswith(below)


_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    413: "too_large",
    415: "unsupported_type",
    422: "event.invalid",
    503: "unavailable",
}


def _refused(refusal: Refused) -> Response:
    body = error_body(_CODES[refusal.status], refusal.message)
    if refusal.errors:
        body["errors"] = refusal.errors
    response = json_response(body, refusal.status)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:
        return t.cast(Response, error.response)
    status = error.code or 500
    code = _CODES.get(status, error.name.lower().replace(" ", "_"))
    body = error_body(code, str(error.description or error.name))
    return with_headers_of(error, json_response(body, status))
