"""A state server that comes back without what it answered last, as after a power cut.

The server is killed and started from an earlier copy of its data.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import threading
import typing as t

import pytest
import redis

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.store.barrier import StateMayBeLost
from flask_durable.worker.router_thread import RouterThread

from ..support.harness import Harness
from ..support.servers import SQSServer
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer


class Mains:
    """The power supply of a server."""

    def __init__(self, server: ValkeyServer, harness: Harness) -> None:
        self.server = server
        self._harness = harness
        self._copy = pathlib.Path(server.directory).with_suffix(".copy")

    def remember(self) -> None:
        """Let what is stored by now be what the disk has."""
        self._harness.state.barrier.wait()
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.server.directory, self._copy)

    def fail(self) -> None:
        """Lose what was written since :meth:`remember`."""
        self.server.kill()
        shutil.rmtree(self.server.directory)
        shutil.copytree(self._copy, self.server.directory)
        self.server.start()

    def fail_once_after(
        self, monkeypatch: pytest.MonkeyPatch, owner: t.Any, name: str
    ) -> None:
        """Lose what the next call of a method did, right after it was answered."""
        original = getattr(owner, name)

        def call(*args: t.Any, **kwargs: t.Any) -> t.Any:
            monkeypatch.setattr(owner, name, original)
            self.remember()
            answer = original(*args, **kwargs)
            self.fail()
            return answer

        monkeypatch.setattr(owner, name, call)

    def close(self) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)


@pytest.fixture
def server() -> t.Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


@pytest.fixture(params=["step"])
def harness(
    request: pytest.FixtureRequest, server: ValkeyServer, namespace: str, sqs: SQSServer
) -> t.Iterator[Harness]:
    # The queue survives: what was deleted from it would not come back.
    harness = Harness(
        server.url,
        namespace,
        DURABLE_FSYNC=request.param,
        DURABLE_QUEUE_URL=sqs.url,
    )
    yield harness
    harness.close()


@pytest.fixture
def mains(server: ValkeyServer, harness: Harness) -> t.Iterator[Mains]:
    mains = Mains(server, harness)
    yield mains
    mains.close()


@pytest.mark.parametrize("harness", ["ack", "step"], indirect=True)
def test_a_message_is_not_deleted_when_the_run_that_it_led_to_is_lost(
    harness: Harness, mains: Mains
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("first", calls.append, event.id)

    harness.start()
    barrier = harness.state.barrier
    event_id = harness.send("a/b")
    mains.remember()
    deliveries = harness.state.broker.deliveries("events", 10, 5)
    # The run is created and answered for, but nothing was confirmed yet.
    harness.router._create(
        [r for d in deliveries if (r := harness.router._open(d)) is not None],
        harness.state.directory.remembered,
    )
    assert len(harness.runs.of_event(event_id)) == 1
    harness.threads.runs.clear()
    mains.fail()
    assert harness.runs.of_event(event_id) == []
    if harness.state.services.write_through:
        # Another thread's barrier notices it first.
        with pytest.raises(UnavailableError):
            barrier.wait()
    for delivery in deliveries:
        delivery.done()
    assert harness.state.broker.flush_settled(20)

    assert calls == []
    run = harness.run_of_settled(event_id)
    assert (run.status, calls) == (RunStatus.COMPLETED, [event_id])
    counts = harness.state.transport.counts("events")
    assert (counts.waiting, counts.in_flight) == (0, 0)


def test_a_step_whose_memo_was_lost_stops_the_attempt_and_runs_again(
    harness: Harness, mains: Mains, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        step.run("first", calls.append, "first")
        try:
            step.run("second", calls.append, "second")
        except Exception:
            calls.append("the loss could be caught")
        step.run("third", calls.append, "third")
        return "done"

    harness.start()
    commit = harness.state.store.commit

    def fail_at_second(*args: t.Any, **kwargs: t.Any) -> t.Any:
        if args[2] == "second":
            monkeypatch.setattr(harness.state.store, "commit", commit)
            mains.remember()
            answer = commit(*args, **kwargs)
            mains.fail()
            return answer
        return commit(*args, **kwargs)

    monkeypatch.setattr(harness.state.store, "commit", fail_at_second)
    run = harness.send_and_settle("a/b")

    assert calls == ["first", "second"]
    assert (run.status, [s.name for s in run.steps]) == (RunStatus.RUNNING, ["first"])
    harness.expire_leases()
    harness.settle()
    run = harness.runs.get(run.id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "done")
    assert calls == ["first", "second", "second", "third"]


@pytest.mark.parametrize("write", ["suspend", "finish"])
def test_an_attempt_whose_last_write_was_lost_is_taken_over(
    harness: Harness,
    mains: Mains,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    write: str,
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        step.run("first", calls.append, "first")
        step.sleep("a moment", 60)
        return "done"

    harness.start()
    if write == "finish":
        event_id = harness.send("a/b")
        harness.settle()
        mains.fail_once_after(monkeypatch, harness.state.store, write)
        harness.advance(61)
    else:
        mains.fail_once_after(monkeypatch, harness.state.store, write)
        event_id = harness.send("a/b")
        harness.settle()

    run = harness.run_of(event_id)
    assert run.status is RunStatus.RUNNING
    assert f"Run {run.id} is given up" in caplog.text
    harness.expire_leases()
    harness.settle()
    harness.advance(61)
    assert harness.run_of(event_id).status is RunStatus.COMPLETED
    assert calls == ["first"]


def test_runs_that_were_lost_while_they_were_routed_are_created_again(
    harness: Harness, mains: Mains, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("first", calls.append, event.id)

    harness.start()
    event_id = harness.send("a/b")
    mains.fail_once_after(monkeypatch, harness.router, "_create")
    thread = RouterThread(harness.state.broker, harness.router)

    assert thread.route(5) == 1

    # The thread that had been given the lost run may begin, and is refused its write.
    run = harness.run_of_settled(event_id)
    assert (run.status, set(calls)) == (RunStatus.COMPLETED, {event_id})


def test_what_was_sent_right_before_a_restart_is_reported_and_sent_again(
    harness: Harness, mains: Mains, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("first", calls.append, event.id)

    harness.start()
    mains.fail_once_after(monkeypatch, harness.state.message_sender, "send")

    with pytest.raises(UnavailableError, match="started again"):
        harness.send("a/b", id="one")
    harness.send("a/b", id="one")
    # A worker notices by itself, and has its messages delivered again.
    with contextlib.suppress(StateMayBeLost):
        harness.state.services.wait_durable(0)

    run = harness.run_of_settled("one")
    assert (run.status, calls) == (RunStatus.COMPLETED, ["one"])


def test_a_server_that_takes_no_writes_is_waited_for(namespace: str) -> None:
    calls: list[str] = []

    with valkey_server() as server:
        harness = Harness(server.url, namespace)
        client = redis.Redis.from_url(server.url)

        def first() -> None:
            calls.append("first")
            client.config_set("min-replicas-to-write", 1)
            again = threading.Timer(
                0.3, client.config_set, ("min-replicas-to-write", 0)
            )
            again.start()

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> None:
            step.run("first", first)
            step.run("second", lambda: calls.append("second"))

        run = harness.send_and_settle("a/b")
        harness.close()

    assert run.status == RunStatus.COMPLETED
    assert calls == ["first", "second"]


def test_events_wait_while_the_server_takes_no_writes(namespace: str) -> None:
    with valkey_server() as server:
        harness = Harness(server.url, namespace)

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> None: ...

        event_id = harness.send("a/b")
        harness.start()
        [delivery] = harness.state.broker.deliveries("events", 1, 0)
        client = redis.Redis.from_url(server.url)
        client.config_set("min-replicas-to-write", 1)
        again = threading.Timer(0.3, client.config_set, ("min-replicas-to-write", 0))
        again.start()
        harness.router.route([delivery])
        harness.settle()

        assert harness.run_of(event_id).status == RunStatus.COMPLETED
        harness.close()
