"""The life of a run: events, steps, suspension, outcomes."""

from __future__ import annotations

import gc
import typing as t
import weakref

import pytest

from flask_durable import Event
from flask_durable import EventData
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError

from ..support.harness import Harness


class Ordered(EventData, name="shop/ordered"):
    amount: int


def test_an_event_becomes_a_finished_run_with_its_result(any_harness: Harness) -> None:
    @any_harness.durable.function(on=Ordered)
    def charge(event: Event[Ordered], step: Step) -> int:
        return step.run("double", lambda: event.data.amount * 2)

    run = any_harness.send_and_settle(Ordered(amount=21))

    assert (run.status, run.result) == (RunStatus.COMPLETED, 42)
    assert [(s.name, s.kind, s.status, s.value) for s in run.steps] == [
        ("double", "run", "done", 42)
    ]


@pytest.mark.parametrize("in_place", [0, 8])
def test_a_committed_step_is_not_run_again_after_a_sleep(
    harness: Harness, in_place: int
) -> None:
    harness.in_place = in_place
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def nap(event: Event[t.Any], step: Step) -> list[str]:
        first = step.run("first", lambda: calls.append("first") or "1")
        step.sleep("rest", "1h")
        second = step.run("second", lambda: calls.append("second") or "2")
        return [first, second]

    run = harness.send_and_settle("a/b")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "sleep")

    harness.advance(3599)
    assert harness.runs.get(run.id).status == RunStatus.SUSPENDED

    harness.advance(2)
    run = harness.runs.get(run.id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, ["1", "2"])
    assert calls == ["first", "second"]


def test_a_failing_step_is_retried_alone_and_then_succeeds(harness: Harness) -> None:
    calls: list[str] = []

    def flaky() -> str:
        calls.append("flaky")
        if calls.count("flaky") < 3:
            raise ValueError("not yet")
        return "ok"

    @harness.durable.function(on="a/b", retries=3)
    def work(event: Event[t.Any], step: Step) -> str:
        step.run("before", lambda: calls.append("before"))
        return step.run("flaky", flaky)

    run = harness.send_and_settle("a/b")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "retry")
    assert run.steps[1].failure is not None
    assert run.steps[1].failure.message == "not yet"
    harness.advance(60)
    harness.advance(60)

    run = harness.runs.get(run.id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "ok")
    assert calls == ["before", "flaky", "flaky", "flaky"]
    assert run.steps[1].attempt == 3


def test_an_exhausted_step_can_be_caught_and_stays_failed(harness: Harness) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise KeyError("gone")

    @harness.durable.function(on="a/b", retries=1)
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("broken", broken)
        except StepError as error:
            step.sleep("pause", 60)
            return f"{error.step} {error.failure.type} {error.failure.attempt}"
        raise AssertionError

    run = harness.send_and_settle("a/b")
    harness.advance(60)
    harness.advance(61)

    run = harness.runs.get(run.id)
    assert run.result == "broken KeyError 2"
    assert len(calls) == 2


def test_an_uncaught_step_error_fails_the_run_at_once(harness: Harness) -> None:
    bodies: list[int] = []

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        bodies.append(1)
        step.run("broken", lambda: 1 / 0)

    run = harness.send_and_settle("a/b")

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert (run.failure.type, run.failure.step) == ("ZeroDivisionError", "broken")
    assert bodies == [1]


def test_a_suspended_attempt_leaves_nothing_for_the_garbage_collector(
    harness: Harness,
) -> None:
    class Large:
        pass

    references: list[weakref.ref[Large]] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        large = Large()
        references.append(weakref.ref(large))
        step.sleep("pause", 60)
        del large

    gc.collect()
    gc.disable()
    try:
        harness.send_and_settle("a/b")
        assert [reference() for reference in references] == [None]
    finally:
        gc.enable()
