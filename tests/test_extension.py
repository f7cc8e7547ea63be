"""The extension object in Flask apps."""

from __future__ import annotations

import gc
import subprocess
import sys
import typing as t
import weakref

import pytest
from flask import Blueprint
from flask import Flask

import flask_durable
from flask_durable import ConfigurationError
from flask_durable import DefinitionError
from flask_durable import Durable
from flask_durable import DurableGroup
from flask_durable import Event
from flask_durable import EventData
from flask_durable import EventError
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.app.health import HealthChecks

from .support.harness import Harness
from .support.servers import free_port
from .support.servers import ValkeyServer


class Paid(EventData, name="shop/paid"):
    amount: int


def new_app(url: str, namespace: str, **config: t.Any) -> Flask:
    app = Flask(f"app_{namespace}")
    app.config.update(
        DURABLE_REDIS_URL=url, DURABLE_NAMESPACE=namespace, DURABLE_FSYNC="off"
    )
    app.config.update(config)
    return app


def test_the_extension_is_found_on_its_app() -> None:
    app = Flask(__name__)
    durable = Durable(app)

    assert app.extensions["durable"] is durable


def test_a_second_extension_on_one_app_is_refused_with_the_fix() -> None:
    app = Flask(__name__)
    Durable(app)

    with pytest.raises(RuntimeError, match="call init_app once"):
        Durable(app)


def test_one_extension_serves_several_apps(valkey: ValkeyServer) -> None:
    durable = Durable()

    @durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        return str(event.data["app"])

    one = Harness(valkey.url, "several1", durable=durable)
    two = Harness(valkey.url, "several2", durable=durable)
    first = one.send("a/b", {"app": "one"})
    second = two.send("a/b", {"app": "two"})
    one.settle()
    two.settle()

    assert one.run_of(first).result == "one"
    assert two.run_of(second).result == "two"
    assert one.runs.of_event(second) == []
    one.close()
    two.close()


def test_init_app_connects_to_nothing() -> None:
    app = new_app(f"redis://127.0.0.1:{free_port()}", "nowhere")
    durable = Durable(app)

    with app.app_context(), pytest.raises(UnavailableError):
        durable.send("a/b")


def test_a_missing_server_is_one_clear_error(tmp_path: t.Any) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    durable = Durable(app)

    with app.app_context(), pytest.raises(ConfigurationError) as caught:
        durable.send("a/b")
    assert "DURABLE_REDIS_URL" in str(caught.value)
    assert "flask durable dev" in str(caught.value)


def test_settings_that_change_after_init_app_are_refused(
    valkey: ValkeyServer,
) -> None:
    app = new_app(valkey.url, "changed")
    durable = Durable(app)
    app.config["DURABLE_LEASE"] = 99

    with app.app_context(), pytest.raises(ConfigurationError, match="DURABLE_LEASE"):
        durable.send("a/b")


def test_outside_an_app_context_the_error_names_the_fix() -> None:
    durable = Durable()

    with pytest.raises(RuntimeError, match="app_context"):
        durable.send("a/b")
    with Flask("other").app_context(), pytest.raises(RuntimeError, match="init_app"):
        durable.send("a/b")


def test_events_are_checked_before_anything_is_sent(harness: Harness) -> None:
    calls: list[int] = []

    @harness.durable.function(on=Paid)
    def work(event: Event[Paid], step: Step) -> None:
        calls.append(event.data.amount)

    with harness.app.app_context():
        send = harness.durable.send
        with pytest.raises(EventError) as caught:
            send("shop/paid", {"amount": "much"})
        assert caught.value.errors[0]["field"] == "data.amount"
        for bad in ("", "no spaces", "durable/function.failed"):
            with pytest.raises(EventError):
                send(bad)
        with pytest.raises(EventError):
            harness.durable.send_many(
                [Paid(amount=1), Event("x/y", {"n": float("nan")})]
            )
    harness.settle()

    assert calls == []


def test_send_many_keeps_the_order_of_its_ids(any_harness: Harness) -> None:
    @any_harness.durable.function(on="n/*")
    def work(event: Event[t.Any], step: Step) -> int:
        return int(event.data["n"])

    events = [Event(f"n/{n}", {"n": n}) for n in range(25)]
    with any_harness.app.app_context():
        ids = any_harness.durable.send_many(events)
    any_harness.settle()

    assert ids == [event.id for event in events]
    assert [any_harness.run_of(id).result for id in ids] == list(range(25))


def test_a_group_brings_functions_steps_and_schemas(harness: Harness) -> None:
    group = DurableGroup("shop", queue="orders", retries=1)

    @group.step
    def price(amount: int) -> int:
        return amount * 100

    @group.function(on=Paid)
    def bill(event: Event[Paid], step: Step) -> int:
        return price(event.data.amount)

    harness.durable.register(group)
    run = harness.send_and_settle(Paid(amount=2))

    assert (run.function, run.queue, run.result) == ("shop.bill", "orders", 200)
    assert run.steps[0].name == "shop.price"
    with pytest.raises(DefinitionError):
        harness.durable.register(group)


def test_debug_mode_says_when_nobody_listens(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.app.debug = True

    @harness.durable.function(on="shop/paid")
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.send("shop/payd")
    harness.send("shop/payd")
    harness.send("shop/paid")

    warnings = [r.getMessage() for r in caplog.records]
    assert len(warnings) == 1
    assert "'shop/paid'" in warnings[0]


def test_the_endpoint_and_a_run_meet_through_the_queue(
    valkey: ValkeyServer, namespace: str
) -> None:
    key = "evk_" + "a" * 43
    harness = Harness(valkey.url, namespace, DURABLE_EVENT_KEYS=key)

    @harness.durable.function(on=Paid)
    def work(event: Event[Paid], step: Step) -> int:
        return event.data.amount

    client = harness.app.test_client()
    body = {"name": "shop/paid", "data": {"amount": 7}}
    refused = client.post("/durable/events", json=body)
    answer = client.post(
        "/durable/events", json=body, headers={"Authorization": f"Bearer {key}"}
    )
    wrong = client.post(
        "/durable/events",
        json={"name": "shop/paid", "data": {}},
        headers={"Authorization": f"Bearer {key}"},
    )
    harness.settle()

    assert (refused.status_code, answer.status_code, wrong.status_code) == (
        401,
        202,
        422,
    )
    assert wrong.json is not None
    assert wrong.json["errors"][0]["field"] == "data.amount"
    assert answer.json is not None
    assert harness.run_of(answer.json["ids"][0]).result == 7
    assert client.get("/durable/healthz").status_code == 200
    assert client.get("/durable/readyz").status_code == 200
    harness.close()


def test_a_prefix_of_none_registers_no_routes(valkey: ValkeyServer) -> None:
    app = new_app(valkey.url, "noroutes", DURABLE_URL_PREFIX=None)
    Durable(app)

    assert [rule.rule for rule in app.url_map.iter_rules()] == [
        "/static/<path:filename>"
    ]


def test_it_lives_beside_the_blueprints_of_an_app(
    valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace)
    pages = Blueprint("pages", __name__)

    @pages.get("/buy")
    def buy() -> str:
        return harness.durable.send(Paid(amount=1))

    harness.app.register_blueprint(pages)

    @harness.durable.function(on=Paid)
    def work(event: Event[Paid], step: Step) -> None: ...

    event_id = harness.app.test_client().get("/buy").get_data(as_text=True)
    harness.settle()

    assert harness.run_of(event_id).status == RunStatus.COMPLETED
    assert harness.app.test_client().get("/nothing").status_code == 404
    harness.close()


def test_health_looks_at_everything_and_shows_no_password(
    harness: Harness, valkey: ValkeyServer
) -> None:
    checks = {check.name: check for check in HealthChecks(harness.state).everything()}

    assert checks["state server"].ok
    assert checks["queue"].ok
    assert "appendfsync everysec" in checks["durability"].detail
    assert not checks["workers"].ok
    assert "flask durable worker" in checks["workers"].detail

    down = new_app(f"redis://user:hidden@127.0.0.1:{free_port()}", "down")
    durable = Durable(down)
    with down.app_context():
        (check,) = durable.health()
    assert not check.ok
    assert "hidden" not in check.detail


def test_the_public_names_are_all_importable_and_documented() -> None:
    aliases = {"Duration", "EventLike"}
    names = [n for n in vars(flask_durable) if n[0].isupper() and n not in aliases]

    assert {"Durable", "Event", "Step", "StepError", "Backoff"} <= set(names)
    for name in names:
        assert getattr(flask_durable, name).__doc__, name


def test_importing_the_package_stays_cheap() -> None:
    code = (
        "import flask_durable, sys; "
        "heavy = {'boto3', 'sentry_sdk', 'statsd', 'dramatiq.cli', 'moto'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert output.stdout.strip() == "[]"


def test_an_extension_does_not_keep_the_apps_of_a_factory() -> None:
    durable = Durable()

    def create_app() -> Flask:
        app = Flask("factory")
        durable.init_app(app)
        return app

    references = [weakref.ref(create_app()) for _ in range(3)]
    gc.collect()

    assert [reference() for reference in references] == [None] * 3
