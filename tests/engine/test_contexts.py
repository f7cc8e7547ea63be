"""Contexts around a body, and the context variables in it."""

from __future__ import annotations

import contextvars
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import current_app
from flask import g

from flask_durable import current_run
from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step

from ..support.harness import Harness
from .bodies import AnyEvent
from .bodies import body_runs
from .bodies import run_body


def test_an_error_at_the_end_of_the_bodys_context_is_the_attempts(
    harness: Harness,
) -> None:
    ends: list[BaseException | None] = []

    @harness.app.teardown_appcontext
    def commit(error: BaseException | None) -> None:
        if "dirty" in g:
            ends.append(error)
            if len(ends) == 1:
                raise RuntimeError("the commit failed")

    def body(event: AnyEvent, step: Step) -> str:
        g.dirty = True
        return "written"

    run = body_runs(harness, body, retries=1)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "written")
    assert ends == [None, None]


def test_the_end_of_a_context_is_told_that_its_body_failed(harness: Harness) -> None:
    told: list[type[t.Any]] = []

    @harness.app.teardown_appcontext
    def commit(error: BaseException | None) -> None:
        if "dirty" in g:
            told.append(type(error))

    def body(event: AnyEvent, step: Step) -> None:
        g.dirty = 1 / 1
        g.dirty /= 0

    body_runs(harness, body)
    assert told == [ZeroDivisionError]


def test_a_context_variable_of_one_run_is_not_set_in_the_next(harness: Harness) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("t", default="none")
    found: list[str] = []

    def body(event: AnyEvent, step: Step) -> None:
        found.append(tenant.get())
        tenant.set(event.data["tenant"])

    harness.durable.function(on="a/b")(body)
    harness.send("a/b", {"tenant": "alpha"})
    harness.send("a/b", {"tenant": "beta"})
    harness.settle()
    assert found == ["none", "none"]


def test_a_context_that_is_copied_in_a_step_stays_in_that_step(
    harness: Harness,
) -> None:
    copied: list[contextvars.Context] = []

    def name() -> str | None:
        return current_run.step and current_run.step.name

    def body(event: AnyEvent, step: Step) -> list[str | None]:
        step.run("first", lambda: copied.append(contextvars.copy_context()))
        step.run("second", lambda: None)
        inside = step.run("third", lambda: copied[0].run(name))
        return [inside, copied[0].run(name), name()]

    assert body_runs(harness, body).result == ["first", "first", None]


def test_what_a_step_sets_of_context_variables_ends_with_it_as_at_a_replay(
    harness: Harness,
) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("t", default="none")
    found: list[str] = []

    def body(event: AnyEvent, step: Step) -> None:
        step.run("load", lambda: tenant.set("alpha") and None)
        found.append(tenant.get())
        step.sleep("nap", "1h")
        found.append(tenant.get())

    body_runs(harness, body)
    assert found == ["none", "none", "none"]


def test_a_step_function_in_a_thread_of_the_body_is_told_of(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    charged: list[int] = []

    @harness.durable.step
    def charge(number: int) -> None:
        charged.append(number)

    def in_pool() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(charge, [1, 2]))

    def of_step(event: AnyEvent, step: Step) -> None:
        step.run("all", in_pool)

    def of_body(event: AnyEvent, step: Step) -> None:
        in_pool()

    charge(0)
    harness.durable.function(on="a/step")(of_step)
    harness.durable.function(on="a/body")(of_body)
    harness.send_and_settle("a/step")
    assert "plainly" not in caplog.text
    harness.send_and_settle("a/body")
    assert caplog.text.count("'charge' was called plainly") == 1
    assert charged.count(1) == 2


def test_each_step_and_the_body_have_contexts_of_their_own(harness: Harness) -> None:
    ended: list[str] = []
    committed_at_end: list[list[str]] = []

    @harness.app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        name = g.get("name")
        if name is not None:
            ended.append(name)
            runs = harness.runs.list()
            steps = harness.runs.get(runs[0].id).steps
            committed_at_end.append([s.name for s in steps])

    def use(name: str) -> bool:
        found = "name" in g
        g.name = name
        assert current_app.name == harness.app.name
        return found

    def body(event: Event[t.Any], step: Step) -> list[bool]:
        found = [use("body"), step.run("one", use, "one"), step.run("two", use, "two")]
        return [*found, g.name != "body"]

    run = run_body(harness, body)

    assert run.result == [False, False, False, False]
    assert ended == ["one", "two", "body"]
    assert committed_at_end[:2] == [[], ["one"]], "a context ends before the commit"


def test_a_context_whose_end_fails_fails_its_step(harness: Harness) -> None:
    failures = ["once"]

    @harness.app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        if g.get("dirty") and failures:
            failures.pop()
            raise OSError("the session could not be given back")

    def soil() -> int:
        g.dirty = True
        return 1

    def body(event: Event[t.Any], step: Step) -> int:
        return step.run("soil", soil)

    run = run_body(harness, body, retries=1)
    assert run.status == RunStatus.SUSPENDED
    harness.advance(60)
    assert harness.runs.get(run.id).result == 1
