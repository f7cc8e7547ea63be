"""Steps that may have had their effect, and are retried only by name."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import Run
from flask_durable import RunStateError
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable.engine.control import Signal
from flask_durable.messages import RunMessage

from ..support.harness import Harness
from .bodies import AnyEvent
from .bodies import body_runs


class PowerCut(Signal):
    """As if the process had died: nothing more is written."""


def interrupted_run(harness: Harness, calls: list[int]) -> Run:
    """Return a run that failed since its step was begun and left no outcome."""

    def launch() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not ready")
        if len(calls) == 2:
            raise PowerCut
        return "launched"

    def body(event: AnyEvent, step: Step) -> str:
        return step.options(at_most_once=True, retries=1).run("launch", launch)

    harness.durable.function(on="a/b", id="work")(body)
    run = harness.send_and_settle("a/b")
    harness.advance(3600)
    harness.expire_leases()
    harness.settle()
    return t.cast(Run, harness.runs.get(run.id))


def test_a_step_that_may_have_had_its_effect_is_retried_only_by_name(
    harness: Harness,
) -> None:
    calls: list[int] = []
    run = interrupted_run(harness, calls)
    assert (run.status, run.reason) == (RunStatus.FAILED, "outcome unknown")
    assert run.failure is not None
    assert (run.failure.type, run.failure.attempt) == ("StepInterrupted", 2)

    with pytest.raises(RunStateError, match=r"may have had its effect.*--step launch"):
        harness.runs.retry(run.id)
    with pytest.raises(RunStateError, match="no failed step 'lunch'"):
        harness.runs.retry(run.id, steps=["launch", "lunch"])
    harness.settle()
    assert len(calls) == 2

    harness.runs.retry(run.id, steps=["launch"])
    harness.settle()
    assert harness.runs.get(run.id).result == "launched"


def test_a_dead_letter_does_not_retry_what_may_have_had_its_effect(
    harness: Harness,
) -> None:
    calls: list[int] = []
    run = interrupted_run(harness, calls)
    harness.executor.claim(RunMessage(run=run.id, function="work", queued=0, failed=0))
    assert harness.runs.get(run.id).status == RunStatus.FAILED


def test_a_failed_step_that_was_caught_is_retried_by_name_alone(
    harness: Harness,
) -> None:
    calls: list[str] = []

    def failing(name: str) -> str:
        calls.append(name)
        if calls.count(name) == 1:
            raise ValueError(name)
        return name

    def body(event: AnyEvent, step: Step) -> list[str]:
        found = []
        for name in ("first", "second"):
            try:
                found.append(step.run(name, failing, name))
            except StepError:
                found.append("none")
        if len(calls) == 2:
            raise LookupError
        return found

    run = body_runs(harness, body)
    harness.runs.retry(run.id, steps=["first"])
    harness.settle()
    assert harness.runs.get(run.id).result == ["first", "none"]
    with pytest.raises(RunStateError, match="is completed"):
        harness.runs.retry(run.id, steps=["second"])
