"""``flask durable worker`` with several processes, and with ``--watch``."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import typing as t

import pytest

from ..cli.processes import children
from ..cli.processes import descendants
from ..cli.processes import gone
from ..support.servers import wait_until
from .sites import APP
from .sites import Site
from .sites import TIMEOUT


def test_a_supervisor_keeps_its_processes_and_takes_them_along(site: Site) -> None:
    app = site.folder / "app.py"
    shutil.copy(APP, app)
    supervisor = site.worker("--processes=2", "--watch", app=str(app))
    supervisor.says("is ready", 2)
    first = children(supervisor.pid)
    assert len(first) == 2

    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    supervisor.says("is ready", 3)
    second = children(supervisor.pid)
    assert len(second) == 2
    assert len(first & second) == 1

    app.write_text(app.read_text() + "\n# changed\n")
    supervisor.says("is ready", 5)
    third = children(supervisor.pid)
    assert len(third) == 2
    assert not third & second

    # Each has a child process that keeps its runs while it cannot.
    wait_until(lambda: all(len(descendants(pid)) == 1 for pid in third), "the children")
    lifelines = [descendants(pid) for pid in third]

    # To a platform they are one worker.
    described = site.state.directory.workers()
    assert {worker["pid"] for worker in described} >= third
    assert len({worker["unit"] for worker in described}) == 1

    site.send("work/five", "five", pace=0)
    site.are("completed", "five")
    every = third.union(*lifelines)
    supervisor.kill()
    wait_until(lambda: all(gone(pid) for pid in every), "the end of all", TIMEOUT)


def test_a_supervisor_drains_its_processes(site: Site) -> None:
    supervisor = site.worker("--processes=2", threads=1)
    supervisor.says("is ready", 2)
    for number in range(2):
        site.send("work/five", f"five-{number}", pace=0.5)
    site.has_begun(3)
    # As a container's runtime does it: everybody at once, the children twice.
    for pid in (supervisor.pid, *descendants(supervisor.pid), supervisor.pid):
        os.kill(pid, signal.SIGTERM)

    assert supervisor.wait() == 0
    assert len(site.trace("begin")) == len(site.trace("end"))
    site.worker()
    site.are("completed", "five-0", "five-1")
    site.each_step_ran_once()


@contextlib.contextmanager
def supervised(site: Site, *command: str) -> t.Iterator[tuple[t.Any, int, int]]:
    """Start a command that keeps processes; give it, and both ends of its stderr."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", APP, "durable", *command],
        env={**os.environ, **site.environment},
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=write,
        start_new_session=True,
    )
    try:
        yield process, read, write
    finally:
        for pid in (process.pid, *descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(TIMEOUT)
        for end in (read, write):
            with contextlib.suppress(OSError):
                os.close(end)


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")
    os.set_blocking(pipe, True)


@pytest.mark.parametrize("stderr", ["gone", "full"])
def test_a_supervisor_works_on_if_nobody_reads_what_it_says(
    site: Site, stderr: str
) -> None:
    command = ("worker", "--processes=2", "--threads=1", "--drain-timeout=5s")
    with supervised(site, *command) as (supervisor, read, write):
        wait_until(lambda: len(site.state.directory.workers()) == 2, "both", TIMEOUT)
        first = children(supervisor.pid)
        if stderr == "full":
            fill(write)
        else:
            os.close(write)
            os.close(read)
        os.kill(min(first), signal.SIGKILL)
        wait_until(lambda: len(children(supervisor.pid) - first) == 1, "one", TIMEOUT)
        assert max(first) in children(supervisor.pid)
        (new,) = children(supervisor.pid) - first
        found = site.state.directory.workers
        wait_until(lambda: new in {w["pid"] for w in found()}, "its work", TIMEOUT)
        left = descendants(supervisor.pid)

        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(TIMEOUT) == 0
        wait_until(lambda: all(gone(pid) for pid in left), "the end of all", TIMEOUT)
        # They drained, and signed off.
        assert {w["pid"] for w in found()} <= {min(first)}
