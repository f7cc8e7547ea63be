"""``flask durable worker`` with several processes, and with ``--watch``."""

from __future__ import annotations

import os
import shutil
import signal

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
