"""An app with Sentry, for tests with real processes.

``TEST_DSN`` is the address of its reports; without it Sentry is not even imported.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
import typing as t

from flask import Flask

from flask_durable import Backoff
from flask_durable import Cron
from flask_durable import current_run
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Failure
from flask_durable import Step
from flask_durable import StepError

if "TEST_DSN" in os.environ:
    import sentry_sdk
    from sentry_sdk.integrations.dramatiq import DramatiqIntegration

    sentry_sdk.init(
        os.environ["TEST_DSN"],
        integrations=[DramatiqIntegration()] if "TEST_DRAMATIQ" in os.environ else [],
        **{
            "traces_sample_rate": 1.0,
            **json.loads(os.environ.get("TEST_OPTIONS", "{}")),
        },
    )

durable = Durable()


def create_app() -> Flask:
    app = Flask("work")

    @app.post("/send/<path:name>/<id>")
    def send(name: str, id: str) -> str:
        data = {"password": "hunter2", "folder": f"{os.environ['TEST_TRACE']}.{id}"}
        return durable.send(name, data, id=id)

    durable.init_app(app)
    return app


@durable.function(on="test/complete")
def complete(event: Event[t.Any], step: Step) -> bool:
    step.run("one", str)
    step.send_event("tell", Event("test/child", {}))
    return "sentry_sdk" in sys.modules


@durable.function(on="test/child")
def child(event: Event[t.Any], step: Step) -> None:
    step.run("play", str)


@durable.function(on="test/sleep")
def sleep(event: Event[t.Any], step: Step) -> None:
    step.run("before", str)
    step.sleep("nap", "30d")
    step.run("after", str)


@durable.function(on="test/spread", retries=0)
def spread(event: Event[t.Any], step: Step) -> list[t.Any]:
    return step.map("parts", part, [0, 1], tolerate=1)


def part(item: int, step: Step) -> t.Any:
    return step.run("divide", lambda: 1 / item)


@durable.function(on="test/retry", backoff=Backoff("1h"))
def retry(event: Event[t.Any], step: Step) -> None:
    step.run("flaky", flaky)


def flaky() -> None:
    if current_run.step and current_run.step.attempt == 1:
        current_run.step.checkpoint("half")
        raise OSError("not now")


@durable.function(on="test/fail", retries=1, backoff=Backoff("1h"))
def fail(event: Event[t.Any], step: Step) -> None:
    step.run("charge", charge, event)


def charge(event: Event[t.Any]) -> None:
    card = {"api_key": event.data["password"], "name": "visible"}
    raise PermissionError("the card is refused" if card else "")


@fail.on_failure
def after(event: Event[t.Any], step: Step, failure: Failure) -> None:
    step.run("apologise", str)


@durable.function(on="durable/function.failed")
def listen(event: Event[t.Any], step: Step) -> None: ...


@durable.function(on="test/caught")
def caught(event: Event[t.Any], step: Step) -> None:
    try:
        step.options(retries=0).run("charge", charge, event)
    except Exception:
        step.run("apologise", str)


@durable.function(on="test/body", retries=1, backoff=Backoff("1h"))
def body(event: Event[t.Any], step: Step) -> None:
    raise LookupError("its own")


@durable.function(on="test/twice")
def twice(event: Event[t.Any], step: Step) -> None: ...


@durable.function(on="test/late")
def late(event: Event[t.Any], step: Step) -> None:
    try:
        step.options(retries=0).run("charge", charge, event)
    except StepError as error:
        failed = error
    step.sleep("nap", "1h")
    raise failed


SCHEDULES = (
    Cron("30 4 1 1 *", timezone="Europe/Berlin"),
    Cron("0 6 1 1 *", jitter="10m"),
)


@durable.function(on=SCHEDULES, timeout="60d")
def yearly_report(event: Event[t.Any], step: Step) -> None:
    step.run("before", str)
    step.send_event("tell", Event("test/child", {}))
    step.sleep("nap", "30d")
    step.options(backoff=Backoff("1h")).run("flaky", flaky)


@durable.function(on=Cron("15 5 1 1 *"), retries=0)
def broken_report(event: Event[t.Any], step: Step) -> None:
    raise LookupError("its own")


@durable.function(on="test/hang")
def hang(event: Event[t.Any], step: Step) -> None:
    step.run("hang", wait, event.data["folder"])


def wait(folder: str) -> None:
    with pathlib.Path(f"{folder}.begun").open("a") as begun:
        begun.write(f"{os.getpid()}\n")
    while not pathlib.Path(f"{folder}.go").exists():
        time.sleep(0.05)
