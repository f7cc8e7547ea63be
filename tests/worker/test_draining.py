"""A worker drains in the time that it has, and its process ends whatever is left."""

from __future__ import annotations

import dataclasses
import errno
import logging
import subprocess
import sys
import threading
import time
import typing as t

import pytest
import redis

from flask_durable import Event
from flask_durable import Step
from flask_durable.app.health import HealthChecks
from flask_durable.common.loops import ailing
from flask_durable.common.loops import Loop
from flask_durable.common.safe_logging import telling
from flask_durable.engine.attempt import Attempt
from flask_durable.engine.control import OwnershipLost
from flask_durable.engine.control import Suspended
from flask_durable.engine.handing_back import hand_back_attempts
from flask_durable.engine.handing_back import REASON
from flask_durable.store.barrier import Barrier
from flask_durable.store.replies import Renewal
from flask_durable.store.run_store import RunStore
from flask_durable.worker import process as process_module
from flask_durable.worker.process import WorkerProcess
from flask_durable.worker.vitals import LOOKS_GONE
from flask_durable.worker.vitals import LOOKS_STILL
from flask_durable.worker.vitals import Vitals

from ..support.hanging import hanging
from ..support.hanging import HangingHandler
from ..support.harness import Harness
from ..support.servers import wait_until


def status(harness: Harness, event: str) -> str:
    with harness.app.app_context():
        return " ".join(str(run.status) for run in harness.durable.runs.of_event(event))


def test_a_step_has_the_whole_drain_however_many_threads_there_are(
    harness: Harness,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @harness.durable.function(on="work/slow")
    def slow(event: Event[t.Any], step: Step) -> str:
        return step.run("wait", lambda: begun.set() or (go_on.wait(20) and "done"))

    threads = 24
    process = WorkerProcess(
        harness.state, queues=["default"], threads=threads, grace=20
    )
    process.start()
    event = harness.send("work/slow")
    assert begun.wait(20)
    workers = process._threads._worker.workers
    ended = threading.Event()
    stop = threading.Thread(target=lambda: (process.stop(), ended.set()))
    stop.start()
    # Each idle thread takes up to a second to end: as many seconds are not to be taken
    # off the time of the one that works.
    wait_until(lambda: sum(x.is_alive() for x in workers) == 1)
    assert not ended.wait(0.5)
    go_on.set()
    stop.join(20)
    assert ended.is_set()
    assert status(harness, event) == "completed"


def test_runs_whose_bodies_do_not_end_are_handed_back_with_one_barrier(
    make_harness: t.Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness(DURABLE_FSYNC="step")

    @harness.durable.function(on="work/slow")
    def slow(event: Event[t.Any], step: Step) -> None: ...

    events = [harness.send("work/slow") for _ in range(8)]
    while len((harness.route() and harness.threads.runs) or harness.threads.runs) < 8:
        pass
    services, outbox = harness.state.services, harness.state.outbox
    attempts = [
        Attempt(services, outbox, slow, run, {}) for run in harness.threads.runs
    ]
    # One of them was cancelled from outside.
    with harness.app.app_context():
        harness.durable.runs.cancel(attempts[0].run_id)
    waits: list[int] = []
    wait = Barrier.wait

    def counted(barrier: Barrier, mark: int) -> None:
        if threading.current_thread() is threading.main_thread():
            waits.append(mark)
        wait(barrier, mark)

    monkeypatch.setattr(Barrier, "wait", counted)
    hand_back_attempts(services, outbox, attempts, 60, float("inf"))

    assert len(waits) == 1
    assert isinstance(attempts[0].stop(Suspended()), OwnershipLost)
    assert all(str(a.stop(OwnershipLost("late"))) == REASON for a in attempts[1:])
    states = sorted(status(harness, event) for event in events)
    assert states == ["cancelled", *["suspended"] * 7]
    harness.advance(61)
    # They were claimed once; a hand-back counts for nothing.
    assert sorted(status(harness, event) for event in events)[1:] == ["completed"] * 7


def test_a_sweep_ends_where_it_is_when_the_worker_drains(harness: Harness) -> None:
    @harness.durable.function(on="work/nap")
    def nap(event: Event[t.Any], step: Step) -> None:
        step.sleep("nap", "1m")

    event = harness.send("work/nap")
    harness.settle()
    harness.move_clock(61)
    harness.sweeper.stop_soon()
    harness.sweeper.sweep()
    assert status(harness, event) == "suspended"


class Raising(logging.Filter):
    """Reads what there is in a request only, as filters of apps do."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("Working outside of request context.")


def test_a_worker_whose_logging_raises_works_and_drains(harness: Harness) -> None:
    @harness.durable.function(on="work/fails", retries=0)
    def fails(event: Event[t.Any], step: Step) -> None:
        step.run("no", lambda: 1 / 0)

    handler = logging.StreamHandler()
    handler.addFilter(Raising())
    loggers = [logging.getLogger(name) for name in ("flask_durable", "dramatiq")]
    levels = [logger.level for logger in loggers]
    process = WorkerProcess(harness.state, queues=["default"], threads=2, grace=20)
    try:
        process.start()
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
        event = harness.send("work/fails")
        wait_until(lambda: status(harness, event) == "failed")
        assert process.ailing() == {}
        process.stop()
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
    with harness.app.app_context():
        assert harness.state.directory.workers() == []


@pytest.fixture
def hangs() -> t.Iterator[HangingHandler]:
    with telling(), hanging("flask_durable") as handler:
        yield handler


def test_a_worker_drains_and_interrupts_although_a_log_handler_hangs(
    harness: Harness, hangs: HangingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "INTERRUPT_BEFORE", 20.0)
    begun = threading.Event()

    @harness.durable.function(on="work/slow")
    def slow(event: Event[t.Any], step: Step) -> None:
        step.run("wait", lambda: begun.set() or [time.sleep(0.01) for _ in range(9000)])

    process = WorkerProcess(harness.state, queues=["default"], threads=2, grace=20)
    process.start()
    event = harness.send("work/slow")
    assert begun.wait(20)
    stop = threading.Thread(target=process.stop, daemon=True)
    stop.start()
    assert hangs.reached.wait(20)
    wait_until(lambda: status(harness, event) != "running", "the hand-back")
    stop.join(20)
    assert not stop.is_alive()
    assert harness.state.services.draining.is_set()
    assert hangs.records == []
    with harness.app.app_context():
        assert harness.state.directory.workers() == []


def test_a_drain_begins_before_it_is_told(harness: Harness) -> None:
    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=20)
    process.start()
    stop = threading.Thread(target=process.stop)
    # Without a thread that tells lines.
    with hanging("flask_durable") as handler:
        stop.start()
        assert handler.reached.wait(20)
        assert harness.state.services.draining.is_set()
        assert handler.records == []
    stop.join(20)


def test_leases_are_renewed_although_a_log_handler_hangs(
    harness: Harness, hangs: HangingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, renewed = threading.Event(), threading.Event(), threading.Event()
    plain = RunStore.renew

    def renew(store: RunStore, *args: t.Any) -> list[Renewal]:
        if not hangs.reached.is_set():
            raise redis.ConnectionError("the server restarts")
        replies = plain(store, *args)
        renewed.set()
        return replies

    @harness.durable.function(on="work/slow")
    def slow(event: Event[t.Any], step: Step) -> None:
        step.run("wait", lambda: begun.set() or go_on.wait(60))

    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=20)
    monkeypatch.setattr(RunStore, "renew", renew)
    monkeypatch.setattr(harness.state.store, "lease", 1.0)
    process.start()
    try:
        harness.send("work/slow")
        assert begun.wait(20)
        assert hangs.reached.wait(20)  # "Could not renew leases"
        assert renewed.wait(20)
        assert hangs.records == []
    finally:
        go_on.set()
        process.stop()


def test_a_run_thread_that_is_gone_is_seen(harness: Harness) -> None:
    @harness.durable.function(on="work/one")
    def one(event: Event[t.Any], step: Step) -> None: ...

    process = WorkerProcess(harness.state, queues=["default"], threads=2, grace=20)
    process.start()
    try:
        assert process.ailing() == {}
        process._threads._worker.workers[0].stop()
        wait_until(lambda: "is gone" in process.ailing().values())
    finally:
        process.stop()


def test_readiness_and_health_name_a_thread_that_stands_still(
    harness: Harness,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def turn() -> float:
        begun.set()
        go_on.wait(20)
        return 0.01

    loop = Loop("durable-still", turn, lambda error: 0, patience=0)
    loop.start()
    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=20)
    try:
        assert begun.wait(5)
        wait_until(lambda: "durable-still" in ailing())
        process.start()
        ready = {c.name: c for c in HealthChecks(harness.state).readiness()}
        assert not ready["threads"].ok
        assert "durable-still stands still" in ready["threads"].detail
        health = {c.name: c for c in HealthChecks(harness.state).everything()}
        assert not health["workers"].ok
        assert "durable-still stands still" in health["workers"].detail
    finally:
        go_on.set()
        assert loop.stop(5)
        process.stop()


@dataclasses.dataclass
class Patient:
    """A worker process with the ailments that a test gives it."""

    ails: dict[str, str]
    worn: str = ""

    def ailing(self) -> dict[str, str]:
        return self.ails

    def worn_out(self) -> str:
        return self.worn


def test_a_worker_ends_for_a_thread_that_is_gone_but_not_for_one_that_is_late() -> None:
    ails: dict[str, str] = {}
    vitals = Vitals(Patient(ails))
    assert not vitals.look()
    ails["durable-leases"] = "stands still for 70 s"
    assert not any(vitals.look() for _ in range(LOOKS_STILL - 1))
    ails.clear()  # a process that was stopped, and goes on
    assert not vitals.look()
    ails["durable-leases"] = "stands still for 70 s"
    assert not any(vitals.look() for _ in range(LOOKS_STILL - 1))
    assert vitals.look() == "its thread durable-leases stands still for 70 s"
    ails["durable-leases"] = "is gone"
    assert not any(vitals.look() for _ in range(LOOKS_GONE - 1))
    assert vitals.look() == "its thread durable-leases is gone"


def test_a_worker_ends_at_the_first_look_that_finds_it_worn_out() -> None:
    """3.4: The process is renewed when too many threads are lost."""
    patient = Patient({})
    vitals = Vitals(patient)
    assert not vitals.look()
    patient.worn = "5 threads are lost"
    assert vitals.look() == "5 threads are lost"


def test_a_run_thread_that_has_no_file_descriptors_to_reach_the_server_is_seen(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.common.lack.LACKING", 0)
    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=20)
    services = harness.state.services
    tries: list[dict[str, str]] = []

    def connect() -> None:
        tries.append(process.ailing())
        if len(tries) < 3:
            raise redis.ConnectionError from OSError(errno.EMFILE, "too many")

    services.retry_until_answered(connect)

    assert tries[0] == {}
    assert list(tries[2].values()) == ["has no file descriptors left"]
    assert process.ailing() == {}


def test_a_worker_ends_for_a_thread_that_has_no_file_descriptors_left() -> None:
    vitals = Vitals(Patient({"durable-beat": "has no file descriptors left"}))
    assert not any(vitals.look() for _ in range(LOOKS_GONE - 1))
    assert vitals.look() == "its thread durable-beat has no file descriptors left"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_worker_that_leaves_waits_for_nobody_and_flushes() -> None:
    done = run(
        "import atexit, sys, threading, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from flask_durable.worker.service import leave\n"
        "ThreadPoolExecutor(1).submit(time.sleep, 600)\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "atexit.register(lambda: print('flushed'))\n"
        "atexit.register(lambda: time.sleep(600) if len(sys.argv) > 5 else None)\n"
        "leave(7)\n"
    )
    assert (done.returncode, done.stdout) == (7, "flushed\n")


def test_a_hook_of_the_app_that_hangs_does_not_keep_the_process() -> None:
    done = run(
        "import atexit, time\n"
        "from flask_durable.worker.service import leave\n"
        "atexit.register(time.sleep, 600)\n"
        "leave(0)\n"
    )
    assert done.returncode == 0


def test_a_child_that_a_step_forks_can_be_ended() -> None:
    done = run(
        "import os, signal, time\n"
        "from flask_durable.worker.signals import take_signals\n"
        "take_signals(lambda signum, frame: print('taken', flush=True))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    time.sleep(600)\n"
        "os.kill(child, signal.SIGTERM)\n"
        "print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert done.stdout == "15\ntaken\n", done.stderr


def no_thread(thread: threading.Thread) -> t.NoReturn:
    raise RuntimeError("can't start new thread")


def test_a_worker_drains_where_no_thread_can_be_started(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()

    @harness.durable.function(on="work/slow")
    def slow(event: Event[t.Any], step: Step) -> None:
        step.run("wait", lambda: begun.set() or (gate.wait(20) and None))

    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=20)
    process.start()
    event = harness.send("work/slow")
    assert begun.wait(20)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        process.stop(2)
    gate.set()
    assert status(harness, event) == "suspended"


def test_the_process_is_gone_before_runs_that_are_in_c_code_begin_elsewhere(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    monkeypatch.setattr(
        process_module, "hand_back_attempts", lambda *args: delays.append(args[3])
    )
    process = WorkerProcess(harness.state, queues=["default"], threads=1, grace=20)
    process._deadline = time.monotonic() + 5
    process._hand_back_rest()

    longest = process_module.LAST_RESORT + process_module.EXIT_PATIENCE
    assert delays[0] == pytest.approx(5 + longest, abs=0.5)


@pytest.mark.parametrize("fails", ["drain", "threads"])
def test_a_worker_ends_with_threads_left_behind_if_it_cannot_drain(fails: str) -> None:
    program = f"""
import threading
from flask import Flask
from flask_durable.worker import service

class Broken:
    id = "broken"
    ailing = worn_out = lambda self: {{}}
    def __init__(self, *args, **kwargs): ...
    def start(self):
        service.signal.raise_signal(service.signal.SIGTERM)
    def stop(self, grace):
        if {fails == "drain"}:
            raise ConnectionError("away")

class State:
    app = Flask("left_behind")
    functions = [1]

def no_thread(thread):
    raise RuntimeError("can't start new thread")

threading.Thread(target=threading.Event().wait).start()
service.WorkerProcess = Broken
if {fails == "threads"}:
    threading.Thread.start = no_thread
service.leave(service.run_worker(State, queues=[], threads=1, grace=5))
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, timeout=30, capture_output=True, text=True)
    assert ended.returncode == (1 if fails == "drain" else 0)
    assert ("could not drain" in ended.stderr) is (fails == "drain")
