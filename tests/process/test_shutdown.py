"""Workers are asked to end, stand still, or have older code than others."""

from __future__ import annotations

import signal
import time

import pytest

from flask_durable.scaler.introspectors.own import RunSensor

from ..support.servers import wait_until
from .sites import Site


@pytest.mark.parametrize("group", [False, True], ids=["one", "group-and-relay"])
def test_a_worker_stops_at_the_next_step_and_another_goes_on(
    site: Site, group: bool
) -> None:
    worker = site.ready()
    site.send("work/five", "five", pace=0.5)
    site.has_begun(2)
    worker.signal(signal.SIGTERM, group=group)
    if group:
        worker.says("Draining")  # else the two would be one
        worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    begun = len(site.trace("begin"))
    assert begun == len(site.trace("end")) < 5
    run = site.run_of("five")
    assert (run.status, run.reason) == ("queued", None)
    assert run.dispatches == 0

    site.worker()
    site.are("completed", "five")
    site.each_step_ran_once()


def test_a_signal_that_does_not_wake_the_worker_up_ends_it(site: Site) -> None:
    # As one does that comes just before the main thread waits.
    worker = site.ready()
    site.send("work/signal", "signal")
    assert worker.wait() == 0
    assert "Draining" in worker.output


def test_a_step_that_does_not_end_is_handed_back(site: Site) -> None:
    way_out = site.folder / "way-out"
    worker = site.ready("--drain-timeout=4s")
    site.send("work/stuck", "stuck", **{"way-out": str(way_out)})
    site.has_begun(1)
    worker.signal(signal.SIGTERM)
    asked = time.monotonic()

    assert worker.wait(4 + 3) == 0, "it outlives its drain timeout"
    assert time.monotonic() - asked < 4 + 3
    assert site.run_of("stuck").reason == "worker shutdown"
    way_out.touch()
    site.worker()
    site.are("completed", "stuck")
    steps = [line["step"] for line in site.trace()]
    assert steps == ["first", "stuck", "stuck", "last"]
    site.no_committed_step_ran_again()


def test_a_worker_says_that_it_drains_and_who_it_is(site: Site) -> None:
    worker = site.ready("--drain-timeout=60s")
    site.send("work/stuck", "stuck", **{"way-out": str(site.folder / "none")})
    site.has_begun(1)
    workers = site.state.directory.workers
    assert [known["draining"] for known in workers()] == [False]
    queues = RunSensor(site.state.server, site.state.store.keys, ["default"])
    [job] = queues.look(0).running
    assert job.process == workers()[0]["process"], "its scaler knows who has the run"
    worker.signal(signal.SIGTERM)
    wait_until(lambda: [w["draining"] for w in workers()] == [True], "it says it", 30)
    worker.kill()


def test_a_worker_that_stood_still_past_its_lease_writes_nothing(site: Site) -> None:
    late = site.ready()
    site.send("work/five", "five", pace=0.5)
    site.has_begun(2)

    def stands_still_in_a_body() -> bool:
        # On a busy machine a body may have ended before the signal came.
        late.signal(signal.SIGSTOP)
        if site.trace()[-1]["moment"] == "begin":
            return True
        late.signal(signal.SIGCONT)
        return False

    wait_until(stands_still_in_a_body, "a stop inside a body")
    site.worker()
    site.are("completed", "five")
    run, trace = site.run_of("five"), site.trace()

    late.signal(signal.SIGCONT)
    late.signal(signal.SIGTERM)  # it ends when its body has
    assert late.wait() == 0
    assert site.run_of("five") == run
    # The body comes to its end, unless the loss of its run interrupts it before.
    more = [(line["moment"], line["pid"]) for line in site.trace()[len(trace) :]]
    assert more in ([], [("end", late.pid)])


def test_events_for_a_new_function_are_not_lost_on_old_workers(any_site: Site) -> None:
    old = any_site.worker(TEST_WITHOUT="fresh")
    new = any_site.worker()
    for worker in (old, new):
        worker.says("is ready")
    events = [any_site.send("work/fresh", f"fresh-{n}") for n in range(20)]

    def look() -> bool:
        # Runs that the old worker was given are set aside for a while.
        any_site.skip(30)
        runs = any_site.runs_of(*events)
        return [run.status.value for run in runs] == ["completed"] * len(events)

    wait_until(look, "20 runs completed", 60)
    any_site.each_step_ran_once()
    assert {line["pid"] for line in any_site.trace()} == {new.pid}
    any_site.are_empty()
