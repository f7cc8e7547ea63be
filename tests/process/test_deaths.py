"""Processes and servers are killed under running runs."""

from __future__ import annotations

import json
import time
import urllib.request

from ..forwarding.receiver import Handler
from ..forwarding.receiver import Receiver
from ..support.servers import wait_until
from .sites import Site

EVENT_KEY = "evk_" + 43 * "a"


def test_runs_of_a_killed_worker_go_on_with_another(any_site: Site) -> None:
    workers = [any_site.worker() for _ in range(3)]
    for worker in workers:
        worker.says("is ready")
    events = [any_site.send("work/five", f"five-{n}", pace=0.15) for n in range(6)]
    for worker, begun in zip(workers, (2, 12), strict=False):
        any_site.has_begun(begun)
        worker.kill()

    any_site.are("completed", *events)
    any_site.no_committed_step_ran_again()
    any_site.are_empty()


def test_running_runs_survive_the_death_of_the_state_server(shaky_site: Site) -> None:
    shaky_site.ready(threads=10)
    events = [shaky_site.send("work/five", f"five-{n}", pace=0.3) for n in range(10)]
    shaky_site.has_begun(12)
    shaky_site.valkey.kill()
    time.sleep(2)  # as long as it takes a supervisor to notice
    shaky_site.valkey.start()

    shaky_site.are("completed", *events)
    shaky_site.no_committed_step_ran_again()
    shaky_site.are_empty()


def test_an_event_is_owned_once_the_endpoint_has_answered(any_site: Site) -> None:
    web, address = any_site.web(FLASK_DURABLE_EVENT_KEYS=EVENT_KEY)
    event = {"name": "work/five", "id": "over-http", "data": {"pace": 0}}
    request = urllib.request.Request(
        f"{address}/durable/events",
        json.dumps(event).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {EVENT_KEY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 202
        web.kill()

    any_site.worker()
    any_site.are("completed", "over-http")
    any_site.each_step_ran_once()


def test_a_delivery_whose_worker_dies_before_the_answer_is_made_again(
    any_site: Site, receiver: Receiver
) -> None:
    def die(handler: Handler) -> None:
        workers.pop().kill()

    receiver.answers = [die]
    workers = [any_site.ready(TEST_FORWARD=receiver.url)]
    event = any_site.send("work/forwarded", "forwarded")
    wait_until(lambda: not workers, "a delivery")
    any_site.ready(TEST_FORWARD=receiver.url)

    any_site.are("completed", event)
    first, second = receiver.deliveries
    assert first.json["id"] == second.json["id"] == event
    assert first.body == second.body
    any_site.are_empty()


def test_a_run_that_kills_its_worker_each_time_is_paused(site: Site) -> None:
    antidote = site.folder / "antidote"
    site.worker("--processes=2", threads=1, FLASK_DURABLE_MAX_DISPATCHES="2")
    site.send("work/poison", "poison", antidote=str(antidote))

    site.are("paused", "poison")
    run = site.run_of("poison")
    assert run.reason == "claimed 2 times without progress"
    antidote.touch()
    site.resume(run.id)
    site.are("completed", "poison")
    assert site.run_of("poison").result == "alive"
