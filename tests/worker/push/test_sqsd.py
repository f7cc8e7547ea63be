"""The contract of ``aws-sqsd``: played against moto, and an app in this process."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.messages import EVENT_QUEUE
from flask_durable.worker.push.messages import RENEWED_FROM

from ...process.test_sqs_permissions import actions
from ...process.test_sqs_permissions import allowed
from ...queue.sqs_proxy import Proxy
from ...support.harness import Harness
from ...support.servers import SQSServer
from ...support.servers import valkey_server
from .conftest import end
from .sqsd import body
from .sqsd import Daemon
from .sqsd import headers_of
from .sqsd import PATH
from .sqsd import to_app
from .work import steps

# -- One message, one request -----------------------------------------------------


def test_an_event_is_routed_and_its_run_executed_in_one_request(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 3)
    id = pushed.send("work/asked", {})

    assert daemon.deliver(EVENT_QUEUE)

    assert daemon.answers == [200]
    assert pushed.run_of(id).status == "completed"
    assert done == ["s0", "s1", "s2"]
    assert daemon.left() == 0


def test_of_several_functions_one_is_executed_and_the_others_are_queued(
    pushed: Harness, daemon: Daemon
) -> None:
    for name in ("one", "two", "three"):
        pushed.durable.function(on="work/asked", id=name)(lambda event, step: None)
    id = pushed.send("work/asked", {})

    daemon.deliver(EVENT_QUEUE)
    states = sorted(run.status.value for run in pushed.runs.of_event(id))
    assert states == ["completed", "queued", "queued"]

    daemon.drain()
    assert {run.status.value for run in pushed.runs.of_event(id)} == {"completed"}
    assert set(daemon.answers) == {200}


def test_a_long_run_goes_on_over_several_messages_with_each_step_once(
    sqs: SQSServer, valkey: t.Any, namespace: str
) -> None:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_PUSH_LOOPBACK=True,
        DURABLE_PUSH_BUDGET="100ms",
    )
    try:
        done = steps(harness, 10, pause=0.04)
        daemon = Daemon(sqs, to_app(harness.app), namespace)
        id = harness.send("work/asked", {})
        daemon.drain()

        run = harness.run_of(id)
        assert run.status == "completed"
        assert done == [f"s{n}" for n in range(10)]
        assert set(daemon.answers) == {200}
        assert 3 <= len(daemon.answers) <= 10
    finally:
        end(harness)


def test_a_step_that_takes_longer_than_the_budget_ends_and_keeps_its_lease(
    sqs: SQSServer, valkey: t.Any, namespace: str
) -> None:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_LEASE="300ms",
        DURABLE_PUSH_LOOPBACK=True,
        DURABLE_PUSH_BUDGET="100ms",
    )
    try:
        # The sweeper looks each second: without a renewal it would take the run.
        done = steps(harness, 1, pause=3.0)
        daemon = Daemon(sqs, to_app(harness.app), namespace)
        id = harness.send("work/asked", {})
        daemon.drain()
        assert harness.run_of(id).status == "completed"
        assert done == ["s0"]
    finally:
        end(harness)


def test_a_sleep_and_a_retry_suspend_the_run_and_free_the_request(
    pushed: Harness, daemon: Daemon
) -> None:
    tries: list[int] = []

    def fail_once() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("once")
        return "ok"

    @pushed.durable.function(on="work/asked")
    def naps(event: Event[t.Any], step: Step) -> str:
        step.sleep("nap", "1h")
        return step.run("flaky", fail_once)

    id = pushed.send("work/asked", {})
    daemon.drain()
    assert pushed.run_of(id).status == "suspended"
    for _ in range(2):
        pushed.move_clock(3700)
        assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200
        daemon.drain()
    assert pushed.run_of(id).result == "ok"
    assert len(tries) == 2


def test_runs_see_neither_the_request_nor_its_context(
    pushed: Harness, daemon: Daemon
) -> None:
    from flask import g
    from flask import has_request_context

    seen: list[tuple[bool, bool]] = []

    @pushed.app.before_request
    def stain() -> None:
        g.stain = True

    @pushed.durable.function(on="work/asked")
    def looks(event: Event[t.Any], step: Step) -> None:
        step.run("look", lambda: seen.append((has_request_context(), "stain" in g)))

    pushed.send("work/asked", {})
    daemon.drain()
    assert seen == [(False, False)]


# -- Trouble that passes ----------------------------------------------------------


def test_while_the_state_server_is_away_messages_wait_however_long(
    sqs: SQSServer, namespace: str
) -> None:
    with valkey_server() as valkey:
        harness = Harness(
            valkey.url,
            namespace,
            DURABLE_QUEUE_URL=sqs.url,
            DURABLE_FSYNC="ack",
            DURABLE_PUSH_LOOPBACK=True,
            DURABLE_PUSH_BUDGET="1s",
        )
        daemon = Daemon(sqs, to_app(harness.app), namespace)
        try:
            done = steps(harness, 2)
            harness.send("work/asked", {})
            daemon.drain()
            assert len(done) == 2

            id = harness.send("work/asked", {})
            valkey.kill()
            before = time.monotonic()
            daemon.deliver(EVENT_QUEUE)
            assert daemon.answers[-1] == 503
            # It held on for as long as the request may take.
            assert time.monotonic() - before >= 1
            assert daemon.task("tick", "2026-11-25T10:00:00Z") == 503

            # Received so often that the queue would give up on it, it begins again.
            (message,) = daemon.receive(EVENT_QUEUE)
            assert message["Attributes"]["ApproximateReceiveCount"] == "2"
            message["Attributes"]["ApproximateReceiveCount"] = str(RENEWED_FROM)
            status = daemon.post(PATH, headers_of(message), body(message))
            assert status == 200
            daemon.settle(EVENT_QUEUE, message, status)
            assert daemon.left() == 1

            valkey.start()
            (message,) = daemon.receive(EVENT_QUEUE)
            assert message["Attributes"]["ApproximateReceiveCount"] == "1"
            daemon.settle(EVENT_QUEUE, message, 503)
            daemon.drain()
            assert harness.run_of(id).status == "completed"
            assert len(done) == 4
        finally:
            end(harness)


def test_an_answer_is_200_only_after_the_barrier(
    pushed: Harness, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_durable.errors import UnavailableError

    done = steps(pushed, 1)
    id = pushed.send("work/asked", {})
    barrier = pushed.state.barrier

    def late(since: int | None = None) -> None:
        assert pushed.run_of(id).status == "completed"
        raise UnavailableError("the disk is late")

    with monkeypatch.context() as patch:
        patch.setattr(barrier, "wait", late)
        daemon.deliver(EVENT_QUEUE)
        assert daemon.answers == [503]
    daemon.drain()
    assert daemon.answers == [503, 200]
    assert done == ["s0"]


def test_a_server_that_lost_state_gets_the_message_again(
    sqs: SQSServer, namespace: str
) -> None:
    with valkey_server(appendonly="no") as valkey:
        harness = Harness(
            valkey.url,
            namespace,
            DURABLE_QUEUE_URL=sqs.url,
            DURABLE_FSYNC="ack",
            DURABLE_PUSH_LOOPBACK=True,
        )
        daemon = Daemon(sqs, to_app(harness.app), namespace)
        killed: list[int] = []

        def kill() -> None:
            if not killed:
                killed.append(1)
                valkey.kill()
                valkey.start()

        @harness.durable.function(on="work/asked")
        def forgotten(event: Event[t.Any], step: Step) -> None:
            step.run("kill", kill)

        try:
            id = harness.send("work/asked", {})
            daemon.deliver(EVENT_QUEUE)
            assert daemon.answers == [503]
            # What the process had published is gone too.
            harness.state.directory.current()
            daemon.drain()
            harness.publish()
            assert harness.run_of(id).status == "completed"
        finally:
            end(harness)


def test_the_app_behind_the_daemon_needs_what_a_web_app_does(
    sqs: SQSServer, valkey: t.Any, namespace: str
) -> None:
    with contextlib.closing(Proxy(sqs.endpoint)) as proxy:
        harness = Harness(
            valkey.url,
            namespace,
            DURABLE_QUEUE_URL=proxy.url,
            DURABLE_PUSH_LOOPBACK=True,
        )
        daemon = Daemon(sqs, to_app(harness.app), namespace)

        @harness.durable.function(on="work/asked")
        def sends(event: Event[t.Any], step: Step) -> None:
            step.send_event("more", "nobody/asked")

        try:
            transport: t.Any = harness.state.transport
            for queue in (EVENT_QUEUE, "default"):
                transport.declare(queue)
                transport.queues.forget(queue)
            proxy.calls.clear()
            id = harness.send("work/asked", {})
            transport.send(EVENT_QUEUE, ["no JSON"])
            daemon.drain()
            assert harness.run_of(id).status == "completed"
            assert harness.state.dead_letters.counts()[EVENT_QUEUE] == 1
            assert actions(proxy) == allowed("web")[0] | {"sqs:ListQueueTags"}
        finally:
            end(harness)
