"""The credentials of a client that sends events: keys, signatures, this machine."""

from __future__ import annotations

import json
import time

import pytest

from flask_durable.common.ids import derived_event_id
from flask_durable.messages import EventMessage
from flask_durable.security.keys import new_event_key
from flask_durable.security.keys import new_signing_secret

from .site import body_of
from .site import EVENT
from .site import faults_of
from .site import KEY
from .site import make_site
from .site import SECRET
from .site import signed
from .site import Site


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {new_event_key()}"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": "Bearer \xff"},
    ],
)
def test_bad_credentials_get_one_constant_answer(
    site: Site, headers: dict[str, str]
) -> None:
    response = site.post(EVENT, headers=headers)
    body_of(response, 401)
    assert response.data == site.post(data=b"junk", headers={}).data
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert site.recorder.calls == 0


def test_each_of_several_keys_is_accepted() -> None:
    keys = [new_event_key(), new_event_key()]
    site = make_site(EVENT_KEYS=keys)
    for key in keys:
        body_of(site.post(EVENT, headers={"Authorization": f"bearer {key}"}), 202)


def test_without_key_and_secret_the_endpoint_is_closed() -> None:
    site = make_site()
    message = body_of(site.post(EVENT), 403)["message"]
    assert "DURABLE_EVENT_KEYS" in message
    assert "DURABLE_SIGNING_SECRETS" in message
    assert not site.sent


@pytest.mark.parametrize(
    ("peer", "host", "status"),
    [
        ("127.0.0.1", "localhost:5000", 202),
        ("127.0.0.1", "127.0.0.1", 202),
        ("::1", "[::1]:5000", 202),
        ("::ffff:127.0.0.1", "app.localhost", 202),
        ("192.0.2.1", "localhost", 403),
        ("127.0.0.1", "rebound.example.org", 403),
        ("127.0.0.1", "localhost.example.org", 403),
        ("", "localhost", 403),
    ],
)
def test_an_open_endpoint_is_open_to_this_machine_only(
    peer: str, host: str, status: int
) -> None:
    site = make_site(open_ingest=True)
    response = site.post(
        EVENT,
        headers={"Host": host},
        environ_base={"REMOTE_ADDR": peer},
    )
    body_of(response, status)
    assert len(site.sent) == (status == 202)


def test_a_configured_key_closes_an_open_endpoint() -> None:
    site = make_site(open_ingest=True, EVENT_KEYS=KEY)
    body_of(site.post(EVENT, headers={}), 401)


WEBHOOK = b'{"type":"a/b","timestamp":"2026-01-01T00:00:00Z","data":{"x":1},"more":1}'


def test_a_signed_webhook_is_one_event_with_the_webhooks_id(site: Site) -> None:
    body = body_of(site.post(data=WEBHOOK, headers=signed(WEBHOOK)), 202)
    assert body["ids"] == ["msg_1"]
    assert site.sent == [EventMessage("a/b", {"x": 1}, "msg_1", 1767225600000)]


def test_a_signed_event_of_our_own_form_has_the_webhooks_id(site: Site) -> None:
    raw = json.dumps(EVENT).encode()
    assert body_of(site.post(data=raw, headers=signed(raw)), 202)["ids"] == ["msg_1"]


def test_a_signed_batch_derives_its_ids_from_the_webhooks(site: Site) -> None:
    raw = json.dumps([EVENT, EVENT]).encode()
    ids = body_of(site.post(data=raw, headers=signed(raw)), 202)["ids"]
    assert ids == [derived_event_id("msg_1", n) for n in (0, 1)]


def test_a_webhook_id_that_cannot_be_an_event_id_is_derived_from(site: Site) -> None:
    headers = signed(WEBHOOK, id="a/b c")
    ids = body_of(site.post(data=WEBHOOK, headers=headers), 202)["ids"]
    assert ids == [derived_event_id("a/b c", 0)]


def test_a_replayed_signature_cannot_mint_new_ids(site: Site) -> None:
    raw = json.dumps([EVENT]).encode()
    headers = signed(raw)
    first = body_of(site.post(data=raw, headers=headers), 202)["ids"]
    headers["Idempotency-Key"] = "another"
    assert body_of(site.post(data=raw, headers=headers), 202)["ids"] == first


def test_an_unsigned_webhook_payload_is_no_event(site: Site) -> None:
    fields = [field for _, field in faults_of(site.post(json.loads(WEBHOOK)))]
    assert "type" in fields


def test_a_signed_webhook_that_is_not_valid_is_refused(site: Site) -> None:
    raw = b'{"type":"a b","data":[],"timestamp":"soon"}'
    response = site.post(data=raw, headers=signed(raw))
    assert faults_of(response) == [(0, "type"), (0, "timestamp"), (0, "data")]


@pytest.mark.parametrize("offset", [-310, 310])
def test_a_signature_outside_the_window_is_refused(site: Site, offset: int) -> None:
    headers = signed(WEBHOOK, at=int(time.time()) + offset)
    body_of(site.post(data=WEBHOOK, headers=headers), 401)


@pytest.mark.parametrize("offset", [-290, 290])
def test_a_signature_inside_the_window_is_accepted(site: Site, offset: int) -> None:
    headers = signed(WEBHOOK, at=int(time.time()) + offset)
    body_of(site.post(data=WEBHOOK, headers=headers), 202)


def test_a_tampered_body_or_id_is_refused(site: Site) -> None:
    headers = signed(WEBHOOK)
    body_of(site.post(data=WEBHOOK + b" ", headers=headers), 401)
    body_of(site.post(data=WEBHOOK, headers={**headers, "webhook-id": "msg_2"}), 401)
    other = signed(WEBHOOK, secret=new_signing_secret())
    body_of(site.post(data=WEBHOOK, headers=other), 401)
    assert not site.sent


def test_secrets_rotate_without_a_refused_webhook() -> None:
    old, new = new_signing_secret(), new_signing_secret()
    site = make_site(SIGNING_SECRETS=[new, old])
    for secret in (old, new):
        headers = signed(WEBHOOK, secret=secret)
        body_of(site.post(data=WEBHOOK, headers=headers), 202)


def test_a_signed_body_over_the_limit_is_refused_unread() -> None:
    site = make_site(SIGNING_SECRETS=SECRET, INLINE_LIMIT=1024)
    raw = b" " * 200_000
    body_of(site.post(data=raw, headers=signed(raw)), 413)


def test_several_apps_in_one_process_keep_their_own_keys() -> None:
    one, other = new_event_key(), new_event_key()
    sites = [make_site(EVENT_KEYS=one), make_site(EVENT_KEYS=other)]
    for site, status in zip(sites, (202, 401), strict=True):
        body_of(site.post(EVENT, headers={"Authorization": f"Bearer {one}"}), status)
    assert [len(site.sent) for site in sites] == [1, 0]
