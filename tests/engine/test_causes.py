"""Errors with causes, in groups and under the errors of a clean-up."""

from __future__ import annotations

import asyncio

import pytest

from flask_durable import NonRetriable
from flask_durable import RetryAfter
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable.functions.causes import causes_of

from ..support.harness import Harness
from .bodies import AnyEvent
from .bodies import body_runs
from .bodies import raising


def test_do_not_retry_is_seen_in_a_task_group(harness: Harness) -> None:
    calls: list[int] = []

    async def check() -> None:
        calls.append(1)
        raise NonRetriable("no such account")

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(check())

    def body(event: AnyEvent, step: Step) -> None:
        step.run("check", lambda: asyncio.run(main()))

    assert body_runs(harness, body, retries=2).status == RunStatus.FAILED
    assert len(calls) == 1


def test_do_not_retry_is_seen_under_the_error_of_a_clean_up(harness: Harness) -> None:
    calls: list[int] = []

    def charge() -> None:
        calls.append(1)
        try:
            raise NonRetriable("no such account")
        finally:
            raise RuntimeError("the transaction is aborted")

    def body(event: AnyEvent, step: Step) -> None:
        step.run("charge", charge)

    assert body_runs(harness, body, retries=2).status == RunStatus.FAILED
    assert len(calls) == 1


def test_a_class_in_non_retriable_counts_as_a_cause_but_not_as_what_was_handled(
    harness: Harness,
) -> None:
    calls: list[str] = []

    def fallback() -> None:
        calls.append("fallback")
        try:
            raise KeyError("cache")
        except KeyError:
            raise ConnectionError("the store is away")  # noqa: B904

    def wrapped() -> None:
        calls.append("wrapped")
        raise ConnectionError("refused") from KeyError("account")

    def body(event: AnyEvent, step: Step) -> None:
        for name, fn in (("fallback", fallback), ("wrapped", wrapped)):
            with pytest.raises(StepError):
                step.run(name, fn)

    body_runs(harness, body, retries=2, non_retriable=[KeyError])
    assert calls == ["fallback"] * 3 + ["wrapped"]


def test_the_longest_delay_in_a_group_is_waited_for(harness: Harness) -> None:
    def body(event: AnyEvent, step: Step) -> None:
        step.run(
            "limited",
            raising(ExceptionGroup("both", [RetryAfter(5), RetryAfter("2h")])),
        )

    harness.durable.function(on="a/b", retries=1)(body)
    run = harness.send_and_settle("a/b")
    harness.advance(3600)
    assert harness.runs.get(run.id).status == RunStatus.SUSPENDED
    harness.advance(3700)
    assert harness.runs.get(run.id).status == RunStatus.FAILED


def test_a_step_that_failed_is_seen_under_an_error_without_from(
    harness: Harness,
) -> None:
    bodies: list[int] = []
    broken = [True]

    def charge() -> str:
        if broken:
            raise ValueError("the card service is down")
        return "paid"

    def body(event: AnyEvent, step: Step) -> str:
        bodies.append(1)
        try:
            return step.options(retries=0).run("charge", charge)
        except StepError:
            raise LookupError("4711")  # noqa: B904

    run = body_runs(harness, body, retries=1)
    assert (run.status, len(bodies)) == (RunStatus.FAILED, 1)
    broken.clear()
    harness.runs.retry(run.id)
    harness.settle()
    assert harness.runs.get(run.id).result == "paid"


def test_a_chain_of_causes_that_leads_back_is_followed_once() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__context__ = second, first
    assert list(causes_of(first)) == [first, second]
    first.__cause__ = None
    first.__context__, first.__suppress_context__ = second, True
    assert list(causes_of(first)) == [first]
