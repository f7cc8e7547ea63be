"""Workers on SQS: what messages go through when servers and workers come and go."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest

from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage

from ..queue.sqs_proxy import Proxy
from ..queue.sqs_proxy import sqs_proxy
from ..support.servers import SQSServer
from ..support.servers import valkey_server
from ..support.servers import wait_until
from .sites import Site
from .sites import VISIBILITY

#: Seconds: for a lease and a visibility of a minute this would be a step of five.
LONG_STEP = 5.0 * VISIBILITY


@pytest.fixture
def proxy(sqs: SQSServer) -> t.Iterator[Proxy]:
    with sqs_proxy(sqs.endpoint) as made:
        yield made


@pytest.fixture
def sqs_site(tmp_path: pathlib.Path, namespace: str, proxy: Proxy) -> t.Iterator[Site]:
    """A site whose calls of SQS are watched, on a state server of its own."""
    folder = tmp_path / "files"
    folder.mkdir()
    with valkey_server() as valkey:
        site = Site(folder, valkey, proxy.url, namespace)
        try:
            yield site
        finally:
            site.close()


def test_an_outage_of_the_state_server_costs_a_message_at_most_one_receive(
    sqs_site: Site, proxy: Proxy
) -> None:
    sqs_site.ready()
    events = [sqs_site.send("work/five", f"five-{n}", pace=0.1) for n in range(12)]
    sqs_site.has_begun(4)
    sqs_site.valkey.kill()
    late = [
        EventMessage("work/five", {"pace": 0}, f"late-{number}", 1).encode()
        for number in range(5)
    ]
    assert sqs_site.state.message_sender.send(EVENT_QUEUE, late) == [None] * 5
    time.sleep(5)  # two visibility timeouts, and what a lease lasts
    sqs_site.valkey.start()

    sqs_site.are("completed", *events, *(f"late-{number}" for number in range(5)))
    sqs_site.no_committed_step_ran_again()
    sqs_site.are_empty()
    assert set(proxy.receives.values()) <= {1, 2}


def test_what_a_killed_worker_had_received_and_not_routed_is_soon_visible_again(
    sqs_site: Site, proxy: Proxy
) -> None:
    worker = sqs_site.ready()
    sqs_site.valkey.pause()  # nothing can be claimed
    events = [f"five-{number}" for number in range(10)]
    bodies = [EventMessage("work/five", {"pace": 0}, id, 1).encode() for id in events]
    assert sqs_site.state.message_sender.send(EVENT_QUEUE, bodies) == [None] * len(
        bodies
    )
    wait_until(lambda: sqs_site.queues()[0].in_flight > 0, "messages in flight")
    worker.kill()
    sqs_site.valkey.resume()

    all_are_visible(sqs_site)
    assert sqs_site.queues()[0].waiting == len(events)
    sqs_site.ready()
    sqs_site.are("completed", *events)
    sqs_site.each_step_ran_once()
    sqs_site.are_empty()


def test_what_a_killed_worker_had_claimed_and_not_deleted_runs_no_finished_step_again(
    sqs_site: Site, proxy: Proxy
) -> None:
    proxy.fails("DeleteMessageBatch")
    worker = sqs_site.ready()
    events = [sqs_site.send("work/five", f"five-{n}", pace=0.2) for n in range(6)]
    sqs_site.has_begun(6)
    assert sqs_site.queues()[0].in_flight > 0
    worker.kill()
    proxy.heals()

    all_are_visible(sqs_site)
    assert sqs_site.queues()[0].waiting == len(events)
    sqs_site.ready()
    sqs_site.are("completed", *events)
    assert sqs_site.count("completed") == len(events)
    sqs_site.no_committed_step_ran_again()
    sqs_site.are_empty()


def test_a_step_many_times_as_long_as_visibility_and_lease_has_one_start(
    sqs_site: Site, proxy: Proxy
) -> None:
    # Two that would take it from each other.
    for worker in [sqs_site.worker() for _ in range(2)]:
        worker.says("is ready")
    sqs_site.send("work/long", "deleted", pace=LONG_STEP)
    sqs_site.has_begun(1)
    sqs_site.are_empty()  # its message is: the lease owns the run
    proxy.fails("DeleteMessageBatch")
    sqs_site.send("work/long", "in-flight", pace=LONG_STEP)

    sqs_site.are("completed", "deleted", "in-flight")
    assert sqs_site.queues()[0].in_flight == 1
    proxy.heals()
    sqs_site.are_empty()
    sqs_site.each_step_ran_once()
    assert len(sqs_site.trace("begin")) == 2
    assert set(proxy.receives.values()) == {1}


def all_are_visible(site: Site) -> None:
    """Wait until nothing is in flight, which takes a visibility timeout at most."""
    wait_until(
        lambda: all(counts.in_flight == 0 for counts in site.queues()),
        "all messages visible",
        VISIBILITY + 3,
    )
