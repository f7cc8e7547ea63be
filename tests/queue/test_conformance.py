"""Promises of every kind of queue: one suite, run on Redis Streams and on SQS."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from flask_durable.queue.transport import Outcome
from flask_durable.queue.transport import QueueAway
from flask_durable.queue.transport import QueueCounts
from flask_durable.queue.transport import ReceiptLost

from ..support.servers import wait_until
from .kit import bodies
from .kit import body
from .kit import collect
from .kit import Kit
from .kit import QUEUE
from .kit import send
from .kit import text


def test_what_is_sent_is_received_and_stays_away_once_deleted(kit: Kit) -> None:
    transport = kit.transport()
    send(transport, bodies(3))
    received = collect(transport, 3)
    # The order is not promised.
    assert sorted(map(text, received)) == bodies(3)
    assert {item.receive_count for item in received} == {1}
    assert all(abs(item.sent / 1000 - time.time()) < 60 for item in received)
    assert transport.delete(QUEUE, [item.receipt for item in received]) == [None] * 3
    wait_until(lambda: transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    time.sleep(kit.visibility * 1.2)
    assert transport.receive(QUEUE, 10, 0) == []


def test_messages_sent_before_the_first_receiver_came_are_not_skipped(
    kit: Kit,
) -> None:
    send(kit.transport(), [body(1)])
    receiver = kit.transport()
    receiver.declare(QUEUE)
    assert [text(item) for item in collect(receiver, 1)] == [body(1)]


def test_a_message_whose_visibility_expired_is_received_again(kit: Kit) -> None:
    transport, other = kit.transport(), kit.transport()
    send(transport, [body(1)])
    began = time.monotonic()
    [first] = collect(transport, 1)
    found = other.receive(QUEUE, 10, 0)
    # On a slow machine the visibility may be over by then.
    assert found == [] or time.monotonic() - began >= kit.visibility
    [second] = found or collect(other, 1)
    assert (text(second), second.receive_count) == (body(1), 2)
    assert second.sent == first.sent


def test_an_extended_message_stays_hidden(kit: Kit) -> None:
    transport, other = kit.transport(), kit.transport()
    send(transport, [body(1)])
    [held] = collect(transport, 1)
    until = time.monotonic() + 2.5 * kit.visibility
    while time.monotonic() < until:
        # For longer than a receive waits, which on SQS is a second at least.
        assert transport.extend(QUEUE, [held.receipt], 2 * kit.visibility) == [None]
        assert other.receive(QUEUE, 10, 0.1) == []
    [again] = collect(other, 1)
    assert again.receive_count == 2


def test_a_stale_receipt_cannot_extend(kit: Kit) -> None:
    if kit.takes_stale_receipts:
        pytest.skip("moto changes the visibility by a stale receipt")
    transport, other = kit.transport(), kit.transport()
    send(transport, [body(1)])
    [stale] = collect(transport, 1)
    [current] = collect(other, 1)
    [outcome] = transport.extend(QUEUE, [stale.receipt], 60)
    assert isinstance(outcome, ReceiptLost) or may_be_silent(kit, outcome)
    # Else it would be hidden for a minute.
    [again] = collect(other, 1)
    assert (current.receive_count, again.receive_count) == (2, 3)
    assert other.extend(QUEUE, [again.receipt], kit.visibility) == [None]


def test_a_stale_receipt_cannot_delete(kit: Kit) -> None:
    if kit.takes_stale_receipts:
        pytest.skip("moto deletes by a stale receipt")
    transport, other = kit.transport(), kit.transport()
    send(transport, [body(1)])
    [stale] = collect(transport, 1)
    [current] = collect(other, 1)
    [outcome] = transport.delete(QUEUE, [stale.receipt])
    assert isinstance(outcome, ReceiptLost) or may_be_silent(kit, outcome)
    assert transport.counts(QUEUE).in_flight == 1
    assert other.delete(QUEUE, [current.receipt]) == [None]
    assert transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0)


def may_be_silent(kit: Kit, outcome: Outcome) -> bool:
    """Return whether a stale receipt had no effect and no error, as SQS may do it."""
    return kit.kind == "sqs" and outcome is None


def test_deleting_again_is_no_error(kit: Kit) -> None:
    transport = kit.transport()
    send(transport, [body(1)])
    [held] = collect(transport, 1)
    assert transport.delete(QUEUE, [held.receipt]) == [None]
    assert transport.delete(QUEUE, [held.receipt]) == [None]


def test_a_released_message_is_received_at_once(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    send(transport, [body(1)])
    [held] = collect(transport, 1)
    assert transport.release(QUEUE, [held.receipt]) == [None]
    [again] = collect(transport, 1)
    assert (text(again), again.receive_count) == (body(1), 2)
    assert again.sent == held.sent


def test_a_message_released_with_a_delay_is_received_after_it(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    send(transport, [body(1)])
    [held] = collect(transport, 1)
    assert transport.release(QUEUE, [held.receipt], 1.0) == [None]
    assert transport.receive(QUEUE, 10, 0) == []
    [again] = collect(transport, 1)
    assert again.receive_count == 2


def test_a_dead_letter_has_its_reason_and_receive_count(kit: Kit) -> None:
    transport = kit.transport()
    send(transport, [body(1)])
    collect(transport, 1)
    [held] = collect(transport, 1)
    transport.dead_letter(QUEUE, held, "no such event\x00")
    [letter] = kit.dead_letters()
    assert (letter.body, letter.receives) == (body(1), 2)
    assert str(letter.reason).startswith("no such event")
    assert transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_a_message_received_more_than_the_maximum_is_dead_lettered(kit: Kit) -> None:
    transport = kit.transport(max_receives=2)
    send(transport, [body(1)])
    for count in (1, 2):
        [held] = collect(transport, 1)
        assert held.receive_count == count
        assert transport.release(QUEUE, [held.receipt]) == [None]

    def moved() -> bool:
        assert transport.receive(QUEUE, 10, 0) == []
        return transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)

    wait_until(moved)
    [letter] = kit.dead_letters()
    assert letter.body == body(1)


def test_more_messages_than_one_batch_holds(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    send(transport, bodies(25))
    received = collect(transport, 25)
    assert sorted(map(text, received)) == sorted(bodies(25))
    receipts = [item.receipt for item in received]
    assert transport.extend(QUEUE, receipts, 30) == [None] * 25
    assert transport.delete(QUEUE, receipts) == [None] * 25
    assert transport.counts(QUEUE).in_flight == 0


def test_large_messages_are_batched_by_size(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    large = [str(number) * 400_000 for number in range(5)]
    send(transport, large)
    received = collect(transport, 5)
    assert sorted(map(text, received)) == large


def test_the_outcome_of_each_entry_is_reported(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    send(transport, bodies(2))
    one, two = collect(transport, 2)
    foreign = f"0-1 1 {kit.namespace}" if kit.kind == "redis" else "no-receipt"
    outcomes = transport.extend(QUEUE, [one.receipt, foreign, two.receipt], 30)
    assert [type(outcome) for outcome in outcomes[::2]] == [type(None)] * 2
    assert isinstance(outcomes[1], ReceiptLost)


def test_a_server_out_of_reach_is_an_outcome_for_each_entry(kit: Kit) -> None:
    kit.url = kit.url.rpartition(":")[0] + ":1"  # nothing listens there
    transport = kit.transport()
    for outcomes in (
        transport.send(QUEUE, bodies(2)),
        transport.delete(QUEUE, ["1-1 1 me", "1-2 1 me"]),
        transport.extend(QUEUE, ["1-1 1 me", "1-2 1 me"], 1),
    ):
        assert len(outcomes) == 2
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
    with pytest.raises(QueueAway):
        transport.receive(QUEUE, 1, 0)


def test_a_delayed_message_is_received_when_it_is_due(kit: Kit) -> None:
    transport = kit.transport()
    send(transport, [body(1)], delay=600)
    assert transport.receive(QUEUE, 10, 0) == []
    assert transport.counts(QUEUE) == QueueCounts(0, 0, 1, 0)
    sent = time.monotonic()
    send(transport, [body(2)], delay=1)
    [held] = collect(transport, 1)
    assert (text(held), held.receive_count) == (body(2), 1)
    assert time.monotonic() - sent > 0.99


def test_a_delay_that_the_queue_cannot_keep_is_refused(kit: Kit) -> None:
    for delay in (-1, 901):
        [outcome] = kit.transport().send(QUEUE, [body(1)], delay)
        assert isinstance(outcome, ValueError)


def test_messages_are_counted_by_state(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    send(transport, bodies(4))
    send(transport, [body(9)], delay=60)
    received = transport.receive(QUEUE, 2, 1)
    while len(received) < 2:
        received += transport.receive(QUEUE, 2 - len(received), 1)
    transport.dead_letter(QUEUE, received[0], "because")
    assert transport.counts(QUEUE) == QueueCounts(2, 1, 1, 1)


def test_nothing_is_lost_when_a_process_dies_with_messages_in_hand(kit: Kit) -> None:
    transport = kit.transport()
    send(transport, bodies(5))
    command = [sys.executable, "-m", "tests.queue.holder", kit.kind, kit.url]
    command += [kit.namespace, str(kit.visibility), "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"5 {QUEUE}\n"
        finally:
            process.kill()
    received = collect(transport, 5)
    assert sorted(map(text, received)) == bodies(5)
    assert {item.receive_count for item in received} == {2}
