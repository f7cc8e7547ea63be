"""One owner: tokens, leases, sealed attempts and the drain."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
import redis

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.app.state import DEVELOPMENT_MARK
from flask_durable.engine.claimed_run import ClaimedRun
from flask_durable.engine.leases import Leases

from ..support.harness import Harness


def test_a_late_owner_is_refused_and_runs_no_further_step(
    harness: Harness, valkey: t.Any, namespace: str
) -> None:
    calls: list[str] = []
    taken: list[bool] = []
    other = Harness(valkey.url, namespace, durable=harness.durable)
    other.app.name = harness.app.name

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        def first() -> str:
            calls.append("first")
            if not taken:
                # The process stands still past its lease, and another takes over.
                taken.append(True)
                harness.expire_leases()
                other.settle()
                return "late"
            return "in time"

        result = step.run("first", first)
        step.run("second", lambda: calls.append("second"))
        return result

    other.start()
    run = harness.send_and_settle("a/b")

    assert (run.status, run.result) == (RunStatus.COMPLETED, "in time")
    assert calls == ["first", "first", "second"]
    other.close()


def test_an_attempt_past_two_thirds_of_its_lease_asks_before_a_body(
    harness: Harness,
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        def first() -> None:
            calls.append("first")

        step.run("first", first)
        # Stopped between two steps: the run is taken away in between.
        (attempt,) = harness.leases.held
        attempt._renewed = time.monotonic() - harness.state.settings.lease
        harness.expire_leases()
        step.run("second", lambda: calls.append("second"))

    harness.durable.functions  # noqa: B018
    event_id = harness.send("a/b")
    harness.route()
    harness.threads.free = 0
    harness.execute()

    assert calls[:1] == ["first"]
    assert calls.count("second") <= 1
    run = harness.run_of(event_id)
    assert [s.name for s in run.steps] == ["first"] or run.status.finished


@pytest.mark.parametrize("kind", [Exception, BaseException])
def test_a_suspension_cannot_be_swallowed(
    harness: Harness, kind: type[BaseException]
) -> None:
    passes: list[int] = []
    after: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        passes.append(1)
        try:
            step.sleep("rest", 60)
        except kind:
            after.append("swallowed")
            try:
                step.run("more", lambda: after.append("ran"))
            except BaseException:
                after.append("refused")
            return "nonsense"
        return "rested"

    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.SUSPENDED
    assert "ran" not in after
    harness.advance(61)

    run = harness.runs.get(run.id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "rested")
    assert len(passes) == 2


def test_an_error_raised_over_a_suspension_is_not_the_bodys(harness: Harness) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.sleep("rest", 60)
        finally:
            if not event.data.get("calm"):
                raise ValueError("over it")
        return "rested"

    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.SUSPENDED


def test_a_draining_worker_hands_back_at_the_next_step_boundary(
    any_harness: Harness,
) -> None:
    harness = any_harness
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        def two() -> None:
            calls.append("two")
            if calls.count("two") == 1:
                harness.state.services.draining.set()

        step.run("one", lambda: calls.append("one"))
        step.run("two", two)
        step.run("three", lambda: calls.append("three"))
        return "done"

    event_id = harness.send("a/b")
    harness.route()
    harness.execute()
    run = harness.run_of(event_id)
    assert run.status in (RunStatus.QUEUED, RunStatus.COMPLETED)
    harness.state.services.draining.clear()
    harness.settle()

    run = harness.run_of(event_id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "done")
    assert calls == ["one", "two", "three"]
    assert run.dispatches <= 1


def test_a_healthy_run_keeps_its_lease_through_a_restart_of_the_server(
    harness: Harness,
) -> None:
    tokens: list[str | None] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        (attempt,) = harness.leases.held
        record = harness.state.store.read(attempt.run_id)[0]
        tokens.append(record.get("token"))
        # The server was away longer than the lease; both come back.
        harness.move_clock(60)
        harness.sweep()
        harness.leases.renew()
        harness.move_clock(5)
        harness.sweep()
        tokens.append(harness.state.store.read(attempt.run_id)[0].get("token"))

    run = harness.send_and_settle("a/b")

    assert run.status == RunStatus.COMPLETED
    assert tokens[0] == tokens[1] is not None


def test_development_replays_the_body_after_each_step(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEVELOPMENT_MARK, "1")
    outside: list[int] = []
    inside: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> int:
        outside.append(1)
        step.run("one", lambda: inside.append("one"))
        step.run("two", lambda: inside.append("two"))
        return len(outside)

    run = harness.send_and_settle("a/b")

    assert (run.status, run.result) == (RunStatus.COMPLETED, 3)
    assert inside == ["one", "two"]


def test_users_data_is_not_in_the_text_that_is_logged_of_a_run() -> None:
    run = ClaimedRun("id", "token", {"event": "secret"}, {"step": "secret"}, 0.0)
    assert "secret" not in repr(run)


def test_leases_are_renewed_soon_after_an_outage(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start()
    leases = Leases(harness.state.store)
    monkeypatch.setattr(harness.state.store, "lease", 1.2)
    pauses: list[float] = []
    outcomes = [redis.ConnectionError("gone"), None, None]

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            pauses.append(round(timeout, 3))
            return not outcomes

    def renew() -> None:
        if error := outcomes.pop(0):
            raise error

    leases.loop.stopping = Stopping()
    monkeypatch.setattr(leases, "renew", renew)
    leases.start()
    leases.stop()

    assert pauses == [0.3, 0.1, 0.3, 0.3]
