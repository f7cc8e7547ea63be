"""Long steps go on from their checkpoints in other processes."""

from __future__ import annotations

import pathlib
import signal

from ..support.servers import wait_until
from .sites import Process
from .sites import Site
from .sites import TIMEOUT

CHUNKS = 100


def chunks(site: Site, worker: Process | None = None) -> list[int]:
    """Return the chunks that were begun, in order, in all processes or in one."""
    return [
        int(line["moment"].removeprefix("chunk "))
        for line in site.trace()
        if line["moment"].startswith("chunk ")
        and (worker is None or line["pid"] == worker.pid)
    ]


def hurry(site: Site) -> str:
    """Return the path of the file that lets chunks be done at once."""
    return str(site.folder / "hurry")


def begun(site: Site) -> Process:
    """Return a worker in the middle of a long step."""
    worker = site.ready()
    site.send("work/chunks", "long", count=CHUNKS, hurry=hurry(site))
    wait_until(lambda: len(chunks(site, worker)) >= 4, "four chunks", TIMEOUT)
    return worker


def test_a_killed_workers_long_step_goes_on_from_its_checkpoint(any_site: Site) -> None:
    """3.1: Also in another process, also after a kill."""
    first = begun(any_site)
    first.kill()
    done = chunks(any_site, first)
    pathlib.Path(hurry(any_site)).touch()
    second = any_site.ready()

    any_site.are("completed", "long")
    run = any_site.run_of("long")
    # The chunk that was being done may have been stored in the moment of the kill.
    assert run.result in (done[-1], done[-1] + 1)
    assert chunks(any_site, second) == list(range(run.result, CHUNKS))
    assert run.steps[0].attempt == 1
    any_site.no_committed_step_ran_again()
    any_site.are_empty()


def test_a_deploy_in_the_middle_of_a_long_step_repeats_nothing(any_site: Site) -> None:
    """3.2: A worker that drains ends the step at its checkpoint; nothing is counted."""
    first = begun(any_site)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0

    done = chunks(any_site, first)
    assert len(done) < CHUNKS
    run = any_site.run_of("long")
    assert (run.status, run.reason, run.dispatches) == ("queued", None, 0)
    assert run.steps[0].checkpoint == len(done)
    assert run.progress is not None
    pathlib.Path(hurry(any_site)).touch()
    second = any_site.ready()
    any_site.are("completed", "long")
    assert chunks(any_site) == list(range(CHUNKS))
    run = any_site.run_of("long")
    assert run.result == len(done)
    assert (run.attempt, run.steps[0].attempt) == (1, 1)
    assert chunks(any_site, second) == list(range(len(done), CHUNKS))
    any_site.are_empty()
