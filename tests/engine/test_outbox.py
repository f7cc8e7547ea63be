"""The outbox of the queues: an entry that a queue never takes is not sent for ever."""

from __future__ import annotations

import logging
import time
import typing as t

import pytest

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.engine.outbox import Outbox
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.messages import MessageRefused
from flask_durable.store.replies import Claimed
from flask_durable.store.run_store import after

from ..queue.sqs_proxy import Answer
from ..queue.sqs_proxy import Proxy
from ..queue.sqs_proxy import sqs_proxy
from ..support.harness import Harness
from ..support.proxy import proxy
from ..support.proxy import queue_url
from ..support.servers import SQSServer
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

#: Data that a message of SQS has room for, but no message that quotes that one.
LARGEST = {"text": "x" * (2**20 - 300)}


@pytest.fixture
def proxied(sqs: SQSServer) -> t.Iterator[Proxy]:
    with sqs_proxy(sqs.endpoint) as made:
        yield made


@pytest.fixture
def harness(
    valkey: ValkeyServer, proxied: Proxy, namespace: str
) -> t.Iterator[Harness]:
    made = Harness(
        valkey.url, namespace, DURABLE_QUEUE_URL=proxied.url, DURABLE_INLINE_LIMIT=2**20
    )

    @made.durable.function(on="file/read")
    def read(event: Event[t.Any], step: Step) -> None:
        pass

    @made.durable.function(on="durable/function.finished")
    def listen(event: Event[t.Any], step: Step) -> None:
        pass

    yield made
    made.close()


def test_an_event_about_a_run_that_is_too_large_is_a_dead_letter(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    id = harness.send("file/read", LARGEST)
    with caplog.at_level(logging.ERROR):
        harness.settle()
        harness.state.outbox.confirm()
    assert harness.run_of(id).status == RunStatus.COMPLETED
    assert harness.state.store.count_owed_events() == 0
    [letter] = harness.state.dead_letters.list()
    assert letter.reason.startswith("never taken: it has ")
    assert letter.body.startswith('{"v":1,"kind":"event"')
    [line] = [r for r in caplog.records if vars(r)["action"] == "event_never_taken"]
    assert "The event durable/function.finished" in line.getMessage()
    # The queue took nothing, and is nevertheless not left alone.
    assert harness.state.outbox.resting == set()


def test_what_the_dead_letters_never_take_either_is_dropped(
    harness: Harness, proxied: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    harness.state.transport.declare(EVENT_QUEUE)
    proxied.meets("SendMessage", Answer("InvalidParameterValue"))
    harness.send("file/read", LARGEST)
    harness.settle()
    harness.state.outbox.confirm()
    assert harness.state.store.count_owed_events() == 0
    assert harness.state.dead_letters.list() == []
    assert "is dropped" in caplog.text


def test_it_stays_owed_while_the_dead_letters_are_away(
    harness: Harness, proxied: Proxy
) -> None:
    harness.state.transport.declare(EVENT_QUEUE)
    proxied.meets("SendMessage", Answer("ServiceUnavailable", 503))
    harness.send("file/read", LARGEST)
    harness.settle()
    harness.state.outbox.confirm()
    assert harness.state.store.count_owed_events() == 1
    harness.advance(6)
    assert harness.state.store.count_owed_events() == 0
    assert len(harness.state.dead_letters.list()) == 1


class Picky:
    """A queue that never takes one of the messages it is given."""

    def __init__(self) -> None:
        self.dead: list[str] = []

    def send(self, queue: str, bodies: t.Any, **kwargs: t.Any) -> list[t.Any]:
        return [MessageRefused("no") if "big" in body else None for body in bodies]

    def send_dead(self, queue: str, body: str, reason: str, **kwargs: t.Any) -> None:
        self.dead.append(body)


def test_those_beside_it_are_confirmed(harness: Harness) -> None:
    queue = Picky()
    outbox = Outbox(harness.state.store, t.cast(t.Any, queue))
    entries = [
        (f"event:{name}:0:0", EventMessage(name, {}, name, 1).encode())
        for name in ("big", "small")
    ]
    entries.append(("event:x:0:0", "big, and no message"))
    assert outbox.send_events(entries)
    assert queue.dead == [entries[0][1], "big, and no message"]
    assert outbox.send_events([entries[1]])


def test_confirming_an_old_message_leaves_what_is_owed_now(harness: Harness) -> None:
    harness.in_place = 0

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("a/b")
    assert harness.route() == 1  # sent, not confirmed yet
    run = harness.run_of(event_id)
    store = harness.state.store
    outbox = f"{store.keys.tag_of(run.id)}:outbox:default"
    client = harness.state.server.client
    queued_at = int(store.read(run.id)[0]["queued_at"])
    wait_until(lambda: time.time() * 1000 > queued_at + 2)
    claim = store.claim(run.id, "another", version="", queued=0)
    assert isinstance(claim, Claimed)
    store.suspend(run.id, "another", "handback", after(0), reason="shutdown")

    harness.state.outbox.confirm()

    assert client.zscore(outbox, f"run:{run.id}") is not None


def test_what_is_sent_for_a_cancelled_or_retried_run_is_confirmed(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        raise ValueError("no")

    run = harness.send_and_settle("a/b")
    harness.sweep()
    harness.runs.retry(run.id)

    outbox = f"{harness.state.store.keys.tag_of(run.id)}:outbox:default"
    assert harness.state.server.client.zcard(outbox) == 0


def test_what_was_sent_stands_if_the_state_server_does_not_confirm_it(
    valkey: ValkeyServer,
    sqs: SQSServer,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with proxy(valkey.port, b"\0") as network:
        state = queue_url("redis", network.port)
        harness = Harness(state, namespace, DURABLE_QUEUE_URL=sqs.url)
        outbox = harness.state.outbox
        assert outbox.send_runs([("r1", "read", "default", 1)]) == set()
        network.take_down()

        outbox.confirm_at_once()

        network.bring_up()
        harness.close()
    [line] = [record for record in caplog.records if record.name.endswith("outbox")]
    assert vars(line)["action"] == "send_unconfirmed"
