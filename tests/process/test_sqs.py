"""Workers on SQS: what messages go through when servers and workers come and go."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest

from flask_durable.queue.envelope import EVENT_QUEUE
from flask_durable.queue.envelope import EventMessage

from ..queue.sqs_proxy import Proxy
from ..queue.sqs_proxy import sqs_proxy
from ..servers import SQSServer
from ..servers import valkey_server
from .sites import Site


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
    assert sqs_site.state.broker.send(EVENT_QUEUE, late) == [None] * 5
    time.sleep(5)  # two visibility timeouts, and what a lease lasts
    sqs_site.valkey.start()

    sqs_site.are("completed", *events, *(f"late-{number}" for number in range(5)))
    sqs_site.no_committed_step_ran_again()
    sqs_site.are_empty()
    assert set(proxy.receives.values()) <= {1, 2}
