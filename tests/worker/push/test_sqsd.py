"""The contract of ``aws-sqsd``: played against moto, and an app in this process."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import threading
import time
import typing as t

import pytest

from flask_durable import Cron
from flask_durable import Event
from flask_durable import EventData
from flask_durable import Run
from flask_durable import Step
from flask_durable.app.health import HealthChecks
from flask_durable.engine.sweeper import Sweeper
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.messages import RunMessage
from flask_durable.queue.transport import MAX_RECEIVES
from flask_durable.worker.push import worker as push_worker
from flask_durable.worker.push.messages import RENEWED_FROM

from ...process.test_sqs_permissions import actions
from ...process.test_sqs_permissions import allowed
from ...queue.sqs_proxy import Proxy
from ...support.harness import Harness
from ...support.servers import SQSServer
from ...support.servers import valkey_server
from ...support.servers import wait_until
from .conftest import end
from .sqsd import AGENT
from .sqsd import body
from .sqsd import Daemon
from .sqsd import headers_of
from .sqsd import PATH
from .sqsd import to_app


class Counted(EventData, name="things/counted"):
    number: int


def steps(harness: Harness, count: int, pause: float = 0.0) -> list[str]:
    """Declare a function of *count* steps; return the list of those that have run."""
    done: list[str] = []

    def work(name: str) -> str:
        time.sleep(pause)
        done.append(name)
        return name

    @harness.durable.function(on="work/asked")
    def work_off(event: Event[t.Any], step: Step) -> list[str]:
        return [step.run(f"s{n}", work, f"s{n}") for n in range(count)]

    return done


def run_of(harness: Harness, event_id: str) -> Run:
    return harness.run_of(event_id)


# -- One message, one request -----------------------------------------------------


def test_an_event_is_routed_and_its_run_executed_in_one_request(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 3)
    id = pushed.send("work/asked", {})

    assert daemon.deliver(EVENT_QUEUE)

    assert daemon.answers == [200]
    assert run_of(pushed, id).status == "completed"
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

        run = run_of(harness, id)
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
        assert run_of(harness, id).status == "completed"
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
    assert run_of(pushed, id).status == "suspended"
    for _ in range(2):
        pushed.move_clock(3700)
        assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200
        daemon.drain()
    assert run_of(pushed, id).result == "ok"
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


# -- Doubled, late and foreign messages -------------------------------------------


def test_messages_that_are_delivered_again_change_nothing(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 2)
    id = pushed.send("work/asked", {})
    daemon.drain(times=3)
    assert set(daemon.answers) == {200}
    assert done == ["s0", "s1"]
    assert len(pushed.runs.of_event(id)) == 1


def test_a_message_is_done_while_another_worker_has_its_run(
    pushed: Harness, daemon: Daemon
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        go_on.wait(30)

    @pushed.durable.function(on="work/asked", id="slow")
    def slow(event: Event[t.Any], step: Step) -> None:
        step.run("wait", wait)

    id = pushed.send("work/asked", {})
    (message,) = daemon.receive(EVENT_QUEUE)
    first: list[int | None] = []
    thread = threading.Thread(
        target=lambda: first.append(
            daemon.post(PATH, headers_of(message), body(message))
        )
    )
    thread.start()
    try:
        assert inside.wait(30)
        # Its answer is not there yet, and the visibility is over.
        assert daemon.post(PATH, headers_of(message), body(message)) == 200
        run = run_of(pushed, id)
        daemon.send(RunMessage(run.id, "slow", 0).encode(), "default")
        daemon.drain()
        assert run_of(pushed, id).status == "running"
    finally:
        go_on.set()
        thread.join()
    assert first == [200]
    assert run_of(pushed, id).status == "completed"
    assert set(daemon.answers) == {200}


def test_a_run_whose_code_is_not_here_is_set_aside(
    pushed: Harness, daemon: Daemon
) -> None:
    steps(pushed, 1)
    spec = {**next(iter(pushed.durable.functions)).spec(), "id": "newer"}
    pushed.publish()
    pushed.state.directory.publish({"newer": spec})
    id = pushed.send("work/asked", {})
    daemon.drain()
    states = {run.function: run.status.value for run in pushed.runs.of_event(id)}
    assert states == {"work_off": "completed", "newer": "suspended"}


# -- Poison -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["nothing", "[]", "{}", '{"v":1,"kind":"event"}', '{"v":1,"kind":["run"]}']
)
def test_what_is_no_message_of_ours_is_dead_lettered_with_the_reason(
    pushed: Harness, daemon: Daemon, text: str
) -> None:
    daemon.send(text)
    daemon.drain()
    assert daemon.answers == [200]
    ((letter, reason),) = daemon.dead()
    assert letter == text
    assert reason


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"", "(an empty message)"),
        (b"a\0b", "a?b"),
        (b"\xff" * 2**20, "\ufffd" * (2**20 // 3)),
    ],
    ids=["empty", "nul", "long"],
)
def test_what_sqs_cannot_store_is_dead_lettered_as_far_as_it_can(
    pushed: Harness, daemon: Daemon, sent: bytes, kept: str
) -> None:
    headers = {**AGENT, "X-Aws-Sqsd-Msgid": "m1"}
    assert daemon.post(PATH, headers, sent) == 200
    [letter] = pushed.state.dead_letters.list()
    # What is cut anyway is cut for its reason, too.
    assert kept.startswith(letter.body)
    assert len(letter.body) >= min(len(kept), 2**20 // 3 - 200)
    assert "no room" not in letter.reason


@pytest.mark.parametrize("text", ['{"v":2,"kind":"run"}', '{"v":1,"kind":"branch"}'])
def test_a_message_of_another_release_comes_again_until_its_last_receive(
    pushed: Harness, daemon: Daemon, text: str
) -> None:
    daemon.send(text)
    for _ in range(MAX_RECEIVES):
        assert daemon.dead() == []
        daemon.deliver(EVENT_QUEUE)
    assert daemon.answers == [503] * (MAX_RECEIVES - 1) + [200]
    ((letter, reason),) = daemon.dead()
    assert letter == text
    assert reason.startswith(f"received {MAX_RECEIVES} times, at last ")


def test_a_message_dies_at_the_last_receive_that_its_queue_has(
    sqs: SQSServer, valkey: t.Any, namespace: str
) -> None:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_QUEUES={EVENT_QUEUE: {"max_receives": 2}},
        DURABLE_PUSH_LOOPBACK=True,
    )
    daemon = Daemon(sqs, to_app(harness.app), namespace)
    try:
        daemon.send('{"v":1,"kind":"branch"}')
        daemon.deliver(EVENT_QUEUE)
        daemon.deliver(EVENT_QUEUE)
        assert daemon.answers == [503, 200]
        assert len(daemon.dead()) == 1
    finally:
        end(harness)


def test_an_event_that_does_not_fit_its_schema_is_dead_lettered(
    pushed: Harness, daemon: Daemon
) -> None:
    pushed.durable.event(Counted)
    message = EventMessage("things/counted", {"number": "many"}, "e1", 0)
    daemon.send(message.encode())
    daemon.drain()
    assert daemon.answers == [200]
    ((_, reason),) = daemon.dead()
    assert "number" in reason


def test_a_message_that_was_received_too_often_is_dead_lettered(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 1)
    id = pushed.send("work/asked", {})
    (message,) = daemon.receive(EVENT_QUEUE)
    message["Attributes"]["ApproximateReceiveCount"] = str(MAX_RECEIVES + 1)
    assert daemon.post(PATH, headers_of(message), body(message)) == 200
    assert [reason for _, reason in daemon.dead()] == ["received 11 times"]
    assert done == []
    assert pushed.runs.of_event(id) == []

    run = RunMessage("r1", "work_off", 0).encode()
    assert daemon.post(PATH, headers_of(message), run.encode()) == 200
    assert daemon.dead("default") == [(run, "received 11 times")]


def test_why_a_message_failed_is_noted_and_told_at_its_last_receive(
    pushed: Harness, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps(pushed, 1)
    id = pushed.send("work/asked", {})
    store = pushed.state.store

    def refuse(run: t.Any) -> t.Any:
        raise RuntimeError("this one never")

    with monkeypatch.context() as patch:
        patch.setattr(store, "creation", refuse)
        for _ in range(MAX_RECEIVES):
            assert daemon.dead() == []
            daemon.deliver(EVENT_QUEUE)
            noted = pushed.state.failures.of([f"event:{id}"])[f"event:{id}"]
            assert "RuntimeError: this one never" in noted.error
    assert daemon.answers == [503] * (MAX_RECEIVES - 1) + [200]
    why = f"received {MAX_RECEIVES} times, at last RuntimeError: this one never"
    assert [reason for _, reason in daemon.dead()] == [why]


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
            assert run_of(harness, id).status == "completed"
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
        assert run_of(pushed, id).status == "completed"
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
            assert run_of(harness, id).status == "completed"
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
            assert run_of(harness, id).status == "completed"
            assert harness.state.dead_letters.counts()[EVENT_QUEUE] == 1
            assert actions(proxy) == allowed("web")[0] | {"sqs:ListQueueTags"}
        finally:
            end(harness)


# -- Tasks of cron.yaml -----------------------------------------------------------


def test_a_task_does_what_is_due(pushed: Harness, daemon: Daemon) -> None:
    @pushed.durable.function(on="work/asked")
    def naps(event: Event[t.Any], step: Step) -> str:
        step.sleep("nap", "1h")
        return "woken"

    id = pushed.send("work/asked", {})
    daemon.drain()
    pushed.move_clock(3601)
    assert daemon.task("sweep", "2026-11-25T10:00:00Z") == 200
    daemon.drain()
    assert run_of(pushed, id).result == "woken"


def test_a_task_with_the_name_of_a_scheduled_function_starts_it_once(
    pushed: Harness, daemon: Daemon
) -> None:
    @pushed.durable.function(on=Cron("0 0 1 1 *"), id="report")
    def report(event: Event[t.Any], step: Step) -> str:
        return str(event.data.scheduled_at)

    for _ in range(3):
        assert daemon.task("report", "2026-11-25T10:00:00Z") == 200
        daemon.drain()
    (run,) = pushed.runs.list(function="report")
    assert pushed.runs.get(run.id).result == "2026-11-25 10:00:00+00:00"


@pytest.mark.parametrize(
    ("name", "scheduled"),
    [
        ("nobody", "2026-11-25T10:00:00Z"),
        ("report", "soon"),
        ("report", ""),
        ("report", "0001-01-01T00:00:00Z"),
        ("report", "9999-12-31T23:59:59-10:00"),
    ],
)
def test_a_task_that_names_nothing_is_a_tick_all_the_same(
    pushed: Harness, daemon: Daemon, name: str, scheduled: str
) -> None:
    pushed.durable.function(on=Cron("0 0 1 1 *"), id="report")(lambda event, step: 1)
    assert daemon.task(name, scheduled) == 200
    assert pushed.runs.list() == []


def test_a_function_is_started_by_its_schedule_without_any_worker(
    pushed: Harness, daemon: Daemon
) -> None:
    pushed.durable.function(on=Cron("* * * * *"), id="report")(lambda event, step: 1)
    pushed.publish()
    directory = pushed.state.directory
    directory.schedule_marks({"report * * * * * UTC": 0}, directory.remembered.version)
    pushed.move_clock(60)
    assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200

    def completed() -> bool:
        daemon.drain()
        return [run.status.value for run in pushed.runs.list()] == ["completed"]

    wait_until(completed, "the run of the tick", 30)


def test_a_run_whose_message_vanished_goes_on_after_a_task(
    pushed: Harness, daemon: Daemon
) -> None:
    for name in ("one", "two"):
        pushed.durable.function(on="work/asked", id=name)(lambda event, step: None)
    id = pushed.send("work/asked", {})
    daemon.deliver(EVENT_QUEUE)
    # So that it counts as sent.
    assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200
    (message,) = daemon.receive("default")
    daemon.settle("default", message, 200)
    assert daemon.left() == 0

    (queued,) = [run for run in pushed.runs.of_event(id) if not run.status.finished]
    key = f"{pushed.state.store.keys.tag_of(queued.id)}:run:{queued.id}"
    pushed.state.server.client.hincrby(key, "queued_at", -61_000)
    pushed.move_clock(61)
    assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200
    daemon.drain()
    assert pushed.runs.get(queued.id).status == "completed"


# -- The process as a worker ------------------------------------------------------


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
    assert vars(record)["durable_run_id"] == run_of(pushed, id).id
    assert vars(record)["durable_step"] == "tell"


def test_a_run_that_its_process_left_goes_on_in_this_one(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 2)
    id = pushed.send("work/asked", {})
    # A worker routed and claimed it in place, and was killed.
    pushed.route()
    pushed.state.broker.flush_settled(5)
    assert run_of(pushed, id).status == "running"
    daemon.task("tick", "2026-11-25T10:00:00Z")
    pushed.expire_leases()
    daemon.drain()
    assert run_of(pushed, id).status == "completed"
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
    assert run_of(pushed, id).result == data
