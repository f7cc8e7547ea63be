"""Runs that wait, invoke and fan out, on hosts where nothing runs between two calls."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step

from ...support.harness import Harness
from ...support.servers import SQSServer
from .sqsd import Daemon
from .test_lambda import Context
from .test_lambda import Mapping
from .test_lambda import schedule

TIME = "2026-11-25T10:00:00Z"


class Host(t.NamedTuple):
    """The caller of an app: it delivers messages, and does what is due."""

    drain: t.Callable[[], object]
    tick: t.Callable[[], object]


@pytest.fixture(params=["sqsd", "lambda"])
def host(
    request: pytest.FixtureRequest, pushed: Harness, daemon: Daemon, sqs: SQSServer
) -> Host:
    if request.param == "sqsd":
        return Host(daemon.drain, lambda: daemon.task("tick", TIME))
    tick = schedule("every-minute", TIME)
    handler = pushed.durable.lambda_handler
    return Host(Mapping(pushed, sqs).drain, lambda: handler(tick, Context()))


def test_waits_children_and_branches_need_no_worker(
    pushed: Harness, host: Host
) -> None:
    durable = pushed.durable
    seen: list[str] = []

    def note(item: str) -> str:
        seen.append(item)
        return item.upper()

    def nap(step: Step) -> str:
        step.sleep("nap", "1h")
        return step.run("wake", note, "woken")

    @durable.function(on=None)
    def child(event: Event[t.Any], step: Step) -> str:
        return step.run("child", note, event.data["word"])

    @durable.function(on="work/asked", awaits=["work/granted"])
    def parent(event: Event[t.Any], step: Step) -> list[t.Any]:
        granted = step.wait_for_event("granted", "work/granted", timeout="1d")
        told = step.wait_for_signal("told", "call", timeout="1d")
        invoked = step.invoke("invoked", child, {"word": "child"})
        parts = step.map("parts", note, ["a", "b", "c"], limit=2)
        both = step.parallel("both", nap=nap, quick=lambda step: "quick")
        late = step.wait_for_event("late", "work/granted", timeout="1h")
        return [granted and granted.data, told, invoked, parts, both, late]

    @durable.function(on="work/granted")
    def teller(event: Event[t.Any], step: Step) -> None:
        run = event.data["run"]
        step.run("tell", lambda: durable.signal(run, "call", "go", id="go"))

    id = pushed.send("work/asked", {})
    host.drain()
    run = pushed.run_of(id).id
    pushed.send("work/granted", {"run": run})
    for _ in range(3):
        host.drain()
        pushed.move_clock(3601)
        host.tick()
    host.drain()

    ended = pushed.runs.get(run)
    assert ended.status == RunStatus.COMPLETED, (ended.reason, ended.failure)
    assert ended.result == [
        {"run": run},
        "go",
        "CHILD",
        ["A", "B", "C"],
        {"nap": "WOKEN", "quick": "quick"},
        None,
    ]
    assert sorted(seen) == ["a", "b", "c", "child", "woken"]
