"""Access to a push worker: who may hand it messages."""

from __future__ import annotations

import json
import typing as t

import pytest
from flask import request
from flask_wtf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse

from flask_durable.security.keys import new_push_secret
from flask_durable.web.push import MAX_MESSAGE_BODY

from ...support.harness import Harness
from ...support.servers import ValkeyServer
from .conftest import end
from .sqsd import AGENT
from .sqsd import PATH

SECRETS = [new_push_secret(), new_push_secret()]

#: Headers of the daemon, and of nginx beside it on an instance of Elastic
#: Beanstalk.
NGINX = {"X-Real-IP": "127.0.0.1", "X-Forwarded-For": "127.0.0.1"}

STRANGER = "203.0.113.5"

Open = t.Callable[..., Harness]


@pytest.fixture
def opened(valkey: ValkeyServer, namespace: str) -> t.Iterator[Open]:
    """Makes an app with settings."""
    made: list[Harness] = []

    def make(**settings: t.Any) -> Harness:
        given = {f"DURABLE_PUSH_{key}": value for key, value in settings.items()}
        made.append(Harness(valkey.url, namespace, **given))
        return made[-1]

    yield make
    for harness in made:
        end(harness)


def post(
    harness: Harness,
    headers: t.Mapping[str, str | None] | None = None,
    *,
    peer: str = "127.0.0.1",
    host: str = "localhost",
    path: str = PATH,
    protocol: str = "HTTP/1.1",
    **given: t.Any,
) -> TestResponse:
    """Ask for a tick; a header that is ``None`` is left out."""
    sent = {
        **AGENT,
        "X-Aws-Sqsd-Msgid": "task-1",
        "X-Aws-Sqsd-Taskname": "tick",
        "Host": host,
        **(headers or {}),
    }
    return harness.app.test_client().post(
        path,
        headers={name: value for name, value in sent.items() if value is not None},
        data=given.pop("data", b"elasticbeanstalk scheduled job"),
        environ_overrides={"REMOTE_ADDR": peer, "SERVER_PROTOCOL": protocol},
        **given,
    )


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def error_of(response: TestResponse) -> str:
    assert response.mimetype == "application/json"
    return str(json.loads(response.text)["code"])


def test_without_a_setting_the_route_is_closed(opened: Open) -> None:
    response = post(opened())
    assert (response.status_code, error_of(response)) == (403, "forbidden")
    assert "DURABLE_PUSH_LOOPBACK" in response.text


def test_each_of_the_secrets_opens_it_for_anybody(opened: Open) -> None:
    harness = opened(SECRETS=SECRETS)
    for secret in SECRETS:
        response = post(harness, bearer(secret), peer=STRANGER, host="app.example")
        assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer(new_push_secret()),
        bearer(SECRETS[0][:-1]),
        {"Authorization": f"Basic {SECRETS[0]}"},
        {"Authorization": SECRETS[0]},
        {"X-Aws-Sqsd-Msgid": SECRETS[0]},
    ],
)
def test_another_secret_does_not(opened: Open, headers: dict[str, str]) -> None:
    response = post(opened(SECRETS=SECRETS), headers)
    assert (response.status_code, error_of(response)) == (401, "unauthorized")
    assert SECRETS[0] not in response.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:80", "[::1]"])
@pytest.mark.parametrize("headers", [{}, NGINX, {"X-Forwarded-For": "127.0.0.1, ::1"}])
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_the_daemon_of_the_same_machine_needs_none(
    opened: Open, host: str, headers: dict[str, str], peer: str
) -> None:
    harness = opened(LOOPBACK=True)
    assert post(harness, headers, peer=peer, host=host).status_code == 200


@pytest.mark.parametrize(
    ("peer", "host", "headers"),
    [
        # Directly.
        (STRANGER, "localhost", {}),
        (STRANGER, "localhost", NGINX),
        ("", "localhost", {}),
        # Through nginx on this machine, which adds the caller.
        ("127.0.0.1", "localhost", {"X-Forwarded-For": STRANGER}),
        ("127.0.0.1", "localhost", {"X-Forwarded-For": f"127.0.0.1, {STRANGER}"}),
        ("127.0.0.1", "localhost", {"X-Forwarded-For": f"{STRANGER}, 127.0.0.1"}),
        ("127.0.0.1", "localhost", {"X-Forwarded-For": "unknown"}),
        ("127.0.0.1", "localhost", {"X-Forwarded-For": ""}),
        ("127.0.0.1", "localhost", {"X-Real-IP": STRANGER}),
        ("127.0.0.1", "localhost", {**NGINX, "X-Real-IP": STRANGER}),
        ("127.0.0.1", "localhost", {"Forwarded": f"for={STRANGER}"}),
        ("127.0.0.1", "localhost", {"Via": "1.1 proxy"}),
        # Through one that adds nothing, or a page whose name leads here.
        ("127.0.0.1", "app.example", {}),
        ("127.0.0.1", "localhost.app.example", {}),
        # Through one that adds nothing and says that it is asked itself: so nothing
        # is left to tell but who the caller says that he is.
        ("127.0.0.1", "localhost", {"User-Agent": "curl/8.5.0"}),
        ("127.0.0.1", "localhost", {"User-Agent": ""}),
        ("127.0.0.1", "localhost", {"X-Aws-Sqsd-Msgid": None}),
    ],
)
def test_who_is_not_on_the_same_machine_does(
    opened: Open, peer: str, host: str, headers: dict[str, str | None]
) -> None:
    response = post(opened(LOOPBACK=True), headers, peer=peer, host=host)
    assert (response.status_code, error_of(response)) == (403, "forbidden")


def test_a_proxy_that_was_told_nothing_but_where_to_makes_nobody_local(
    opened: Open,
) -> None:
    # As nginx passes it on by default, whatever the caller writes.
    response = post(opened(LOOPBACK=True), protocol="HTTP/1.0")
    assert (response.status_code, error_of(response)) == (403, "forbidden")


def test_a_secret_in_the_path_opens_it_where_no_header_can_be_sent(
    opened: Open,
) -> None:
    harness = opened(SECRETS=SECRETS, LOOPBACK=True)
    for secret in SECRETS:
        path = f"{PATH}/{secret}"
        response = post(harness, peer=STRANGER, host="app.example", path=path)
        assert response.status_code == 200
    # Another one is wrong, from any client.
    for secret in (new_push_secret(), SECRETS[0][:-1]):
        response = post(harness, bearer(SECRETS[0]), path=f"{PATH}/{secret}")
        assert (response.status_code, error_of(response)) == (401, "unauthorized")
        assert secret not in response.text


@pytest.mark.parametrize("named", ["127.0.0.1", f"{STRANGER}, 127.0.0.1"])
def test_proxy_fix_makes_nobody_local(opened: Open, named: str) -> None:
    harness = opened(LOOPBACK=True)
    app = harness.app
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_host=1)  # type: ignore[method-assign]
    forged = {"X-Forwarded-For": named, "X-Forwarded-Host": "localhost"}
    for peer, host in ((STRANGER, "localhost"), ("127.0.0.1", "app.example")):
        assert post(harness, forged, peer=peer, host=host).status_code == 403
    # And the daemon is local all the same.
    assert post(harness, NGINX).status_code == 200


def test_a_web_page_cannot_make_the_browser_of_the_machine_send_messages(
    opened: Open,
) -> None:
    response = post(opened(LOOPBACK=True), {"Content-Type": "text/plain"})
    assert (response.status_code, error_of(response)) == (415, "unsupported_type")


def test_a_check_for_cookies_of_the_app_is_not_for_the_daemon(opened: Open) -> None:
    harness = opened(LOOPBACK=True)
    harness.app.config["SECRET_KEY"] = "x"
    harness.app.config["WTF_CSRF_CHECK_DEFAULT"] = True
    CSRFProtect(harness.app)
    assert post(harness).status_code == 200


def test_other_methods_and_bodies_that_are_too_large_are_answered(opened: Open) -> None:
    harness = opened(LOOPBACK=True)
    response = harness.app.test_client().get(PATH)
    assert (response.status_code, error_of(response)) == (405, "method_not_allowed")
    response = post(
        harness, {"X-Aws-Sqsd-Taskname": ""}, data=b"x" * (MAX_MESSAGE_BODY + 1)
    )
    assert (response.status_code, error_of(response)) == (413, "too_large")


@pytest.mark.parametrize("how", ["whole", "part"])
def test_a_message_that_a_hook_has_read_before_is_to_be_delivered_again(
    opened: Open, how: str
) -> None:
    harness = opened(LOOPBACK=True)

    @harness.app.before_request
    def read() -> None:
        if how == "whole":
            request.get_data(cache=False)
        else:
            request.stream.read(5)

    headers = {"X-Aws-Sqsd-Taskname": None}
    response = post(harness, headers, data=b'{"v":1,"kind":"event"}')
    assert (response.status_code, error_of(response)) == (503, "unavailable")
    assert harness.state.transport.counts("events").dead == 0


def test_a_message_that_a_hook_has_read_and_kept_is_served(opened: Open) -> None:
    harness = opened(LOOPBACK=True)
    harness.app.before_request(lambda: request.get_data() and None)
    assert post(harness, {"X-Aws-Sqsd-Taskname": None}, data=b"x").status_code == 200
    assert harness.state.transport.counts("events").dead == 1


@pytest.mark.parametrize("count", ["", "-1", "many", "9" * 99, "²"])
def test_headers_that_mean_nothing_are_not_believed(opened: Open, count: str) -> None:
    harness = opened(LOOPBACK=True)
    headers = {"X-Aws-Sqsd-Taskname": "", "X-Aws-Sqsd-Receive-Count": count}
    assert post(harness, headers, data=b"poison").status_code == 200
    assert harness.state.transport.counts("events").dead == 1
