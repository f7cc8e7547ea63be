"""Inngest's event API as it is on the wire; the SDKs themselves are in test_sdks."""

from __future__ import annotations

import json
import logging
import time
import typing as t

import pytest
from flask import abort
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from flask_durable import Durable
from flask_durable import EventData
from flask_durable.errors import UnavailableError
from flask_durable.events.seed import Seed
from flask_durable.messages import EventMessage
from flask_durable.security.keys import new_event_key
from flask_durable.security.keys import new_signing_secret
from flask_durable.web.inngest import inngest_blueprint
from flask_durable.web.inngest import MAX_SDK_EVENTS
from flask_durable.web.inngest import STAMP_LEAD_MS

from ..support.ingest import Csrf
from ..support.ingest import Recorder

KEY = new_event_key()
EVENT = {"name": "a/b", "data": {"x": 1}, "ts": 1700000000000}
SEED = {"x-inngest-event-id-seed": "1743130137367,eii2YKXRVTJPuA=="}


class Uploaded(EventData, name="media/uploaded"):
    audio_url: str


class Site:
    def __init__(self, open_ingest: bool = False, **keys: t.Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update({f"DURABLE_{key}": keys[key] for key in keys})
        self.recorder = Recorder(self.app, Uploaded)
        blueprint = inngest_blueprint(self.recorder, open_ingest=open_ingest)
        self.app.register_blueprint(blueprint)

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    @property
    def sent(self) -> list[EventMessage]:
        return self.recorder.sent

    def post(self, body: t.Any, key: str = KEY, **given: t.Any) -> TestResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given.setdefault("content_type", "application/json")
        return self.client.post(f"/e/{key}", data=data, **given)


@pytest.fixture
def site() -> Site:
    return Site(EVENT_KEYS=KEY)


def ids_of(response: TestResponse) -> list[str]:
    """Return the ids of a success, in the one form that both SDKs take for one."""
    assert response.status_code == 200, response.text
    body = answer_of(response)
    assert body.keys() == {"ids", "status"}
    return t.cast("list[str]", body["ids"])


def error_of(response: TestResponse, status: int) -> str:
    """Return the text of an error, in the one form that neither takes for a success."""
    assert response.status_code == status, response.text
    body = answer_of(response)
    assert body["error"].strip()
    return t.cast(str, body["error"])


def answer_of(response: TestResponse) -> dict[str, t.Any]:
    assert response.mimetype == "application/json"
    body = json.loads(response.text)
    assert body["status"] == response.status_code
    assert all(isinstance(id, str) for id in body["ids"])
    return t.cast("dict[str, t.Any]", body)


# -- What is accepted -------------------------------------------------------------


def test_one_event_or_a_list_is_accepted_in_order(site: Site) -> None:
    one = ids_of(site.post(EVENT))
    two = ids_of(site.post([{**EVENT, "id": "first"}, EVENT]))
    assert two[0] == "first"
    assert one + two == [message.id for message in site.sent]
    assert site.sent[0] == EventMessage(
        "a/b", {"x": 1}, one[0], 1700000000000, due=1700000000000 - STAMP_LEAD_MS
    )


@pytest.mark.parametrize("extra", [{}, {"data": None, "id": None, "ts": None}])
def test_what_is_missing_is_filled_in(site: Site, extra: dict[str, t.Any]) -> None:
    before = int(time.time() * 1000)
    ids_of(site.post([{"name": "a/b", **extra}, {"name": "a/b", "id": "", "ts": 0}]))
    for message in site.sent:
        assert message.data == {}
        assert before <= message.at <= time.time() * 1000
    assert len({message.id for message in site.sent}) == 2


def test_fields_that_we_do_not_have_are_left_out(site: Site) -> None:
    extra = {"user": {"id": 1}, "v": "2024-01-01.1", "meta": {"a": "b"}, "other": []}
    ids_of(site.post({**EVENT, **extra}))
    assert site.sent[0].data == {"x": 1}


def test_no_events_are_accepted(site: Site) -> None:
    assert ids_of(site.post([])) == []


def test_a_request_may_have_as_many_events_as_with_inngest(site: Site) -> None:
    assert len(ids_of(site.post([{"name": "a/b"}] * MAX_SDK_EVENTS))) == MAX_SDK_EVENTS
    assert site.recorder.calls == 1
    assert f"{MAX_SDK_EVENTS}" in error_of(
        site.post([EVENT] * (MAX_SDK_EVENTS + 1)), 413
    )


def test_the_content_type_does_not_matter_to_who_knows_the_key(site: Site) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        ids_of(site.post(EVENT, content_type=kind))
    assert len(site.sent) == 3


def test_trace_headers_travel_with_the_event(site: Site) -> None:
    ids_of(site.post(EVENT, headers={"traceparent": "00-aa-bb-01", "Cookie": "no"}))
    assert site.sent[0].headers == {"traceparent": "00-aa-bb-01"}


# -- Ids --------------------------------------------------------------------------


def test_the_seed_gives_each_event_the_id_that_inngest_gives_it(site: Site) -> None:
    ids = ids_of(site.post([EVENT, EVENT], headers=SEED))
    assert ids == ["01JQDAE4RQF8MBCR55T5AK4KXS", "01JQDAE4RQF8MBCR55T5AK4KXT"]
    assert ids == [message.id for message in site.sent]


def test_a_repeated_request_repeats_the_ids(site: Site) -> None:
    batch = [EVENT, {**EVENT, "id": "mine"}, EVENT]
    first = ids_of(site.post(batch, headers=SEED))
    assert ids_of(site.post(batch, headers=SEED)) == first
    assert first[1] == "mine"
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    "seed",
    [
        "",
        "1743130137367",
        "1743130137367,",
        "soon,eii2YKXRVTJPuA==",
        "1743130137367,eii2YKXRVTJPuA",
        "1743130137367,eii2YKXRVTI=",
        "281474976710656,eii2YKXRVTJPuA==",
        "-1,eii2YKXRVTJPuA==",
        "1743130137367,eii2YKXRVTJPuA==,1",
    ],
)
def test_a_malformed_seed_is_no_seed(site: Site, seed: str) -> None:
    assert Seed.parse(seed) is None
    headers = {"x-inngest-event-id-seed": seed}
    first = ids_of(site.post(EVENT, headers=headers))
    assert ids_of(site.post(EVENT, headers=headers)) != first


def test_a_seed_is_written_as_it_is_read() -> None:
    seed = Seed.of_event("order-1", 1700000000000)
    assert Seed.parse(str(seed)) == seed
    assert seed == Seed.of_event("order-1", 1700000000000)
    assert seed != Seed.of_event("order-2", 1700000000000)


def test_the_last_bytes_of_a_seed_begin_again_at_zero() -> None:
    seed = Seed(0, bytes(6) + b"\xff" * 4)
    assert seed.event_id(0) == "0" * 26
    assert seed.event_id(1) == "0" * 25 + "1"


@pytest.mark.parametrize("id", ["user 7/first", "é", "x" * 129, "\ud800"])
def test_any_text_is_an_id(site: Site, id: str) -> None:
    first = ids_of(site.post([{**EVENT, "id": id}, {**EVENT, "id": id + "."}]))
    assert ids_of(site.post({**EVENT, "id": id})) == first[:1]
    assert first[0] != first[1]


# -- What is refused --------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"name": "two words"}, "name"),
        ({"name": "inngest/function.failed"}, "inngest/"),
        ({"name": "Inngest/x"}, "inngest/"),
        ({"name": "durable/function.failed"}, "durable/"),
        ({"name": "a/b", "data": "text"}, "data must be an object"),
        ({"name": "a/b", "data": []}, "data must be an object"),
        ({"name": "a/b", "id": 7}, "id"),
        ({"name": "a/b", "ts": 1}, "ts must be between"),
        ({"name": "a/b", "ts": "abc"}, "ts must be whole milliseconds"),
        ({"name": "a/b", "ts": 1.5}, "ts must be whole milliseconds"),
        ({"name": "a/b", "ts": True}, "ts must be"),
        ({"name": "a/b", "ts": False}, "ts must be"),
        ({"name": "a/b", "data": {"x": "y" * 70_000}}, "bytes"),
        ({"name": "media/uploaded", "data": {}}, "data.audio_url"),
        (1, "must be an object"),
    ],
)
def test_an_invalid_event_refuses_all_of_them(
    site: Site, event: t.Any, told: str
) -> None:
    text = error_of(site.post([EVENT, event, EVENT], headers=SEED), 400)
    assert text.startswith("Nothing was accepted: event 1: ")
    assert told in text
    assert site.recorder.calls == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"name=a", b"\xff", b'"a/b"', b"null", b"[NaN]", b"[" * 9999]
)
def test_what_is_no_event_is_refused(site: Site, body: bytes) -> None:
    error_of(site.post(body), 400)


def test_many_invalid_events_are_told_about_in_short(site: Site) -> None:
    text = error_of(site.post([{"name": "x" * 300, "data": 7}] * MAX_SDK_EVENTS), 400)
    assert "event 9: " in text
    assert len(text) < 5000


def test_a_body_over_the_limit_is_refused(site: Site) -> None:
    error_of(site.post(b" " * (10 * 2**20 + 1)), 413)


# -- Who may send -----------------------------------------------------------------


def test_a_wrong_key_is_refused_whatever_it_sends(site: Site) -> None:
    for key in (new_event_key(), "NO_EVENT_KEY_SET", KEY[:-1], "é", "%00"):
        assert "key" in error_of(site.post(b"{", key=key), 401)
    assert site.recorder.calls == 0


def test_each_of_several_keys_is_accepted() -> None:
    keys = [new_event_key(), new_event_key()]
    site = Site(EVENT_KEYS=keys)
    for key in keys:
        ids_of(site.post(EVENT, key=key))


@pytest.mark.parametrize("open_ingest", [True, False])
def test_without_a_key_the_api_is_closed(open_ingest: bool) -> None:
    site = Site(open_ingest, SIGNING_SECRETS=new_signing_secret())
    assert "DURABLE_EVENT_KEYS" in error_of(site.post(EVENT), 403)


def test_an_open_api_is_open_to_json_from_this_machine() -> None:
    site = Site(open_ingest=True)
    ids_of(site.post(EVENT, key="NO_EVENT_KEY_SET"))
    error_of(site.post(EVENT, key="any", content_type="text/plain"), 415)
    error_of(site.post(EVENT, key="any", headers={"Host": "rebound.example.org"}), 403)
    assert len(site.sent) == 1


def test_a_configured_key_closes_an_open_api() -> None:
    error_of(Site(open_ingest=True, EVENT_KEYS=KEY).post(EVENT, key="any"), 401)


# -- Other paths and methods ------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "BREW"])
def test_a_wrong_method_gets_json(site: Site, method: str) -> None:
    response = site.client.open(f"/e/{KEY}", method=method)
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    if method != "HEAD":
        error_of(response, 405)


@pytest.mark.parametrize("path", ["/e/", "/e/{key}/", "/e/{key}/more", "/e/a/b/c"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths_get_json_below_e_only(
    site: Site, path: str, method: str
) -> None:
    response = site.client.open(path.format(key=KEY), method=method)
    assert "/e/<event key>" in error_of(response, 404)
    assert site.client.open("/nothing", method=method).mimetype == "text/html"
    assert site.client.open("/event", method=method).mimetype == "text/html"


def test_errors_of_the_apps_own_hooks_are_json_here(site: Site) -> None:
    site.app.before_request(lambda: abort(429))
    error_of(site.post(EVENT), 429)


def test_a_hook_that_crashes_is_answered_without_the_key_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @site.app.before_request
    def crash() -> None:
        raise LookupError("no database")

    with caplog.at_level(logging.DEBUG):
        error_of(site.post(EVENT), 500)
    assert "no database" in caplog.text
    assert KEY not in caplog.text


def test_an_answer_is_never_cached(site: Site) -> None:
    for response in (site.post(EVENT), site.post(b"{"), site.client.get("/e/x")):
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("first", [True, False])
def test_events_are_exempt_from_csrf_checks_in_any_order(first: bool) -> None:
    app, durable = Flask(__name__), Durable()
    app.config.update(DURABLE_EVENT_KEYS=KEY, DURABLE_INNGEST_EVENT_API=True)
    app.config["DURABLE_REDIS_URL"] = "redis://localhost:1"  # no event, no connection
    for extension in (Csrf(), durable) if first else (durable, Csrf()):
        extension.init_app(app)
    response = app.test_client().post(f"/e/{KEY}", json=[])
    assert ids_of(response) == []


# -- The queue --------------------------------------------------------------------


def test_a_partial_failure_names_the_ids_that_were_taken(site: Site) -> None:
    site.recorder.failing = lambda m: UnavailableError("no") if m.id == "b" else None
    batch = [{**EVENT, "id": id} for id in "abc"]
    response = site.post(batch)
    assert "send again" in error_of(response, 503)
    assert response.json is not None
    assert response.json["ids"] == ["a", "c"]
    assert int(response.headers["Retry-After"]) > 0
    site.recorder.failing = lambda message: None
    assert ids_of(site.post(batch)) == ["a", "b", "c"]


def test_a_queue_out_of_reach_is_unavailable_and_logged_without_the_key(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.recorder.failing = lambda message: ConnectionError("secret host name")
    with caplog.at_level(logging.DEBUG):
        response = site.post([EVENT, EVENT])
    error_of(response, 503)
    assert "secret host name" not in response.text
    assert "secret host name" in caplog.text
    assert KEY not in caplog.text


# -- The extension ----------------------------------------------------------------


def test_the_api_is_there_only_if_it_is_asked_for() -> None:
    for asked, status in ((None, 404), (True, 401)):
        app = Flask(__name__)
        app.config.update(DURABLE_EVENT_KEYS=KEY, DURABLE_URL_PREFIX=None)
        app.config["DURABLE_INNGEST_EVENT_API"] = asked
        Durable(app)
        assert app.test_client().post("/e/wrong", json=[]).status_code == status


# -- Any input --------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=10,
)
_EVENT_LIKE = st.fixed_dictionaries(
    {"name": st.sampled_from(["a/b", "media/uploaded", "inngest/x"]) | _JSON},
    optional={
        "data": st.fixed_dictionaries({"audio_url": _JSON}) | _JSON,
        "id": st.text(st.characters(), max_size=5) | _JSON,
        "ts": st.integers(0, 5 * 10**12) | _JSON,
    },
)
_BODY = st.binary(max_size=60) | (
    _JSON | _EVENT_LIKE | st.lists(_EVENT_LIKE, max_size=4)
).map(lambda value: json.dumps(value).encode())
_SEEDS = st.sampled_from([*SEED.values(), "1,AAAAAAAAAAAAAA=="]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"),
    max_size=30,
)
_FUZZ_SITES = [Site(EVENT_KEYS=KEY), Site(open_ingest=True)]


@hypothesis_settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    site=st.sampled_from(_FUZZ_SITES),
    # Werkzeug sends a path with two slashes in a row elsewhere, by a 308.
    key=st.just(KEY) | st.text(max_size=8).filter(lambda key: "//" not in f"/{key}"),
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT"]),
    body=_BODY,
    seed=_SEEDS,
)
def test_whatever_is_sent_gets_an_answer_that_the_sdks_understand(
    site: Site, key: str, method: str, body: bytes, seed: str
) -> None:
    taken = len(site.sent)
    response = site.client.open(
        f"/e/{key}",
        method=method,
        data=body,
        content_type="application/json",
        headers={"x-inngest-event-id-seed": seed},
    )
    if response.status_code != 200:
        assert 400 <= response.status_code < 500
        error_of(response, response.status_code)
        assert len(site.sent) == taken
    elif method == "POST":
        assert ids_of(response) == [message.id for message in site.sent[taken:]]
