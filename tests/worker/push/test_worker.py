"""A process that takes pushed messages as a worker: seen, logged, and its end."""

from __future__ import annotations

import json
import logging
import logging.handlers
import threading
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.app.health import HealthChecks
from flask_durable.engine.sweeper import Sweeper
from flask_durable.messages import EVENT_QUEUE
from flask_durable.worker.push import worker as push_worker

from ...support.harness import Harness
from .sqsd import Daemon
from .work import steps


def test_a_process_that_takes_messages_is_seen_as_a_worker(
    pushed: Harness, daemon: Daemon
) -> None:
    steps(pushed, 1)
    assert pushed.state.directory.workers() == []
    pushed.send("work/asked", {})
    daemon.drain()
    (worker,) = pushed.state.directory.workers()
    assert worker["queues"] == ["default"]
    checks = {check.name: check for check in HealthChecks(pushed.state).everything()}
    assert checks["workers"].ok
    vars(pushed.state)["push_worker"].get().stop()
    assert pushed.state.directory.workers() == []


def test_a_process_ends_although_its_sweep_does_not(
    pushed: Harness, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hang(sweeper: Sweeper) -> float:
        begun.set()
        go_on.wait(60)
        return 1.0

    monkeypatch.setattr(Sweeper, "_turn", hang)
    monkeypatch.setattr(push_worker, "STOP_SECONDS", 0.1)
    steps(pushed, 1)
    pushed.send("work/asked", {})
    daemon.drain()
    stop = threading.Thread(target=vars(pushed.state)["push_worker"].get().stop)
    try:
        assert begun.wait(20)
        stop.start()
        stop.join(20)
        assert not stop.is_alive()
        assert pushed.state.directory.workers() == []
    finally:
        go_on.set()


def test_log_records_have_the_run_as_in_every_worker(
    pushed: Harness, daemon: Daemon
) -> None:
    handler = logging.handlers.BufferingHandler(1000)
    logging.getLogger().addHandler(handler)
    try:

        @pushed.durable.function(on="work/asked")
        def tells(event: Event[t.Any], step: Step) -> None:
            step.run("tell", lambda: logging.getLogger("shop").warning("told"))

        id = pushed.send("work/asked", {})
        daemon.drain()
    finally:
        logging.getLogger().removeHandler(handler)
    (record,) = [record for record in handler.buffer if record.msg == "told"]
    assert vars(record)["durable_run_id"] == pushed.run_of(id).id
    assert vars(record)["durable_step"] == "tell"


def test_a_run_that_its_process_left_goes_on_in_this_one(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 2)
    id = pushed.send("work/asked", {})
    # A worker routed and claimed it in place, and was killed.
    pushed.route()
    pushed.state.broker.flush_settled(5)
    assert pushed.run_of(id).status == "running"
    daemon.task("tick", "2026-11-25T10:00:00Z")
    pushed.expire_leases()
    daemon.drain()
    assert pushed.run_of(id).status == "completed"
    assert done == ["s0", "s1"]


def test_the_body_of_a_request_is_a_message_as_it_was_sent(
    pushed: Harness, daemon: Daemon
) -> None:
    @pushed.durable.function(on="work/asked")
    def echo(event: Event[t.Any], step: Step) -> t.Any:
        return event.data

    data = {"text": "Grüße ☃", "deep": [{"a": None}]}
    id = pushed.send("work/asked", data)
    (message,) = daemon.receive(EVENT_QUEUE)
    daemon.settle(EVENT_QUEUE, message, 503)
    assert json.loads(message["Body"])["data"] == data
    daemon.drain()
    assert pushed.run_of(id).result == data
