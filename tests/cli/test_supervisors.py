"""Supervisors of workers: those that keep dying end the supervisor, too."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import sys
import time
import typing as t

import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from flask_durable.app.scaling import pool_state_of
from flask_durable.cli import pool
from flask_durable.cli import worker
from flask_durable.cli.pool import Supervisor
from flask_durable.cli.stack import children
from flask_durable.cli.stack.children import all_keep_dying
from flask_durable.cli.stack.children import Child

from ..support.harness import Harness
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

FALSE = str(shutil.which("false"))

#: Dies until there is a file.
ILL = 'test -e "$1" && exec sleep 600; exit 3'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    """Wait for little, call nothing healthy, and leave the signals as they were."""
    monkeypatch.setattr(children, "HEALTHY_AFTER", 3600.0)
    monkeypatch.setattr(children, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(children, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(pool, "_POLL_INTERVAL", 0.01)
    monkeypatch.setattr(worker, "_POLL_INTERVAL", 0.01)
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in signals}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def harness(valkey: ValkeyServer, namespace: str) -> t.Iterator[Harness]:
    made = Harness(
        valkey.url, namespace, DURABLE_SCALE={"media": {"desired_wait": "9s"}}
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    ("given", "passed_on"), [([], []), (["-q", "a, b"], ["--queues=a,b"])]
)
def test_worker_processes_are_told_queues_only_if_the_command_was(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    passed_on: list[str],
) -> None:
    told: list[str] = []
    monkeypatch.setattr(worker, "_supervise", lambda given, *_: told.extend(given))
    info = ScriptInfo(create_app=lambda: harness.app)
    CliRunner().invoke(worker.worker, ["-p", "2", *given], obj=info)
    assert [x for x in told if x.startswith("--queues")] == passed_on
    assert "--threads=8" in told


def test_a_pool_whose_workers_all_keep_dying_gives_up(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    pool_state = pool_state_of(harness.state, "media")
    supervisor = Supervisor(
        "media", [FALSE], grace=5, pool_state=pool_state, minimum=2, busy=lambda: ()
    )
    assert supervisor.run() == 1
    said = capsys.readouterr().err
    assert said.count("died (exit code 1)") >= 2 * children.MAX_DEATHS
    assert said.endswith("media: the worker processes keep dying, so the pool stops.\n")
    # The scaler is told that nobody keeps the pool.
    assert not pool_state.supervised()


def test_worker_processes_that_all_keep_dying_end_their_supervisor(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", FALSE)
    runner = harness.app.test_cli_runner()
    result = runner.invoke(worker.worker, ["--processes=2", "--queues=default"])
    assert result.exit_code == 1, result.output
    assert "The worker processes keep dying, so the command stops." in result.output


def test_one_that_is_healthy_again_does_not_count_among_those_that_keep_dying(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cure = tmp_path / "cure"
    # The other has no cure: the last process of it may look for one only now.
    ill, dead = (
        Child(name, ["sh", "-c", ILL, "sh", str(path)], os.environ)
        for name, path in (("one", cure), ("two", tmp_path / "none"))
    )
    for child in (ill, dead):
        child.start()

    def look() -> bool:
        for child in (ill, dead):
            child.poll()
            time.sleep(0.01)
        return all_keep_dying([ill, dead])

    wait_until(look)
    cure.touch()
    try:
        wait_until(lambda: (ill.poll(), ill.pid)[1] is not None)
        # It is not known yet if it lives on.
        assert ill.keeps_dying
        # Otherwise its last process would count as healthy, too.
        wait_until(lambda: (dead.poll(), dead.pid is None)[1])
        monkeypatch.setattr(children, "HEALTHY_AFTER", 0.0)
        wait_until(lambda: (ill.poll(), not ill.keeps_dying)[1])
        assert dead.keeps_dying
        assert not all_keep_dying([ill, dead])
    finally:
        for child in (ill, dead):
            child.kill()
            wait_until(child.stopped)


def test_a_pool_without_workers_does_not_give_up() -> None:
    assert not all_keep_dying([])
