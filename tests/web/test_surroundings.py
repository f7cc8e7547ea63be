"""Our routes among the app's rules for hosts, its hooks and its handlers."""

from __future__ import annotations

import gc
import typing as t
import weakref
from pathlib import Path

import pytest
from flask import abort
from flask import Flask
from flask import redirect
from flask import request
from flask import Response
from flask.typing import ResponseReturnValue

from flask_durable import Durable
from flask_durable.app import state as app_state
from flask_durable.security.keys import new_event_key
from flask_durable.security.keys import new_push_secret

from ..support.servers import ValkeyServer

# Werkzeug says that a host is not the app's.
pytestmark = pytest.mark.filterwarnings("ignore:Current server name:UserWarning")

KEY = new_event_key()
PUSH = new_push_secret()
BEARER = {"Authorization": f"Bearer {KEY}"}
DAEMON = {"User-Agent": "aws-sqsd/3.0", "X-Aws-Sqsd-Msgid": "task"}

#: Ways of an app to keep requests off that are not to its own name.
HOST_RULES: dict[str, tuple[dict[str, t.Any], dict[str, t.Any]]] = {
    "trusted hosts": ({}, {"TRUSTED_HOSTS": ["shop.example"]}),
    "host matching": ({"host_matching": True, "static_host": "shop.example"}, {}),
    "subdomains": ({"subdomain_matching": True}, {"SERVER_NAME": "shop.example"}),
}


def make_app(
    valkey: ValkeyServer, namespace: str, config: t.Any = (), **options: t.Any
) -> Flask:
    app = Flask("shop", **options)
    app.config.update(
        DURABLE_REDIS_URL=valkey.url,
        DURABLE_NAMESPACE=namespace,
        DURABLE_EVENT_KEYS=KEY,
        DURABLE_PUSH_LOOPBACK=True,
        DURABLE_PUSH_SECRETS=PUSH,
        DURABLE_INNGEST_EVENT_API=True,
        **dict(config),
    )
    Durable(app)
    return app


@pytest.fixture
def app(valkey: ValkeyServer, namespace: str) -> Flask:
    return make_app(valkey, namespace)


@pytest.fixture(autouse=True)
def push_workers_end() -> t.Iterator[None]:
    """End the threads that a tick starts: they would go on beside other tests."""
    yield
    for state in list(app_state._states):
        holder = vars(state).get("push_worker")
        if holder is not None and (worker := holder.pop()) is not None:
            worker.stop()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [r for r in caplog.records if r.name.endswith(".surroundings")]
    return [record.getMessage() for record in records]


@pytest.mark.parametrize("path", ["/durable/events", "/e/<key>"])
def test_an_app_without_a_state_server_asks_for_the_event_again(
    path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(DURABLE_EVENT_KEYS=KEY, DURABLE_INNGEST_EVENT_API=True)
    Durable(app)

    event = {"name": "a/b", "data": {}}
    answer = app.test_client().post(
        path.replace("<key>", KEY), json=event, headers=BEARER
    )

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "DURABLE_REDIS_URL" not in answer.text
    assert "There is no DURABLE_REDIS_URL" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("rule", HOST_RULES)
@pytest.mark.parametrize("host", ["10.0.0.5", "localhost:5000", "shop.example"])
def test_our_routes_answer_whatever_host_is_asked_for(
    valkey: ValkeyServer, namespace: str, rule: str, host: str
) -> None:
    options, config = HOST_RULES[rule]
    app = make_app(valkey, namespace, config, **options)
    blueprints = []

    @app.before_request
    def look() -> None:
        blueprints.append(request.blueprint)

    @app.route("/", host="shop.example" if app.url_map.host_matching else None)
    def index() -> str:
        return "theirs"

    client, headers = app.test_client(), {"Host": host}
    for path in ("healthz", "readyz"):
        assert client.get(f"/durable/{path}", headers=headers).status_code == 200
    event = {"name": "order/placed"}
    for path, status in ((f"/e/{KEY}", 200), ("/durable/events", 202)):
        answer = client.post(path, json=event, headers=headers | BEARER)
        assert answer.status_code == status, answer.text
    assert client.get("/durable/answers.css", headers=headers).status_code == 200
    answer = client.post("/durable/answers/unknown", json={}, headers=headers)
    assert (answer.status_code, answer.json and answer.json["code"]) == (
        404,
        "not_found",
    )
    tick = headers | {"X-Aws-Sqsd-Taskname": "tick"}
    answer = client.post(f"/durable/worker/{PUSH}", json={}, headers=tick)
    assert answer.status_code == 200
    answer = client.post("/durable/worker", json={}, headers=tick | DAEMON)
    # Only this machine's own name is asked of a daemon without a secret.
    assert answer.status_code == (200 if host.startswith("localhost") else 401)
    # Hooks see whose route it is, as for any other request.
    assert set(blueprints) == {"durable", "durable_inngest"}
    # The application's own pages have its rules.
    theirs = client.get("/", headers=headers)
    assert (theirs.status_code == 200) == (host == "shop.example")


@pytest.mark.parametrize(
    "path",
    [f"/e/{KEY}", f"/durable/worker/{PUSH}", f"/durable/answers/{PUSH}"],
    ids=["key", "secret", "address"],
)
@pytest.mark.parametrize("kind", ["before_request", "after_request"])
def test_a_hook_that_raises_has_no_key_logged(
    app: Flask, caplog: pytest.LogCaptureFixture, path: str, kind: str
) -> None:
    seen = []

    def fail(*args: object) -> t.Any:
        seen.append(request.path)
        raise RuntimeError("out of order")

    getattr(app, kind)(fail)
    tick = {"X-Aws-Sqsd-Taskname": "tick"}
    answer = app.test_client().post(path, json={"name": "a/b"}, headers=tick)
    assert answer.status_code == 500
    assert "out of order" in caplog.text
    for secret in (KEY, PUSH):
        assert secret not in caplog.text
    start, _, end = seen[0].rpartition("/")
    assert path.startswith(start)
    assert end.startswith("<")


@pytest.mark.parametrize("rule", HOST_RULES)
def test_what_is_no_route_of_ours_stays_none(
    valkey: ValkeyServer, namespace: str, rule: str
) -> None:
    options, config = HOST_RULES[rule]
    app = make_app(valkey, namespace, config, **options)
    client = app.test_client()
    for method, path in (("GET", "/durable/nothing"), ("DELETE", "/durable/healthz")):
        answer = client.open(path, method=method, headers={"Host": "10.0.0.5"})
        assert 400 <= answer.status_code < 500
        assert answer.is_json


def test_a_hook_that_answers_in_the_place_of_a_route_is_named_once(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def need_login() -> ResponseReturnValue:
        return redirect("/login")

    app.before_request(need_login)
    client = app.test_client()
    for _ in range(3):
        assert client.get("/durable/healthz").status_code == 302
    (text,) = warnings(caplog)
    assert "durable.healthz was answered with 302 FOUND" in text
    assert "before_request hook" in text
    assert "need_login)" in text
    assert "request.blueprint is 'durable'" in text
    client.post(f"/e/{KEY}", json={})
    (_, inngest) = warnings(caplog)
    assert "'durable_inngest'" in inngest
    assert KEY not in caplog.text


def test_a_hook_that_refuses_is_named_as_well(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.before_request(lambda: abort(429))
    answer = app.test_client().get("/durable/readyz")
    assert answer.status_code == 429
    assert answer.is_json
    (text,) = warnings(caplog)
    assert "429" in text


def test_a_hook_that_changes_an_answer_is_told_of(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    @app.after_request
    def to_login(response: Response) -> Response:
        if response.status_code == 401:
            response.status_code = 302
        response.headers["X-Served-By"] = "shop"
        return response

    client = app.test_client()
    assert client.get("/durable/healthz").status_code == 200
    assert client.post("/durable/events", json={}).status_code == 302
    (text,) = warnings(caplog)
    assert "durable.events was changed by the app from 401 to 302" in text
    assert "after_request" in text


def test_nothing_is_said_of_hooks_that_leave_our_routes_alone(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    @app.before_request
    def need_login() -> ResponseReturnValue | None:
        ours = request.blueprint in ("durable", "durable_inngest")
        return None if ours else redirect("/login")

    client = app.test_client()
    assert client.get("/durable/healthz").status_code == 200
    assert client.head("/durable/healthz").status_code == 200
    assert client.options("/durable/healthz").status_code == 200
    assert client.get("/durable/events").status_code == 405
    assert client.get("/durable/nothing").status_code == 404
    assert client.post("/durable/events", json={}).status_code == 401
    assert client.get("/theirs").status_code == 302
    assert warnings(caplog) == []


@pytest.mark.parametrize("status", [401, 404, 405, 413, 500])
def test_handlers_of_the_app_do_not_make_pages_of_our_errors(
    app: Flask, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    app.register_error_handler(status, lambda error: ("<p>page</p>", 200))
    app.register_error_handler(Exception, lambda error: ("<p>page</p>", 200))
    client = app.test_client()
    big = {"data": b" " * (11 * 2**20), "content_type": "application/json"}
    answers = {
        401: lambda: client.post("/durable/events", json={}),
        404: lambda: client.get("/durable/nothing"),
        405: lambda: client.get("/durable/events"),
        413: lambda: client.post("/durable/events", headers=BEARER, **big),
        500: lambda: client.post("/e/wrong", json={}),
    }
    answer = answers[status]()
    assert answer.is_json
    assert answer.status_code == (401 if status == 500 else status)


@pytest.mark.parametrize("path", ["/durable/worker/{push}", "/e/{key}"])
def test_a_hook_that_crashes_is_answered_without_the_secret_of_the_path_in_the_log(
    app: Flask, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    def crash() -> None:
        raise LookupError("no database")

    app.before_request(crash)
    answer = app.test_client().post(path.format(push=PUSH, key=KEY), json={})
    assert answer.status_code == 500
    assert answer.is_json
    assert "no database" in caplog.text
    assert PUSH not in caplog.text
    assert KEY not in caplog.text


def test_an_app_that_is_gone_is_not_kept(valkey: ValkeyServer, namespace: str) -> None:
    app = make_app(valkey, namespace, HOST_RULES["trusted hosts"][1])
    assert app.test_client().get("/durable/healthz").status_code == 200
    there = weakref.ref(app)
    del app
    gc.collect()
    assert there() is None
