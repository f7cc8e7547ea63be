"""All routes together: paths, methods, errors of others, CSRF."""

from __future__ import annotations

import pytest
from flask import abort
from flask import Flask

from ..support.ingest import Csrf
from .site import BEARER
from .site import body_of
from .site import EVENT
from .site import KEY
from .site import make_site
from .site import Site


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "BREW"])
def test_a_wrong_method_gets_json(site: Site, method: str) -> None:
    response = site.client.open("/durable/events", method=method)
    body_of(response, 405)
    assert "POST" in response.headers["Allow"]


def test_unknown_paths_get_json_below_the_prefix_only(site: Site) -> None:
    body_of(site.client.get("/durable/nothing"), 404)
    body_of(site.client.post("/durable/events/"), 404)
    assert site.client.get("/nothing").mimetype == "text/html"
    assert site.client.get("/durablenothing").mimetype == "text/html"


def test_a_prefix_of_one_slash_leaves_the_apps_errors_alone() -> None:
    site = make_site(EVENT_KEYS=KEY, URL_PREFIX="/")
    body_of(site.client.post("/events", json=EVENT, headers=BEARER), 202)
    body_of(site.client.get("/events"), 405)
    assert site.client.get("/nothing").mimetype == "text/html"


def test_errors_of_the_apps_own_hooks_are_json_here(site: Site) -> None:
    site.app.before_request(lambda: abort(429))
    body = body_of(site.post(EVENT), 429)
    assert body["code"] == "too_many_requests"


def test_an_answer_is_never_cached(site: Site) -> None:
    for response in (site.post(EVENT), site.post(5), site.client.get("/durable/x")):
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("first", [True, False])
def test_events_are_exempt_from_csrf_checks_in_any_order(first: bool) -> None:
    app = Flask(__name__)
    if first:
        Csrf().init_app(app)
    site = make_site(app=app, EVENT_KEYS=KEY)
    if not first:
        Csrf().init_app(app)
    body_of(site.post(EVENT), 202)
