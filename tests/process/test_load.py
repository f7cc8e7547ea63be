"""Many runs that sleep, and many senders of one event."""

from __future__ import annotations

import concurrent.futures

from .sites import Site

#: Each message of moto's SQS costs some milliseconds of this machine.
SLEEPERS = {"redis": 500, "sqs": 100}


def test_sleeping_runs_hold_nothing_and_survive_a_restart(shaky_site: Site) -> None:
    sleepers = SLEEPERS[shaky_site.kind]
    worker = shaky_site.ready(threads=8)
    shaky_site.send("nap/asked", "first")
    shaky_site.are("suspended", "first")
    threads = worker.threads()
    shaky_site.send_many("nap/asked", [f"nap-{n}" for n in range(1, sleepers)])
    shaky_site.counts("suspended", sleepers)

    shaky_site.are_empty()
    # A worker's own threads begin at their first use; none is there for a run.
    assert worker.threads() <= threads + 4 < threads + sleepers
    worker.kill()
    shaky_site.valkey.kill()
    shaky_site.valkey.start()
    shaky_site.ready(threads=8)
    assert shaky_site.count("suspended") == sleepers
    shaky_site.skip(3600)
    shaky_site.counts("completed", sleepers)
    shaky_site.each_step_ran_once()
    assert len(shaky_site.trace()) == 2 * sleepers
    shaky_site.are_empty()


def test_an_event_sent_fifty_times_at_once_is_one_run(any_site: Site) -> None:
    for worker in [any_site.worker() for _ in range(2)]:
        worker.says("is ready")

    def send(_: int) -> str:
        return any_site.send("work/five", "the-same", pace=0.02)

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        ids = set(pool.map(send, range(50)))

    assert ids == {"the-same"}
    any_site.are("completed", "the-same")
    any_site.are_empty()
    assert any_site.count("completed") == 1
    any_site.each_step_ran_once()
