"""What the crash tests do not reach: odd answers, odd exceptions, odd moments."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
import weakref

import pytest
import redis
from flask import Flask

from flask_durable import Durable
from flask_durable import Event
from flask_durable import Failure
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable.common.interruption import Body
from flask_durable.common.interruption import Watchdog
from flask_durable.common.redelivery import pause_before
from flask_durable.engine.claimed_run import ClaimedRun
from flask_durable.engine.leases import Leases
from flask_durable.engine.router import Router
from flask_durable.messages import EVENT_QUEUE
from flask_durable.store.run_store import after
from flask_durable.worker.router_thread import RouterThread

from ..harness import Harness
from ..servers import valkey_server
from ..servers import wait_until


class Slots:
    """Run threads that count."""

    def __init__(self, harness: Harness, free: int) -> None:
        self.harness = harness
        self.free = free

    def serves(self, queue: str) -> bool:
        return True

    def reserve(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    def release(self) -> None:
        self.free += 1

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        self.harness.threads.runs.append(run)


def send_elsewhere(harness: Harness, url: str, namespace: str) -> str:
    """Send an event that is routed where the code of its function is not."""
    harness.start()
    elsewhere = Harness(url, namespace)
    elsewhere.app.name = harness.app.name
    elsewhere.state.directory.current()
    event_id = harness.send("a/b")
    deliveries = elsewhere.state.broker.deliveries("events", 1, 0)
    Router(elsewhere.state.host, elsewhere.state.outbox).route(deliveries)
    elsewhere.close()
    assert len(deliveries) == 1
    return event_id


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


def test_a_write_that_fails_cannot_be_caught_by_the_body(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("first", lambda: calls.append("first"))
        except Exception:
            calls.append("caught")
        step.run("second", lambda: calls.append("second"))
        return "done"

    commit = harness.state.store.commit

    def fail(*args: t.Any, **kwargs: t.Any) -> t.Any:
        raise redis.ResponseError("ERR something is wrong with the script")

    monkeypatch.setattr(harness.state.store, "commit", fail)
    event_id = harness.send("a/b")
    harness.settle()
    assert calls == ["first"]
    run = harness.run_of(event_id)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "retry")

    monkeypatch.setattr(harness.state.store, "commit", commit)
    harness.advance(60)
    assert harness.run_of(event_id).status == RunStatus.COMPLETED
    assert calls == ["first", "first", "second"]


def test_a_filter_that_exits_fails_its_run_and_not_the_router(harness: Harness) -> None:
    @harness.durable.function(on="a/b", where=lambda event: sys.exit("no"))
    def strict(event: Event[t.Any], step: Step) -> None: ...

    @harness.durable.function(on="a/b")
    def other(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("a/b")
    harness.settle()

    failed = harness.run_of(event_id, "strict")
    assert failed.status == RunStatus.FAILED
    assert failed.failure is not None
    assert (failed.failure.type, failed.failure.code) == ("SystemExit", "user")
    assert harness.run_of(event_id, "other").status == RunStatus.COMPLETED


def test_an_event_that_cannot_be_routed_takes_no_slot_and_no_other_with_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @harness.durable.function(on="a/*")
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.start()
    harness.state.window.release(9)
    slots = Slots(harness, 4)
    monkeypatch.setattr(harness.router, "_threads", slots)
    creation = harness.state.store.creation

    def refuse(run: t.Any) -> t.Any:
        if run.event_name == "a/bad":
            raise RuntimeError("cannot be routed")
        return creation(run)

    monkeypatch.setattr(harness.state.store, "creation", refuse)
    good = [harness.send("a/good"), harness.send("a/good")]
    harness.send("a/bad")

    routed = RouterThread(harness.state.broker, harness.router).route(0)

    assert routed == 3
    assert slots.free == 2
    assert [harness.run_of(id).status for id in good] == [RunStatus.RUNNING] * 2
    # It comes again as what could not be routed for another reason does: after pauses
    # that double, so that its receives last.
    assert harness.state.broker.flush_settled(5)
    counts = harness.state.broker.counts(EVENT_QUEUE)
    assert (counts.delayed, pause_before(1), pause_before(2)) == (1, 5.0, 10.0)
    assert sum(map(pause_before, range(1, 10))) > 1800


def test_a_filter_is_not_asked_again_after_the_run_did_something(
    harness: Harness, valkey: t.Any, namespace: str
) -> None:
    seen: list[str] = []

    @harness.durable.function(on="a/b", where=lambda event: not seen)
    def work(event: Event[t.Any], step: Step) -> str:
        step.run("note", lambda: seen.append("noted"))
        step.sleep("pause", 60)
        return "to the end"

    event_id = send_elsewhere(harness, valkey.url, namespace)
    harness.settle()
    harness.advance(61)

    run = harness.run_of(event_id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "to the end")


def test_a_filter_that_raises_where_the_run_is_executed_fails_it_at_once(
    harness: Harness, valkey: t.Any, namespace: str
) -> None:
    reports: list[str] = []

    @harness.durable.function(on="a/b", where=lambda event: event.data["missing"])
    def work(event: Event[t.Any], step: Step) -> None: ...

    @work.on_failure
    def report(event: Event[t.Any], step: Step, failure: Failure) -> None:
        reports.append(failure.type)

    event_id = send_elsewhere(harness, valkey.url, namespace)
    harness.settle()

    assert harness.run_of(event_id).status == RunStatus.FAILED
    assert reports == ["KeyError"]


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


def test_confirming_an_old_message_leaves_what_is_owed_now(harness: Harness) -> None:
    harness.in_place = 0

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("a/b")
    assert harness.route() == 1  # sent, not confirmed yet
    run = harness.run_of(event_id)
    store = harness.state.store
    outbox = f"{store.keys.tag_of(run.id)}:outbox:default"
    client = harness.state.server.client
    queued_at = int(store.read(run.id)[0]["queued_at"])
    wait_until(lambda: time.time() * 1000 > queued_at + 2)
    claim = store.claim(run.id, "another", version="", queued=0)
    assert claim.answer == "claimed"
    store.suspend(run.id, "another", "handback", after(0), reason="shutdown")

    harness.state.outbox.confirm()

    assert client.zscore(outbox, f"run:{run.id}") is not None


def test_what_is_sent_for_a_cancelled_or_retried_run_is_confirmed(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        raise ValueError("no")

    run = harness.send_and_settle("a/b")
    harness.sweep()
    harness.runs.retry(run.id)

    outbox = f"{harness.state.store.keys.tag_of(run.id)}:outbox:default"
    assert harness.state.server.client.zcard(outbox) == 0


def test_something_cancelled_in_a_step_is_a_failure_of_the_step(
    harness: Harness,
) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("wait", lambda: asyncio.run(cancelled()))
        except StepError as error:
            return error.failure.type
        return "nothing"

    assert harness.send_and_settle("a/b").result == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("broken", ["__str__", "code"])
def test_an_exception_with_broken_parts_fails_its_step(
    harness: Harness, broken: str
) -> None:
    def explode(self: t.Any) -> t.NoReturn:
        raise RuntimeError("broken")

    parts = {"__str__": explode, "code": property(explode)}
    odd = type("Odd", (Exception,), {broken: parts[broken]})

    def fail() -> None:
        raise odd("text")

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("fail", fail)

    run = harness.send_and_settle("a/b")
    assert run.failure is not None
    assert (run.status, run.failure.step) == (RunStatus.FAILED, "fail")
    assert run.failure.type.endswith("Odd")


def test_the_code_of_a_foreign_error_is_not_taken_for_ours(harness: Harness) -> None:
    class Foreign(Exception):
        code = "step.timeout"

    def fail() -> None:
        raise Foreign

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> str:
        try:
            step.run("fail", fail)
        except StepError as error:
            return f"{type(error).__name__} {error.failure.code}"
        return "nothing"

    assert harness.send_and_settle("a/b").result == "StepError user"


def test_arguments_of_a_step_are_not_kept_until_the_run_ends(harness: Harness) -> None:
    class Large:
        pass

    alive: list[bool] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        large = Large()
        reference = weakref.ref(large)
        step.run("use", lambda value: None, large)
        del large
        alive.append(reference() is not None)

    harness.send_and_settle("a/b")
    assert alive == [False]


def test_a_suspended_attempt_leaves_nothing_for_the_garbage_collector(
    harness: Harness,
) -> None:
    class Large:
        pass

    references: list[weakref.ref[Large]] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        large = Large()
        references.append(weakref.ref(large))
        step.sleep("pause", 60)
        del large

    gc.collect()
    gc.disable()
    try:
        harness.send_and_settle("a/b")
        assert [reference() for reference in references] == [None]
    finally:
        gc.enable()


def test_the_watchdog_forgets_bodies_that_ended() -> None:
    from flask_durable.common import interruption

    for _ in range(5000):
        with Body(3600):
            pass
    assert len(interruption.watchdog._deadlines) < 2500


def test_a_body_that_could_not_be_watched_is_not_interrupted_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: t.Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Watchdog, "add", refuse)
    body = Body(1)
    with pytest.raises(RuntimeError), body:
        pass
    assert not body.active


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


def test_a_worker_survives_a_storm_of_signals(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_durable.worker import service

    class Process:
        id = "here"

        def __init__(self, *args: t.Any, **kwargs: t.Any) -> None: ...

        def start(self) -> None: ...

        def stop(self, grace: float) -> None: ...

        def ailing(self) -> dict[str, str]:
            return {}

        def worn_out(self) -> str:
            return ""

    storm = (
        "import os, sys, time\n"
        "for _ in range(1500):\n"
        "    time.sleep(0.0004)\n"
        "    for _ in range(2): os.kill(int(sys.argv[1]), 15)\n"
    )
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(service, "WorkerProcess", Process)
    monkeypatch.setattr(service, "set_up", lambda *_: None)
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    sender = subprocess.Popen([sys.executable, "-c", storm, str(os.getpid())])
    try:
        while sender.poll() is None:
            # It waits for a signal of the storm; the last one may be this.
            last = threading.Timer(5, os.kill, (os.getpid(), signal.SIGTERM))
            last.start()
            service.run_worker(harness.state, queues=["default"], threads=1, grace=60)
            last.cancel()
    finally:
        sender.wait()
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_an_extension_does_not_keep_the_apps_of_a_factory() -> None:
    durable = Durable()

    def create_app() -> Flask:
        app = Flask("factory")
        durable.init_app(app)
        return app

    references = [weakref.ref(create_app()) for _ in range(3)]
    gc.collect()

    assert [reference() for reference in references] == [None] * 3


def test_a_step_name_that_cannot_be_encoded_fails_the_run_with_the_reason(
    harness: Harness,
) -> None:
    calls: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("read-\udcff.mp3", lambda: calls.append(1))

    run = harness.send_and_settle("a/b")

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "step.usage"
    assert calls == []


def test_a_directory_that_a_failover_changed_is_matched_anew(harness: Harness) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.send_and_settle("a/b")
    server, root = harness.state.server, harness.state.store.keys.root
    # The version is the same, what it stands for is not.
    spec = {**work.spec(), "id": "other", "triggers": ["c/d"]}
    server.client.hset(f"{root}:functions", "other", json.dumps(spec))
    harness.sweep()
    event_id = harness.send("c/d")
    harness.settle()

    assert harness.runs.of_event(event_id)[0].function == "other"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_others_send_can_send(
    valkey: t.Any, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace, DURABLE_FSYNC="step")
    harness.send("a/b")
    stopping = threading.Event()

    def send() -> None:
        while not stopping.is_set():
            harness.send("a/b")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        child = os.fork()
        if not child:
            signal.alarm(10)
            harness.send("a/b")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        stopping.set()
        sender.join()
        harness.close()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="flask_durable")
