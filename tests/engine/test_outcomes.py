"""Runs end, are stopped, and are started again."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import timezone

import pytest

from flask_durable import current_run
from flask_durable import Event
from flask_durable import Failure
from flask_durable import FunctionFailed
from flask_durable import NonRetriable
from flask_durable import RunNotFound
from flask_durable import RunStateError
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError

from ..support.harness import Harness


def test_an_error_in_the_body_is_retried_under_the_functions_policy(
    harness: Harness,
) -> None:
    attempts: list[int] = []

    @harness.durable.function(on="a/b", retries=2)
    def work(event: Event[t.Any], step: Step) -> str:
        step.run("once", lambda: None)
        attempts.append(current_run.attempt)
        if len(attempts) < 3:
            raise RuntimeError("flaky body")
        return "ok"

    run = harness.send_and_settle("a/b")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "retry")
    harness.advance(60)
    harness.advance(60)

    assert harness.runs.get(run.id).result == "ok"
    assert attempts == [1, 2, 3]


def test_a_body_that_keeps_failing_fails_the_run(harness: Harness) -> None:
    bodies: list[int] = []

    @harness.durable.function(on="a/b", retries=1)
    def work(event: Event[t.Any], step: Step) -> None:
        bodies.append(1)
        raise RuntimeError("always")

    run = harness.send_and_settle("a/b")
    harness.advance(60)
    harness.advance(3600)

    run = harness.runs.get(run.id)
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert (run.failure.message, run.failure.attempt) == ("always", 2)
    assert len(bodies) == 2


def test_body_attempts_start_again_after_progress(harness: Harness) -> None:
    bodies: list[int] = []

    @harness.durable.function(on="a/b", retries=1)
    def work(event: Event[t.Any], step: Step) -> str:
        bodies.append(1)
        if len(bodies) == 1:
            raise RuntimeError("first part")
        step.run("progress", lambda: None)
        if len(bodies) == 2:
            raise RuntimeError("second part")
        return "ok"

    run = harness.send_and_settle("a/b")
    harness.advance(60)
    harness.advance(60)

    assert harness.runs.get(run.id).result == "ok"


def test_the_failure_handler_runs_once_with_steps_of_its_own(
    any_harness: Harness,
) -> None:
    seen: list[tuple[t.Any, ...]] = []

    @any_harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("broken", lambda: 1 / 0)

    @work.on_failure
    def report(event: Event[t.Any], step: Step, failure: Failure) -> None:
        step.run("tell", lambda: seen.append((event.id, failure.type, failure.step)))

    event_id = any_harness.send("a/b")
    any_harness.settle()
    any_harness.settle()

    assert seen == [(event_id, "ZeroDivisionError", "broken")]
    (failed,) = any_harness.runs.list(status="failed")
    (handled,) = any_harness.runs.list(status="completed")
    assert (failed.function, handled.function) == ("work", "work/on_failure")


def test_a_failure_is_told_to_those_who_listen_and_only_once(harness: Harness) -> None:
    heard: list[FunctionFailed] = []

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        raise NonRetriable("no")

    @harness.durable.function(on=FunctionFailed, retries=0)
    def listen(event: Event[FunctionFailed], step: Step) -> None:
        heard.append(event.data)
        raise NonRetriable("a listener's own failure starts nothing")

    @harness.durable.function(on="*")
    def everything(event: Event[t.Any], step: Step) -> None:
        assert not event.name.startswith("durable/")

    event_id = harness.send("a/b", {"k": "v"})
    harness.settle()
    harness.sweep()
    harness.settle()

    (data,) = heard
    assert (data.function_id, data.status) == ("work", "failed")
    assert data.event["id"] == event_id
    assert data.failure is not None
    assert data.failure["message"] == "no"


def test_cancelling_ends_a_suspended_run_for_good(harness: Harness) -> None:
    calls: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("wait", "1h")
        step.run("after", lambda: calls.append(1))

    run = harness.send_and_settle("a/b")
    cancelled = harness.runs.cancel(run.id, "changed my mind")
    harness.advance(7200)

    assert (cancelled.status, cancelled.reason) == (
        RunStatus.CANCELLED,
        "changed my mind",
    )
    assert harness.runs.get(run.id).status == RunStatus.CANCELLED
    assert calls == []
    assert harness.runs.cancel(run.id).reason == "changed my mind"


def test_cancelling_refuses_what_a_running_step_returns(harness: Harness) -> None:
    asked: list[bool] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        def stop_it() -> str:
            harness.runs.cancel(current_run.id)
            harness.leases.renew()
            asked.append(current_run.cancel_requested)
            return "late"

        step.run("during", stop_it)
        asked.append(False)

    run = harness.send_and_settle("a/b")

    assert run.status == RunStatus.CANCELLED
    assert run.steps == ()
    assert asked == [True]


def test_a_run_that_takes_too_long_is_cancelled(harness: Harness) -> None:
    @harness.durable.function(on="a/b", timeout="10m")
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("wait", "1h")

    run = harness.send_and_settle("a/b")
    harness.advance(599)
    assert harness.runs.get(run.id).status == RunStatus.SUSPENDED
    harness.advance(2)

    run = harness.runs.get(run.id)
    assert (run.status, run.reason) == (RunStatus.CANCELLED, "timeout")


def test_a_run_that_does_not_start_in_time_is_cancelled(harness: Harness) -> None:
    harness.in_place = 0

    @harness.durable.function(on="a/b", start_timeout="5m")
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("wait", "1h")

    started = harness.send("a/b")
    harness.settle()
    waiting = harness.send("a/b")
    harness.route()
    harness.move_clock(301)
    harness.sweep()

    assert harness.run_of(waiting).status == RunStatus.CANCELLED
    assert harness.run_of(started).status == RunStatus.SUSPENDED


def test_a_timer_of_another_release_keeps_no_other_from_its_end(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b", timeout="5m")
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("wait", "1h")

    run = harness.send_and_settle("a/b")
    timers = f"{harness.state.store.keys.tag_of(run.id)}:timers"
    harness.state.server.client.zadd(timers, {"newer:kind": 1})
    harness.move_clock(301)
    harness.sweep()

    assert harness.runs.get(run.id).status == RunStatus.CANCELLED
    assert harness.state.server.client.zscore(timers, "newer:kind") is not None


def test_a_failed_run_is_retried_from_the_step_that_failed(harness: Harness) -> None:
    calls: list[str] = []
    healthy: list[bool] = []

    def charge() -> str:
        calls.append("charge")
        if not healthy:
            raise NonRetriable("the account is closed")
        return "paid"

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        step.run("reserve", lambda: calls.append("reserve"))
        return step.run("charge", charge)

    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    healthy.append(True)
    assert harness.runs.retry(run.id).status == RunStatus.QUEUED
    harness.settle()

    assert harness.runs.get(run.id).result == "paid"
    assert calls == ["reserve", "charge", "charge"]
    with pytest.raises(RunStateError):
        harness.runs.retry(run.id)
    with pytest.raises(RunStateError):
        harness.runs.resume(run.id)


def test_a_run_that_kills_its_workers_is_paused_and_can_be_resumed(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        return "alive"

    # A worker that dies leaves nothing behind but its lease.
    harness.start()
    execute = harness.executor.execute
    harness.executor.execute = lambda run: None  # type: ignore[method-assign]
    event_id = harness.send("a/b")
    harness.settle()
    for _ in range(8):
        harness.expire_leases()
        harness.settle()
    run = harness.run_of(event_id)
    assert run.status == RunStatus.PAUSED
    assert run.dispatches == 5
    assert "without progress" in (run.reason or "")

    harness.executor.execute = execute  # type: ignore[method-assign]
    harness.runs.resume(run.id)
    harness.settle()
    assert harness.runs.get(run.id).result == "alive"


def test_a_run_whose_code_is_not_here_waits_for_it(
    harness: Harness, valkey: t.Any, namespace: str
) -> None:
    harness.in_place = 0

    @harness.durable.function(on="new/event")
    def fresh(event: Event[t.Any], step: Step) -> str:
        return "done"

    harness.start()
    old = Harness(valkey.url, namespace)
    old.app.name = harness.app.name

    @old.durable.function(on="old/event")
    def stale(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("new/event")
    assert old.route() == 1
    run = harness.run_of(event_id)
    assert run.status == RunStatus.QUEUED
    delivery = harness.state.broker.deliveries("default", 1, 1)[0]
    assert old.executor.claim(t.cast(t.Any, delivery.message)) is None
    run = harness.runs.get(run.id)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "deferred")

    harness.advance(31)
    assert harness.runs.get(run.id).result == "done"
    old.close()


def test_an_event_with_a_time_in_the_future_starts_then(harness: Harness) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        return "started"

    later = datetime.now(timezone.utc) + timedelta(hours=1)
    event_id = harness.send("a/b", at=later)
    harness.settle()
    run = harness.run_of(event_id)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "scheduled")
    harness.advance(3601)
    assert harness.run_of(event_id).result == "started"


def test_a_finished_run_is_removed_whole_after_its_retention(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("one", lambda: None)

    run = harness.send_and_settle("a/b")
    harness.move_clock(7 * 86400 - 60)
    harness.sweep()
    assert harness.runs.get(run.id).status == RunStatus.COMPLETED
    harness.move_clock(61)
    harness.sweep()

    with pytest.raises(RunNotFound):
        harness.runs.get(run.id)
    keys = harness.state.server.client.keys(f"*{run.id}*")
    assert keys == []


def test_a_result_of_the_function_that_cannot_be_kept_fails_the_run(
    harness: Harness,
) -> None:
    bodies: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event, step):  # type: ignore[no-untyped-def]
        bodies.append(1)
        return {"when": datetime.now(timezone.utc)}

    run = harness.send_and_settle("a/b")

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert "when" in run.failure.message
    assert bodies == [1]


def test_waiting_for_a_run_returns_it_once_it_is_finished(harness: Harness) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> int:
        return 7

    run = harness.send_and_settle("a/b")
    assert harness.runs.wait(run.id, timeout=1).result == 7
    with pytest.raises(RunNotFound):
        harness.runs.wait("nobody", timeout=1)


def test_runs_are_listed_newest_first_and_by_filter(harness: Harness) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        if event.data["n"] % 2:
            raise NonRetriable("odd")

    ids = [harness.send("a/b", {"n": n}, id=f"e{n}") for n in range(6)]
    harness.settle()

    assert len(ids) == len(harness.runs.list())
    failed = harness.runs.list(status="failed")
    assert failed == harness.runs.list(function="work", status="failed")
    assert {run.event.id for run in failed} == {"e1", "e3", "e5"}
    assert harness.runs.list(function="work", status="failed", limit=2) == failed[:2]
    assert harness.runs.list(function="other") == []
    newest = harness.runs.list(limit=1)[0]
    assert newest.created == max(run.created for run in harness.runs.list())
    assert harness.runs.list(before=min(r.created for r in harness.runs.list())) == []


def test_an_error_raised_from_a_steps_failure_is_final_and_can_be_retried(
    harness: Harness,
) -> None:
    bodies: list[int] = []
    healthy: list[bool] = []

    def charge() -> str:
        if not healthy:
            raise NonRetriable("closed")
        return "paid"

    @harness.durable.function(on="a/b", retries=5)
    def work(event: Event[t.Any], step: Step) -> str:
        bodies.append(1)
        try:
            return step.run("charge", charge)
        except StepError as error:
            raise RuntimeError("no order without money") from error

    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.type == "RuntimeError"
    assert bodies == [1]

    healthy.append(True)
    harness.runs.retry(run.id)
    harness.settle()
    assert harness.runs.get(run.id).result == "paid"


def test_a_context_that_cannot_begin_is_an_error_of_the_body(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    @harness.durable.function(on="a/b", retries=1)
    def work(event: Event[t.Any], step: Step) -> str:
        return "ok"

    begin = harness.state.services.scope
    broken = [True]

    def scope() -> t.Any:
        if broken:
            broken.pop()
            raise OSError("no database")
        return begin()

    monkeypatch.setattr(harness.state.services, "scope", scope)
    run = harness.send_and_settle("a/b")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "retry")
    harness.advance(60)
    assert harness.runs.get(run.id).result == "ok"


def test_a_result_that_no_queue_takes_is_left_out_of_the_event(
    harness: Harness,
) -> None:
    seen: list[tuple[str, t.Any]] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        return "x" * 1_500_000

    @harness.durable.function(on="durable/function.finished")
    def listen(event: Event[t.Any], step: Step) -> None:
        seen.append((event.data["status"], event.data.get("result")))

    harness.send_and_settle("a/b")

    assert seen == [("completed", None)]
