"""``step.sleep`` and ``step.sleep_until``."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step

from ...support.harness import Harness
from ..bodies import run_body


def test_sleep_until_a_moment_in_the_past_is_no_sleep(harness: Harness) -> None:
    past = datetime.now(timezone.utc) - timedelta(days=1)

    def body(event: Event[t.Any], step: Step) -> str:
        step.sleep_until("past", past)
        step.sleep("zero", 0)
        return "on"

    run = run_body(harness, body)

    assert (run.status, run.result) == (RunStatus.COMPLETED, "on")
    assert [s.status for s in run.steps] == ["done", "done"]


def test_sleep_until_a_moment_ends_then(harness: Harness) -> None:
    until = datetime.now(timezone.utc) + timedelta(hours=2)

    def body(event: Event[t.Any], step: Step) -> str:
        step.sleep_until("then", until)
        return "on"

    run = run_body(harness, body)
    assert run.due is not None
    assert abs(run.due - until) < timedelta(milliseconds=2)
    harness.advance(7201)
    assert harness.runs.get(run.id).result == "on"


def test_a_sleep_keeps_the_end_it_had_when_the_code_changes(harness: Harness) -> None:
    durations = [3600, 5]

    def body(event: Event[t.Any], step: Step) -> None:
        step.sleep("wait", durations[0])

    run = run_body(harness, body)
    durations.reverse()
    # A caller wakes it early: the sleep goes on to the end that was fixed.
    harness.state.server.client.zadd(
        f"{harness.state.store.keys.root}:timers", {f"wake:{run.id}": 0}
    )
    before = run.due
    client = harness.state.server.client
    tag = harness.state.store.keys.root
    client.hdel(f"{tag}:run:{run.id}", "waiting")
    harness.sweep()
    harness.settle()

    run = harness.runs.get(run.id)
    assert (run.status, run.due) == (RunStatus.SUSPENDED, before)
