"""FIFO queues: what is of one group comes, and starts, in its order."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.messages import decode
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.messages import RunMessage
from flask_durable.queue.sending import Sender
from flask_durable.queue.sqs.options import read_queues
from flask_durable.queue.sqs.options import SQSAddress
from flask_durable.queue.sqs.transport import SQSTransport

from ...support.harness import Harness
from ...support.servers import ValkeyServer
from ...support.servers import wait_until
from ..kit import SQSKit
from ..kit import text
from ..sqs_proxy import Answer
from ..sqs_proxy import Proxy
from ..sqs_proxy import Refuse

QUEUES = {EVENT_QUEUE: {"group": "data.tenant"}, "media": {"fifo": True}}


@pytest.fixture
def transport(sqs_kit: SQSKit, proxy: Proxy) -> t.Iterator[SQSTransport]:
    made = SQSTransport(
        SQSAddress.parse(proxy.url),
        namespace=sqs_kit.namespace,
        visibility=30,
        options=read_queues(QUEUES),
    )
    made.declare(EVENT_QUEUE)
    yield made
    made.close()


def event(id: str, group: str) -> str:
    return EventMessage(name="a/b", data={}, id=id, at=1, group=group).encode()


def received_id(transport: SQSTransport) -> tuple[str, str] | None:
    """Receive once; return id and receipt."""
    for item in transport.receive(EVENT_QUEUE, 10, 0):
        message = decode(text(item))
        assert isinstance(message, EventMessage)
        return message.id, item.receipt
    return None


def drain(transport: SQSTransport) -> list[str]:
    """Receive and delete one after the other."""
    ids = []
    while (found := received_id(transport)) is not None:
        ids.append(found[0])
        assert transport.delete(EVENT_QUEUE, [found[1]]) == [None]
    return ids


def test_fifo_queues_have_fifo_names_and_dead_letter_queues(
    transport: SQSTransport, proxy: Proxy, sqs_kit: SQSKit
) -> None:
    made = proxy.requests["CreateQueue"]
    assert sorted(request["QueueName"] for request in made) == [
        f"{sqs_kit.namespace}-events-dlq.fifo",
        f"{sqs_kit.namespace}-events.fifo",
    ]
    assert all(request["Attributes"]["FifoQueue"] == "true" for request in made)


def test_one_of_a_group_is_in_hand_at_a_time_and_other_groups_go_past(
    transport: SQSTransport,
) -> None:
    bodies = [event("a1", "a"), event("a2", "a"), event("b1", "b")]
    assert transport.send(EVENT_QUEUE, bodies) == [None] * 3
    first = received_id(transport)
    second = received_id(transport)
    assert first is not None
    assert second is not None
    assert {first[0], second[0]} == {"a1", "b1"}
    assert received_id(transport) is None
    receipt = dict([first, second])["a1"]
    assert transport.delete(EVENT_QUEUE, [receipt]) == [None]
    third = received_id(transport)
    assert third is not None
    assert third[0] == "a2"


def test_what_is_given_back_comes_before_what_is_behind_it(
    transport: SQSTransport,
) -> None:
    bodies = [event("a1", "a"), event("a2", "a")]
    assert transport.send(EVENT_QUEUE, bodies) == [None] * 2
    held = received_id(transport)
    assert held is not None
    assert transport.release(EVENT_QUEUE, [held[1]]) == [None]
    assert drain(transport) == ["a1", "a2"]


def test_an_event_that_is_sent_twice_is_there_once(transport: SQSTransport) -> None:
    for _ in range(2):
        assert transport.send(EVENT_QUEUE, [event("a1", "a")]) == [None]
    assert drain(transport) == ["a1"]


def test_events_of_two_names_with_one_id_are_both_there(
    transport: SQSTransport,
) -> None:
    placed, paid = (
        EventMessage(name=name, data={}, id="order-1", at=1, group="a").encode()
        for name in ("order/placed", "order/paid")
    )
    assert transport.send(EVENT_QUEUE, [placed, paid]) == [None] * 2
    assert transport.send(EVENT_QUEUE, [placed]) == [None]
    assert transport.counts(EVENT_QUEUE).waiting == 2


def test_a_run_message_that_is_sent_twice_is_there_twice(
    transport: SQSTransport,
) -> None:
    message = RunMessage("run-1", "app.fn", 1, group="a").encode()
    for _ in range(2):
        assert transport.send("media", [message]) == [None]
    assert transport.counts("media").waiting == 2


def test_nothing_of_a_group_overtakes_what_sqs_refused(
    transport: SQSTransport, proxy: Proxy
) -> None:
    bodies = [event(f"a{number}", "a") for number in range(4)]
    bodies += [event("b0", "b")]
    # The first round holds a0 and b0, the second a1, and so on.
    proxy.meets("SendMessageBatch", Refuse(()), Refuse((0,)), Refuse((0,)))
    assert Sender(transport, 30).send(EVENT_QUEUE, bodies) == [None] * 5
    assert proxy.left == 0
    ids = drain(transport)
    assert [id for id in ids if id != "b0"] == ["a0", "a1", "a2", "a3"]


def test_messages_of_a_fifo_queue_are_not_delayed_and_can_be_dead_lettered(
    transport: SQSTransport,
) -> None:
    [outcome] = transport.send(EVENT_QUEUE, [event("a1", "a")], 5)
    assert "FIFO" in str(outcome)
    for _ in range(2):
        transport.send_dead(EVENT_QUEUE, event("a1", "a"), "wrong")
    assert transport.counts(EVENT_QUEUE).dead == 2


@pytest.mark.parametrize(
    ("path", "same"),
    [("*", True), ("name", True), ("id", False), ("data.a.b", True)],
)
def test_events_are_grouped_by_what_is_at_a_path(path: str, same: bool) -> None:
    one, two = (
        EventMessage("x", {"a": {"b": [1]}}, id, 1).in_group(path).group for id in "12"
    )
    assert one
    assert two
    assert (one == two) is same


@pytest.mark.parametrize("data", [{}, {"a": 1}, {"a": {"b": None}}])
def test_an_event_with_nothing_at_the_path_has_no_group(data: t.Any) -> None:
    assert EventMessage("x", data, "1", 1).in_group("data.a.b").group == ""


def test_a_look_at_fifo_letters_that_others_wait_behind_is_not_complete(
    transport: SQSTransport,
) -> None:
    def seen() -> tuple[int, bool]:
        cursor = transport.dead_letters.open_cursor(EVENT_QUEUE, 30)
        count = 0
        while letters := cursor.next(10):
            count += len(letters)
        cursor.close()
        return count, cursor.complete

    assert seen() == (0, True)
    for number in range(12):
        transport.send_dead(EVENT_QUEUE, event(f"a{number}", "a"), "wrong")
    count, complete = seen()
    assert (0 < count < 12, complete) == (True, False)

    cursor = transport.dead_letters.open_cursor(EVENT_QUEUE, 30)
    while letters := cursor.next(10):
        assert cursor.delete(letters) == [None] * len(letters)
    assert cursor.complete
    transport.send_dead(EVENT_QUEUE, event("b0", "b"), "wrong")
    assert seen() == (1, True)


@pytest.fixture
def fifo(valkey: ValkeyServer, namespace: str, proxy: Proxy) -> t.Iterator[Harness]:
    made = Harness(
        valkey.url,
        namespace,
        in_place=0,
        DURABLE_QUEUE_URL=proxy.url,
        DURABLE_QUEUES=QUEUES,
    )
    yield made
    made.close()


def test_runs_of_a_group_start_in_the_order_of_their_events(fifo: Harness) -> None:
    begun = []

    @fifo.durable.function(on="order/changed", queue="media")
    def change(event: Event[t.Any], step: Step) -> None:
        begun.append((event.data["tenant"], event.data["number"]))

    for number in range(4):
        for tenant in ("a", "b"):
            fifo.send("order/changed", {"tenant": tenant, "number": number})
    fifo.settle()
    for tenant in ("a", "b"):
        assert [n for who, n in begun if who == tenant] == [0, 1, 2, 3]


def test_events_are_of_a_step_and_of_the_app_are_in_the_same_group(
    fifo: Harness,
) -> None:
    @fifo.durable.function(on="order/changed", queue="media")
    def change(event: Event[t.Any], step: Step) -> None:
        step.send_event("tell", Event("order/told", {"tenant": event.data["tenant"]}))

    groups: dict[tuple[str, str], str] = {}

    def route() -> None:
        for delivery in fifo.state.broker.deliveries(EVENT_QUEUE, 10, 0):
            message = delivery.message
            assert isinstance(message, EventMessage)
            groups[message.name, message.opened["tenant"]] = message.group
            fifo.router.route([delivery])
        assert fifo.state.broker.flush_settled(5)

    fifo.start()
    for tenant in ("a", "b"):
        fifo.send("order/changed", {"tenant": tenant})
        route()
        fifo.execute()
        route()
    for tenant in ("a", "b"):
        group = groups["order/changed", tenant]
        assert group
        assert groups["order/told", tenant] == group
    assert len({*groups.values()}) == 2


def test_a_run_message_that_was_not_taken_holds_its_group_up(
    fifo: Harness, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The queue rests for twice the time of the call that it refused. Without any pause
    # the event would be received ten times in a long rest.
    monkeypatch.setattr("flask_durable.common.redelivery.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("flask_durable.engine.outbox.FIRST_REST", 0.0)
    begun = []

    @fifo.durable.function(on="order/changed", queue="media")
    def change(event: Event[t.Any], step: Step) -> None:
        begun.append(event.data["number"])

    for number in range(2):
        fifo.send("order/changed", {"tenant": "a", "number": number})
    proxy.meets("SendMessageBatch", Answer("AccessDenied", 403))
    assert fifo.route() == 1
    assert fifo.state.broker.flush_settled(5)
    assert proxy.left == 0

    def both_began() -> bool:
        fifo.settle()
        return len(begun) == 2

    # The first event comes again, and its run's message is sent before the second's.
    wait_until(both_began, "both begin")
    assert begun == [0, 1]
