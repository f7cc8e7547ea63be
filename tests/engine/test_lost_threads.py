"""Bodies that do not return: their runs go on, and their threads are replaced."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepTimeout
from flask_durable.app.health import HealthChecks
from flask_durable.common import interruption
from flask_durable.engine.control import LossInterrupt
from flask_durable.store.status import RunStatus
from flask_durable.worker.process import WorkerProcess

from ..support.harness import Harness
from ..support.servers import wait_until

PATIENCE = 20.0


class Blocked:
    """A run whose step is in a call that does not return until the test says so."""

    def __init__(self, harness: Harness, **options: t.Any) -> None:
        self.harness = harness
        self.gate = threading.Lock()
        self.gate.acquire()
        self.calls: list[int] = []
        self.caught: list[str] = []

        def blocks() -> str:
            self.calls.append(len(self.calls))
            if len(self.calls) == 1:
                with self.gate:
                    pass
            return "late"

        @harness.durable.function(on="a/b", retries=0)
        def work(event: Event[t.Any], step: Step) -> str:
            try:
                return step.options(timeout="10ms", **options).run("blocks", blocks)
            except StepError as error:
                self.caught.append(type(error).__name__)
                raise

        self.event = harness.send("a/b")
        harness.route()
        self.thread = threading.Thread(target=harness.execute)
        self.thread.start()

    def open(self) -> None:
        self.gate.release()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GRACE", 0.05)


@pytest.mark.usefixtures("no_grace")
def test_a_run_goes_on_when_a_body_of_it_does_not_return(harness: Harness) -> None:
    """3.4: The attempt is settled from outside, and the run goes on."""
    blocked = Blocked(harness, retries=0)
    lost = harness.state.services.lost_threads
    wait_until(lambda: harness.run_of(blocked.event).status == RunStatus.QUEUED)
    wait_until(lambda: len(lost) == 1 and not harness.leases.held)

    def has_failed() -> bool:
        harness.settle()  # its message is sent a moment after it was queued
        return bool(harness.run_of(blocked.event).status == RunStatus.FAILED)

    wait_until(has_failed)
    run = harness.run_of(blocked.event)
    assert run.failure is not None
    assert run.failure.type == "StepTimeout"
    assert (blocked.calls, blocked.caught) == ([0], [StepTimeout.__name__])
    blocked.open()
    assert len(lost) == 0
    assert harness.run_of(blocked.event).failure == run.failure


@pytest.mark.usefixtures("no_grace")
def test_the_late_result_of_a_body_that_was_given_up_is_refused(
    harness: Harness,
) -> None:
    """3.4: The attempt was settled; nothing that comes later changes it."""
    blocked = Blocked(harness, retries=1)
    wait_until(lambda: harness.run_of(blocked.event).status == RunStatus.SUSPENDED)

    blocked.open()

    run = harness.run_of(blocked.event)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "retry")
    assert [step.status for step in run.steps] == ["retrying"]
    harness.advance(60)
    assert harness.run_of(blocked.event).result == "late"
    assert blocked.calls == [0, 1]


@pytest.mark.usefixtures("no_grace")
def test_the_body_of_a_cancelled_run_is_interrupted(harness: Harness) -> None:
    ended: list[str] = []

    def endless() -> None:
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.append("interrupted")

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        with contextlib.suppress(Exception):
            step.run("endless", endless)
        ended.append("went on")

    event = harness.send("a/b")
    harness.route()
    thread = threading.Thread(target=harness.execute)
    thread.start()
    wait_until(lambda: [a for a in harness.leases.held if a.body is not None])
    harness.runs.cancel(harness.run_of(event).id)
    harness.leases.renew()
    thread.join(PATIENCE)

    assert not thread.is_alive()
    assert ended == ["interrupted"]
    assert harness.run_of(event).status == RunStatus.CANCELLED


@pytest.mark.usefixtures("no_grace")
def test_a_lost_thread_is_replaced_and_told_of_and_ends_when_it_comes_back(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.4: The thread counts as lost, is shown by ``health``, and is replaced."""
    monkeypatch.setattr("flask_durable.worker.threads.LEAST_LOST", 1)
    gate = threading.Lock()
    gate.acquire()
    blocked: list[threading.Thread] = []

    def blocks() -> None:
        blocked.append(threading.current_thread())
        with gate:
            pass

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.options(timeout="10ms", retries=0).run("blocks", blocks)

    @harness.durable.function(on="a/c")
    def other(event: Event[t.Any], step: Step) -> None: ...

    worker = WorkerProcess(harness.state, queues=["default"], threads=1, grace=5)
    worker.start()
    try:
        lost = harness.state.services.lost_threads
        event = harness.send("a/b")
        wait_until(lambda: len(lost) == 1)
        following = harness.send("a/c")

        def status(id: str) -> str:
            return str(harness.runs.of_event(id)[0].status)

        wait_until(lambda: status(event) == "failed")
        wait_until(lambda: status(following) == "completed")
        worker._beat._beat()
        checks = {
            check.name: check for check in HealthChecks(harness.state).everything()
        }
        assert checks["workers"].ok
        assert "1 more are lost" in checks["workers"].detail
        assert worker.worn_out() == "1 of its threads are lost"

        gate.release()

        (thread,) = blocked
        wait_until(lambda: len(lost) == 0 and not thread.is_alive())
        assert worker.worn_out() == ""
        wait_until(lambda: harness.state.window.free == 1)
    finally:
        worker.stop()


def cancelled_outside_steps(
    harness: Harness, body: t.Callable[[], None]
) -> threading.Thread:
    """Cancel a run while its function's body is in *body*, outside any step.

    :returns: The thread that executes it, which looks at the queues again afterwards.
    """
    begun = threading.Event()

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("first", lambda: None)
        begun.set()
        body()

    event = harness.send("a/b")
    harness.route()
    thread = threading.Thread(target=harness.execute, daemon=True)
    thread.start()
    assert begun.wait(PATIENCE)
    harness.runs.cancel(harness.run_of(event).id)
    for _ in range(3):
        time.sleep(0.1)
        harness.leases.renew()
    return thread


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt lost bodies between their steps at once."""
    monkeypatch.setattr(interruption, "AGAIN", 0.05)


@pytest.mark.usefixtures("soon")
def test_the_body_of_a_cancelled_run_is_interrupted_between_its_steps(
    harness: Harness,
) -> None:
    ended_by: list[BaseException] = []

    def endless() -> None:
        try:
            while True:
                time.sleep(0.001)
        except BaseException as error:
            ended_by.append(error)
            raise

    cancelled_outside_steps(harness, endless).join(PATIENCE)

    assert not harness.leases.held
    assert [type(error) for error in ended_by] == [LossInterrupt]
    assert len(harness.state.services.lost_threads) == 0


@pytest.mark.usefixtures("no_grace", "soon")
def test_the_body_of_a_cancelled_run_is_given_up_where_it_hangs(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Lock()
    lost = harness.state.services.lost_threads
    with gate:
        thread = cancelled_outside_steps(harness, gate.acquire)
        wait_until(lambda: len(lost) == 1 and not harness.leases.held)
        harness.leases.renew()
        assert len(lost) == 1
    thread.join(PATIENCE)
    assert len(lost) == 0
    assert [r.levelname for r in caplog.records if "thread is lost" in r.message] == [
        "ERROR"
    ]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("ends", ["suspended", "cancelled"])
def test_a_body_that_is_on_its_way_out_is_left_time_to_clean_up(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    if ends == "cancelled":  # then it has as long as a step's body
        monkeypatch.setattr(interruption, "AGAIN", 2.0)
    cleaned: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        try:
            if ends == "cancelled":
                harness.runs.cancel(harness.run_of(event.id).id)
            step.sleep("long", "1h")
        finally:
            for _ in range(5):
                harness.leases.renew()
                for _ in range(20):
                    time.sleep(0.001)
            cleaned.append(ends)

    assert harness.send_and_settle("a/b").status == ends
    assert cleaned == [ends]


@pytest.mark.usefixtures("no_grace", "soon")
def test_filters_that_hang_in_cancelled_runs_keep_no_run_threads(
    harness: Harness,
) -> None:
    gate = threading.Lock()

    def hangs(event: Event[t.Any]) -> bool:
        with gate:
            return True

    @harness.durable.function(on="a/b", where=hangs)
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.in_place = 0
    event = harness.send("a/b")
    harness.route()
    client, store = harness.state.server.client, harness.state.store
    run = harness.run_of(event)
    key = f"{store.keys.tag_of(run.id)}:run:{run.id}"
    client.hset(key, "unfiltered", "1")  # as a router without the code leaves it
    lost = harness.state.services.lost_threads
    with gate:
        thread = threading.Thread(target=harness.execute, daemon=True)
        thread.start()
        wait_until(lambda: harness.leases.held)
        harness.runs.cancel(run.id)
        wait_until(lambda: harness.leases.renew() or len(lost) == 1)
    thread.join(PATIENCE)
    assert len(lost) == 0


@pytest.mark.usefixtures("no_grace")
def test_a_step_is_settled_where_its_thread_cannot_be_replaced(
    harness: Harness,
) -> None:
    class Broken:
        def lost(self, attempt: object) -> None:
            raise RuntimeError("can't start new thread")

        def came_back(self, attempt: object) -> None: ...

    harness.state.services.lost_threads.keepers.insert(0, Broken())
    blocked = Blocked(harness, retries=1)
    wait_until(lambda: harness.run_of(blocked.event).status == RunStatus.SUSPENDED)
    assert not harness.leases.held
    blocked.open()
