"""The processes of the development stack, without the app that runs in them."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import threading
import typing as t

import pytest

from flask_durable.cli.stack import children
from flask_durable.cli.stack import keeper as keeper_module
from flask_durable.cli.stack.children import Child
from flask_durable.cli.stack.keeper import Keeper
from flask_durable.errors import UnavailableError
from flask_durable.redis.embedded import EmbeddedServer
from flask_durable.redis.embedded import find_running

from ...support.servers import wait_until
from ..processes import descendants
from ..processes import gone

#: Writes its process id, and on SIGTERM that it ended in an orderly way.
WORKER = """
import os, signal, sys, time
folder = sys.argv[1]
def stop(*_):
    open(f"{folder}/stopped", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with open(f"{folder}/pids", "a") as file:
    print(os.getpid(), file=file)
time.sleep(600)
"""

#: Cannot be asked to end, and has a child of its own.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(f"{sys.argv[1]}/pids", "a") as file:
    print(child.pid, file=file)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(children, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(keeper_module, "_POLL_INTERVAL", 0.01)
    monkeypatch.setattr(keeper_module, "_LOOK_INTERVAL", 0.01)


def child_of(script: str, folder: pathlib.Path, **options: t.Any) -> Child:
    command = [sys.executable, "-c", script, str(folder)]
    return Child("worker", command, os.environ, **options)


def pids(folder: pathlib.Path) -> list[int]:
    path = folder / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


class Running:
    """A keeper that is stopped at the end of the test."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    def __enter__(self) -> Keeper:
        self.keeper.start()
        return self.keeper

    def __exit__(self, *exc_info: object) -> None:
        self.keeper.stop()


def test_a_process_that_was_killed_is_started_again(tmp_path: pathlib.Path) -> None:
    with Running(Keeper(None, lambda: [child_of(WORKER, tmp_path)])):
        wait_until(lambda: len(pids(tmp_path)) == 1)
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path)) == 2)
    assert all(gone(pid) for pid in pids(tmp_path))


def test_stopping_asks_the_process_to_end_and_waits_for_it(
    tmp_path: pathlib.Path,
) -> None:
    with Running(Keeper(None, lambda: [child_of(WORKER, tmp_path)])):
        wait_until(lambda: pids(tmp_path))
    assert (tmp_path / "stopped").exists()
    assert gone(pids(tmp_path)[0])


def test_a_process_that_does_not_end_is_killed_with_what_it_started(
    tmp_path: pathlib.Path,
) -> None:
    before = descendants(os.getpid())
    with Running(Keeper(None, lambda: [child_of(STUBBORN, tmp_path, grace=0.1)])):
        wait_until(lambda: pids(tmp_path))
    wait_until(lambda: gone(pids(tmp_path)[0]))
    assert descendants(os.getpid()) <= before


def test_killing_does_not_wait_for_the_grace(tmp_path: pathlib.Path) -> None:
    keeper = Keeper(None, lambda: [child_of(STUBBORN, tmp_path, grace=3600)])
    keeper.start()
    wait_until(lambda: pids(tmp_path))
    keeper.kill()
    keeper.stop()
    wait_until(lambda: gone(pids(tmp_path)[0]))


def test_what_a_dead_process_left_behind_is_killed_before_it_starts_again(
    tmp_path: pathlib.Path,
) -> None:
    with Running(
        Keeper(None, lambda: [child_of(STUBBORN, tmp_path, grace=0.1)])
    ) as keeper:
        wait_until(lambda: pids(tmp_path))
        os.kill(keeper.pids["worker"], signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path)) == 2)
        assert gone(pids(tmp_path)[0])


def test_a_process_that_keeps_dying_ends_the_stack(tmp_path: pathlib.Path) -> None:
    dying = "import sys; sys.exit(5)"
    log = tmp_path / "worker.log"
    keeper = Keeper(None, lambda: [child_of(dying, tmp_path, log=log)])
    keeper.start()
    assert keeper.stopping.wait(30)
    keeper.stop()
    assert isinstance(keeper.error, UnavailableError)
    assert "worker keeps dying." in str(keeper.error)
    assert str(log) in str(keeper.error.hint)


def test_a_process_whose_source_is_being_edited_is_never_given_up(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "broken.py"
    script.write_text(f"open({str(tmp_path / 'tries')!r}, 'a').write('x'); 1 / 0")
    child = Child("worker", [sys.executable, str(script)], os.environ)
    keeper = Keeper(None, lambda: [child], restart_on_change=["worker"])
    with Running(keeper):
        tries = tmp_path / "tries"
        wait_until(lambda: tries.exists() and len(tries.read_text()) > 6)
        assert keeper.error is None


def test_delays_between_restarts_grow_and_a_healthy_life_resets_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(children, "FIRST_DELAY", 0.5)
    monkeypatch.setattr(children, "LONGEST_DELAY", 5.0)
    child = child_of("", tmp_path)
    messages = [child._died(1, now=1.0) for _ in range(6)]
    delays = [message.rpartition(" in ")[2] for message in messages]
    assert delays == ["0.5 s.", "1 s.", "2 s.", "4 s.", "5 s.", "5 s."]
    child._died(1, now=children.HEALTHY_AFTER)
    assert child.deaths == 1


def test_a_server_that_was_killed_is_started_again_on_its_port(
    tmp_path: pathlib.Path,
) -> None:
    server = EmbeddedServer(tmp_path / "durable")
    with Running(Keeper(server, lambda: [])) as keeper:
        url, pid = server.url, keeper.pids["server"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: keeper.pids.get("server") not in (None, pid))
        wait_until(lambda: find_running(server.directory) == url)
    assert find_running(server.directory) is None


def test_a_stack_takes_over_when_the_server_of_another_one_goes(
    tmp_path: pathlib.Path,
) -> None:
    first = EmbeddedServer(tmp_path / "durable")
    first.start()
    try:
        second = EmbeddedServer(tmp_path / "durable")
        with Running(Keeper(second, lambda: [])) as keeper:
            assert keeper.pids == {}
            first.stop()
            wait_until(lambda: "server" in keeper.pids)
            assert find_running(tmp_path / "durable") == first.url
    finally:
        first.stop()


def test_the_server_outlives_the_clients_and_the_queue(tmp_path: pathlib.Path) -> None:
    order = tmp_path / "order"
    script = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(float(sys.argv[2]))\n"
        f"    open({str(order)!r}, 'a').write(sys.argv[1] + ' ')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"open({str(order)!r} + sys.argv[1], 'w').close()\n"
        "time.sleep(600)\n"
    )

    def make(name: str, delay: float, **options: t.Any) -> Child:
        command = [sys.executable, "-c", script, name, str(delay)]
        return Child(name, command, os.environ, **options)

    children = [make("sqs", 0, is_server=True), make("worker", 0.3)]
    with Running(Keeper(None, lambda: children)):
        for name in ("sqs", "worker"):
            wait_until(pathlib.Path(f"{order}{name}").exists)
    assert order.read_text().split() == ["worker", "sqs"]


def test_a_stack_that_cannot_be_started_leaves_nothing_behind(
    tmp_path: pathlib.Path,
) -> None:
    server = EmbeddedServer(tmp_path / "durable")

    def fail() -> list[Child]:
        raise UnavailableError("no")

    with pytest.raises(UnavailableError):
        Keeper(server, fail).start()
    assert find_running(server.directory) is None


def test_all_of_it_can_be_started_from_a_thread_that_ends(
    tmp_path: pathlib.Path,
) -> None:
    server = EmbeddedServer(tmp_path / "durable")
    keeper = Keeper(server, lambda: [child_of(WORKER, tmp_path)])
    starter = threading.Thread(target=keeper.start)
    starter.start()
    starter.join()
    try:
        wait_until(lambda: pids(tmp_path))
        pid = keeper.pids["server"]
        # A signal sent at the starter's end would have arrived by now.
        wait_until(lambda: find_running(server.directory) is not None)
        assert not gone(pid)
        assert not gone(pids(tmp_path)[0])
    finally:
        keeper.stop()
