"""The route that accepts events: bodies, ids, faults, answers."""

from __future__ import annotations

import io
import json
import time
import typing as t

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flask_durable.common.ids import derived_event_id
from flask_durable.errors import UnavailableError
from flask_durable.messages import decode

from .site import BEARER
from .site import body_of
from .site import EVENT
from .site import faults_of
from .site import KEY
from .site import make_site
from .site import SECRET
from .site import signed
from .site import Site

# Accepting


def test_one_event_is_accepted_with_its_id(site: Site) -> None:
    body = body_of(site.post({**EVENT, "id": "one"}), 202)
    assert body == {"ids": ["one"], "events": [{"id": "one", "status": "accepted"}]}
    assert [(m.name, m.data, m.id) for m in site.sent] == [("a/b", {"x": 1}, "one")]


def test_a_batch_is_accepted_in_order(site: Site) -> None:
    body = body_of(site.post([{**EVENT, "id": str(n)} for n in range(100)]), 202)
    assert body["ids"] == [m.id for m in site.sent] == [str(n) for n in range(100)]
    assert site.recorder.calls == 1


def test_an_event_without_data_id_or_time_gets_them(site: Site) -> None:
    before = int(time.time() * 1000)
    sent_as = [{"name": "a/b"}, {"name": "a/b", "data": None, "id": None, "at": None}]
    ids = body_of(site.post(sent_as), 202)["ids"]
    assert len(set(ids)) == 2
    assert all(m.data == {} and m.at >= before for m in site.sent)


def test_a_time_is_kept(site: Site) -> None:
    body_of(site.post([{**EVENT, "at": "2026-01-01T00:00:00Z"}]), 202)
    body_of(site.post([{**EVENT, "at": 1767225600000}]), 202)
    assert [m.at for m in site.sent] == [1767225600000] * 2


def test_an_empty_batch_is_accepted(site: Site) -> None:
    assert body_of(site.post(data="[]", content_type="application/json"), 202) == {
        "ids": [],
        "events": [],
    }


def test_fields_that_the_schema_lacks_stay_in_the_data(site: Site) -> None:
    data = {"audio_url": "s3://a", "more": 1}
    body_of(site.post({"name": "media/uploaded", "data": data}), 202)
    assert site.sent[0].data == data


def test_trace_headers_travel_with_the_event(site: Site) -> None:
    trace = {"traceparent": "00-aa-bb-01", "baggage": "x" * 1025, "Cookie": "secret"}
    body_of(site.post(EVENT, headers={**BEARER, **trace}), 202)
    assert site.sent[0].headers == {"traceparent": "00-aa-bb-01"}


def test_a_repeated_idempotency_key_repeats_the_ids(site: Site) -> None:
    headers = {**BEARER, "Idempotency-Key": "order-1"}
    first = body_of(site.post([EVENT, EVENT], headers=headers), 202)["ids"]
    again = body_of(site.post([EVENT, EVENT], headers=headers), 202)["ids"]
    assert first == again == [derived_event_id("order-1", n) for n in (0, 1)]


def test_an_id_of_its_own_wins_over_the_idempotency_key(site: Site) -> None:
    headers = {**BEARER, "Idempotency-Key": "order-1"}
    assert body_of(site.post({**EVENT, "id": "x"}, headers=headers), 202)["ids"] == [
        "x"
    ]


def test_a_too_long_idempotency_key_is_refused(site: Site) -> None:
    body_of(site.post(EVENT, headers={**BEARER, "Idempotency-Key": "x" * 256}), 400)
    assert not site.sent


# Refusing


def test_one_invalid_event_refuses_the_whole_batch(site: Site) -> None:
    batch = [EVENT, {"name": "media/uploaded"}, {**EVENT, "name": "a b"}, EVENT, 5]
    assert faults_of(site.post(batch)) == [(1, "data.audio_url"), (2, "name"), (4, "")]
    assert site.recorder.calls == 0


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ({}, ["name"]),
        ({"name": None}, ["name"]),
        ({"name": "durable/function.finished"}, ["name"]),
        ({**EVENT, "data": []}, ["data"]),
        ({**EVENT, "data": "text"}, ["data"]),
        ({**EVENT, "id": "a/b"}, ["id"]),
        ({**EVENT, "id": 7}, ["id"]),
        ({**EVENT, "at": "2026-01-01"}, ["at"]),
        ({**EVENT, "at": 1767225600}, ["at"]),
        ({**EVENT, "payload": {}}, ["payload"]),
        ({"name": "", "id": "", "at": "", "data": ""}, ["name", "id", "at", "data"]),
        ({**EVENT, "data": {"x": "y" * 65_536}}, ["data"]),
        ({"name": "media/uploaded", "data": {"audio_url": 1}}, ["data.audio_url"]),
        ({"name": "media/uploaded", "data": {"audio_url": "no"}}, ["data"]),
    ],
)
def test_an_event_that_is_not_valid_names_its_fields(
    site: Site, event: t.Any, fields: list[str]
) -> None:
    assert faults_of(site.post(event)) == [(0, field) for field in fields]
    assert site.recorder.calls == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"1",
        b'"text"',
        b"NaN",
        b'{"name":"a/b","data":{"x":Infinity}}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"name":"a/b","data":{"x":' + b"9" * 5000 + b"}}",
    ],
    ids=range(11),
)
def test_a_body_that_is_no_event_is_refused(site: Site, body: bytes) -> None:
    body_of(site.post(data=body, content_type="application/json"), 400)
    assert site.recorder.calls == 0


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (r'"\ud800"', "data.x"),
        ("1e999", "data.x"),
        ("[" * 63 + "]" * 63, "data.x" + "[0]" * 40),
    ],
)
def test_values_that_would_not_survive_are_refused(
    site: Site, text: str, field: str
) -> None:
    body = '{"name":"a/b","data":{"x":' + text + "}}"
    response = site.post(data=body, content_type="application/json")
    errors = body_of(response, 422)["errors"]
    assert errors[0]["field"].startswith(field[:100])


def test_more_than_a_hundred_events_are_too_many(site: Site) -> None:
    assert "not 101" in body_of(site.post([EVENT] * 101), 413)["message"]


def test_a_body_over_the_limit_is_refused_unread() -> None:
    site = make_site(EVENT_KEYS=KEY, INLINE_LIMIT=1024)
    fits = [{"name": "a/b", "data": {"x": "y" * 900}}] * 100
    body_of(site.post(fits), 202)
    large = [{"name": "a/b", "data": {"x": "y" * 1100}}] * 100
    body_of(site.post(large), 413)
    assert len(site.sent) == 100


@pytest.mark.parametrize(("size", "status"), [(1000, 202), (200_000, 413)])
def test_a_chunked_body_is_not_cut_at_the_limit(size: int, status: int) -> None:
    site = make_site(EVENT_KEYS=KEY, INLINE_LIMIT=1024)
    chunked = {
        "wsgi.input": io.BytesIO(json.dumps(EVENT).encode() + b" " * size),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "",
    }
    body_of(site.post(environ_overrides=chunked), status)
    assert len(site.sent) == (status == 202)


def test_the_limit_of_the_app_does_not_count_for_this_route() -> None:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 10
    body_of(make_site(app=app, EVENT_KEYS=KEY).post(EVENT), 202)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/cloudevents+json; charset=utf-8"]
)
def test_json_content_types_are_read(site: Site, content_type: str) -> None:
    body_of(site.post(data=json.dumps(EVENT), content_type=content_type), 202)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "json"],
)
def test_other_content_types_are_refused(site: Site, content_type: str | None) -> None:
    body_of(site.post(data=json.dumps(EVENT), content_type=content_type), 415)
    assert not site.sent


def test_a_partial_failure_tells_the_state_of_each_event(site: Site) -> None:
    site.recorder.failing = lambda m: UnavailableError("no") if m.id == "b" else None
    batch = [{**EVENT, "id": id} for id in "abc"]
    response = site.post(batch)
    assert body_of(response, 503)["events"] == [
        {"id": "a", "status": "accepted"},
        {"id": "b", "status": "failed"},
        {"id": "c", "status": "accepted"},
    ]
    assert int(response.headers["Retry-After"]) > 0
    site.recorder.failing = lambda message: None
    failed = [e["id"] for e in response.json["events"] if e["status"] == "failed"]  # type: ignore[index]
    body_of(site.post([e for e in batch if e["id"] in failed]), 202)
    assert [m.id for m in site.sent] == ["a", "c", "b"]


def test_generated_ids_are_told_when_the_queue_fails(site: Site) -> None:
    site.recorder.failing = lambda message: UnavailableError("no")
    event = body_of(site.post(EVENT), 503)["events"][0]
    assert event["status"] == "failed"
    site.recorder.failing = lambda message: None
    assert body_of(site.post({**EVENT, "id": event["id"]}), 202)["ids"] == [event["id"]]


def test_a_queue_out_of_reach_is_unavailable_and_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.recorder.failing = lambda message: ConnectionError("secret host name")
    response = site.post([EVENT, EVENT])
    assert [e["status"] for e in body_of(response, 503)["events"]] == ["failed"] * 2
    assert "secret host name" not in response.text
    assert "secret host name" in caplog.text


# Any input


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(), max_size=6), inner, max_size=4)
    ),
    max_leaves=10,
)
_EVENT_LIKE = st.fixed_dictionaries(
    {"name": st.sampled_from(["a/b", "media/uploaded", "durable/x"]) | _JSON},
    optional={
        "data": st.fixed_dictionaries({"audio_url": _JSON}) | _JSON,
        "id": st.text(max_size=5) | _JSON,
        "at": st.datetimes().map(str) | st.integers() | _JSON,
        "type": _JSON,
        "timestamp": _JSON,
    },
)
_BODY = st.binary(max_size=60) | (
    _JSON | _EVENT_LIKE | st.lists(_EVENT_LIKE, max_size=4)
).map(lambda value: json.dumps(value).encode())
_HEADER_TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"),
    max_size=30,
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Authorization",
            "Baggage",
            "Content-Encoding",
            "Content-Type",
            "Host",
            "Idempotency-Key",
            "Transfer-Encoding",
            "Webhook-Id",
            "Webhook-Signature",
            "Webhook-Timestamp",
            "X-Forwarded-For",
        ]
    ),
    _HEADER_TEXT | st.sampled_from(["application/json", "chunked", "Bearer"]),
    max_size=4,
)
_FUZZ_SITES = [
    make_site(EVENT_KEYS=KEY, SIGNING_SECRETS=SECRET),
    make_site(open_ingest=True),
]


@hypothesis_settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    site=st.sampled_from(_FUZZ_SITES),
    body=_BODY,
    headers=_HEADERS,
    access=st.sampled_from(["none", "key", "signature"]),
)
def test_any_request_gets_json_and_nothing_invalid_passes(
    site: Site, body: bytes, headers: dict[str, str], access: str
) -> None:
    site.sent.clear()
    if access == "key":
        headers = {"Content-Type": "application/json"} | headers | BEARER
    if access == "signature":
        headers = headers | signed(body)
    response = site.client.post("/durable/events", data=body, headers=headers)
    status = response.status_code
    assert status in (202, 400, 401, 403, 413, 415, 422)
    answer = body_of(response, status)
    assert len(site.sent) == (len(answer["ids"]) if status == 202 else 0)
    for message in site.sent:
        assert decode(message.encode()) == message
        assert not message.name.startswith("durable/")
        if message.name == "media/uploaded":
            assert "://" in message.data["audio_url"]


@hypothesis_settings(suppress_health_check=list(HealthCheck))
@given(st.lists(_EVENT_LIKE, min_size=1, max_size=5))
def test_a_batch_is_taken_whole_or_not_at_all(batch: list[dict[str, t.Any]]) -> None:
    site = _FUZZ_SITES[0]
    site.sent.clear()
    body = json.dumps(batch)
    response = site.post(data=body, content_type="application/json")
    assert len(site.sent) == (len(batch) if response.status_code == 202 else 0)
