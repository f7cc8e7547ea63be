"""Events that do not fit a function that is there."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import EventData
from flask_durable import Failure
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.engine.executor import OTHERS_TURN

from ..support.harness import Harness
from .bodies import AnyEvent


def test_a_run_whose_event_fits_a_release_that_is_there_too_is_left_to_that(
    valkey: t.Any, namespace: str
) -> None:
    class Small(EventData, name="meal/sized"):
        size: t.Literal["small"]

    class Sized(EventData, name="meal/sized"):
        size: t.Literal["small", "large"]

    def deploy(schema: type[EventData]) -> Harness:
        harness = Harness(valkey.url, namespace, in_place=0)

        @harness.durable.function(on=schema, id="fit", retries=0)
        def fit(event: AnyEvent, step: Step) -> str:
            return str(event.data.size)

        harness.start()
        return harness

    old, new = deploy(Small), deploy(Sized)
    event_id = new.send("meal/sized", {"size": "large"})
    new.route()
    assert old.execute() == 1
    run = new.run_of(event_id)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "another release's event")
    new.advance(OTHERS_TURN)
    assert new.run_of(event_id).result == "large"
    for each in (old, new):
        each.close()


def is_gone(old: Harness) -> None:
    """Have all versions of functions that there are so far forgotten."""
    client = old.state.server.client
    seen = f"{old.state.store.keys.tags[0]}:functions:seen"
    client.zadd(seen, dict.fromkeys(client.zrange(seen, 0, -1), 0))
    assert old.state.directory.forget("bill")


@pytest.mark.parametrize("begun", [True, False])
def test_an_event_that_does_not_fit_pauses_a_run_that_has_steps(
    valkey: t.Any, namespace: str, begun: bool
) -> None:
    class Order(EventData, name="order/placed"):
        cents: int

    class StricterOrder(EventData, name="order/placed"):
        cents: int
        currency: str

    told: list[t.Any] = []

    def deploy(schema: type[EventData]) -> Harness:
        harness = Harness(valkey.url, namespace)

        @harness.durable.function(on=schema, id="bill", retries=0)
        def bill(event: AnyEvent, step: Step) -> None:
            if begun:
                step.run("charge", lambda: None)
                step.sleep("wait", "1h")

        @bill.on_failure
        def tell(event: AnyEvent, step: Step, failure: Failure) -> None:
            told.append(event.data)

        return harness

    old = deploy(Order)
    event_id = old.send("order/placed", {"cents": 5})
    old.route()
    if begun:
        old.settle()
    new = deploy(StricterOrder)
    if begun:
        new.advance(4000)
    else:
        is_gone(old)
        new.start()
        new.threads.runs = old.threads.runs
        new.settle()
    run = new.run_of(event_id, "bill")
    if begun:
        assert run.status == RunStatus.PAUSED
        assert "does not fit its model" in run.reason
        assert told == []
    else:
        assert run.status == RunStatus.FAILED
        assert told == [{"cents": 5}]
    old.close()
    new.close()
