"""A worker that cannot renew its leases, and lives, keeps its runs for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.common.ids import own_process
from flask_durable.worker import lifeline_child
from flask_durable.worker.lifeline import Lifeline

from ..support.harness import Harness

PATIENCE = 20.0


def poll(look: t.Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def harness(valkey: t.Any, namespace: str) -> t.Iterator[Harness]:
    harness = Harness(valkey.url, namespace, DURABLE_LEASE="1s")
    yield harness
    harness.close()


@pytest.fixture
def lifeline(harness: Harness) -> t.Iterator[Lifeline]:
    lifeline = Lifeline(harness.state.store)
    yield lifeline
    lifeline._end()


def sign(harness: Harness) -> str:
    (tag,) = harness.state.store.keys.tags
    return f"{tag}:alive:{own_process()}"


def test_a_worker_that_is_silent_and_runs_is_alive(
    harness: Harness, lifeline: Lifeline
) -> None:
    lifeline._turn()  # one beat, and no further one

    poll(lambda: harness.state.server.client.exists(sign(harness)))
    assert harness.state.server.client.pttl(sign(harness)) <= 1000


def test_a_child_that_ended_is_started_again(lifeline: Lifeline) -> None:
    lifeline._turn()
    first = lifeline._child
    assert first is not None
    first.kill()
    first.wait(PATIENCE)

    lifeline._turn()

    assert lifeline.pid not in (None, first.pid)


@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="has no /proc")
def test_the_child_is_started_from_no_file_that_a_deploy_may_remove(
    lifeline: Lifeline,
) -> None:
    lifeline._turn()

    command = ""

    def told() -> bool:
        nonlocal command
        with open(f"/proc/{lifeline.pid}/cmdline", encoding="utf-8") as file:
            command = file.read()
        return "-I" in command  # it may be empty while the program is exchanged

    poll(told)
    assert os.path.dirname(lifeline_child.__file__) not in command
    assert sys.prefix == sys.base_prefix or sys.prefix not in command


def test_the_child_ends_with_its_worker(lifeline: Lifeline) -> None:
    lifeline._turn()
    child = lifeline._child
    assert child is not None
    lifeline._end()

    assert child.returncode == 0


def test_a_process_that_is_stopped_or_gone_does_not_run() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert lifeline_child.runs(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        poll(lambda: not lifeline_child.runs(process.pid))
        os.kill(process.pid, signal.SIGCONT)
        poll(lambda: lifeline_child.runs(process.pid))
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
    assert not lifeline_child.runs(process.pid)


def test_runs_of_a_process_that_is_alive_are_not_taken_until_it_is_silent(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    event = harness.send("a/b")
    harness.route()  # claimed, and not renewed
    client = harness.state.server.client
    client.set(sign(harness), "1")
    for _ in range(3):
        harness.expire_leases()
    assert harness.run_of(event).status == "running"

    client.delete(sign(harness))
    harness.expire_leases()

    assert harness.run_of(event).status == "queued"
