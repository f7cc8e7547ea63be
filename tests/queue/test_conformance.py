"""Promises of every kind of queue: one suite, run on Redis Streams and on SQS."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import typing as t

import dramatiq
import pytest

from flask_durable.messages import decode
from flask_durable.messages import EventMessage
from flask_durable.messages import RunMessage
from flask_durable.queue.broker import DurableBroker
from flask_durable.queue.delivery import Delivery
from flask_durable.queue.transport import Outcome
from flask_durable.queue.transport import QueueAway
from flask_durable.queue.transport import QueueCounts
from flask_durable.queue.transport import ReceiptLost

from ..support.servers import wait_until
from .kit import bodies
from .kit import body
from .kit import collect
from .kit import Kit
from .kit import Log
from .kit import QUEUE
from .kit import send
from .kit import text
from .kit import Worker
from .kit import working


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


def test_a_worker_runs_two_hundred_messages(kit: Kit) -> None:
    broker = kit.broker(visibility=10)
    log = Log()
    with working(broker, log):
        assert broker.sender.send(QUEUE, bodies(200)) == [None] * 200
        wait_until(lambda: len(log) >= 200, "200 runs", 30)
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert sorted(log.runs) == sorted(f"run-{number}" for number in range(200))
    assert broker.window.free == broker.window.size


def test_an_enqueued_message_arrives_as_a_delivery(kit: Kit) -> None:

    broker = kit.broker()
    event = EventMessage("media/added", {"a": "ä"}, "e1", 5, {"baggage": "b"})
    seen: list[Delivery] = []
    with working(broker, seen.append):
        broker.enqueue(dramatiq.Message(QUEUE, "execute", (event,), {}, {}))
        wait_until(lambda: seen)
    assert (seen[0].queue, seen[0].message) == (QUEUE, event)


def test_undecodable_messages_are_dead_lettered_by_the_worker(kit: Kit) -> None:
    broker = kit.broker()
    bad = ["not json", '{"v":1,"kind":5}', '{"v":"1"}', "[" * 5000, "☃"]
    log = Log()
    with working(broker, log):
        assert broker.sender.send(QUEUE, [*bad, body(1)]) == [None] * 6
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 5))
    assert log.runs == ["run-1"]
    letters = kit.dead_letters()
    assert sorted(letter.body for letter in letters) == sorted(bad)
    assert all(letter.reason and letter.receives == 1 for letter in letters)
    assert broker.window.free == broker.window.size


@pytest.mark.parametrize("known", ['{"v":1,"kind":"other"}', '{"v":99,"kind":"run"}'])
def test_a_message_of_another_release_goes_back_until_its_last_receive(
    kit: Kit, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.common.redelivery.FIRST_PAUSE", 0.0)
    broker = kit.broker(transport=kit.transport(max_receives=3), visibility=30)
    send(broker.transport, [known])

    def received() -> bool:
        assert broker.deliveries(QUEUE, 1, 0.1) == []
        assert broker.flush_settled(10)
        return broker.transport.counts(QUEUE).dead == 1

    assert not received()
    # A worker of its release finds it as it was.
    [found] = collect(kit.transport(), 1)
    assert (text(found), found.receive_count) == (known, 2)
    assert broker.transport.release(QUEUE, [found.receipt]) == [None]
    wait_until(received, "the last receive")
    [letter] = kit.dead_letters()
    assert (letter.body, letter.receives) == (known, 3)
    assert letter.reason is not None
    assert letter.reason.startswith("received 3 times, at last ")


def test_a_message_in_hand_is_kept_hidden_by_the_heartbeat(kit: Kit) -> None:
    broker, other = kit.broker(), kit.transport()
    finish = threading.Event()
    log = Log()

    def slow(delivery: Delivery) -> None:
        log(delivery)
        finish.wait(20)

    with working(broker, slow):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: len(log) == 1)
        until = time.monotonic() + 2.5 * kit.visibility
        while time.monotonic() < until:
            assert other.receive(QUEUE, 10, 0.1) == []
        finish.set()
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert log.runs == ["run-1"]


def test_nothing_is_deleted_while_the_barrier_fails(kit: Kit) -> None:
    failing = threading.Event()
    failing.set()
    asked: list[int] = []

    def barrier() -> bool:
        asked.append(1)
        if failing.is_set():
            raise OSError("the disk is not there")
        return True

    broker = kit.broker(barrier=barrier)
    log = Log()
    with working(broker, log):
        broker.sender.send(QUEUE, bodies(3))
        wait_until(lambda: len(log) == 3 and len(asked) >= 3)
        # Hidden all the while, so nothing runs twice.
        assert broker.transport.counts(QUEUE) == QueueCounts(0, 3, 0, 0)
        assert broker.window.free == broker.window.size
        failing.clear()
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert len(log) == 3


def test_the_barrier_comes_before_the_delete(kit: Kit) -> None:
    counted: list[QueueCounts] = []
    transport = kit.transport()

    def barrier() -> bool:
        counted.append(transport.counts(QUEUE))
        return True

    broker = kit.broker(barrier=barrier)
    with working(broker, lambda delivery: None):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    # A delete that is not answered in time is repeated, behind another barrier.
    assert counted[0] == QueueCounts(0, 1, 0, 0)


def test_what_was_in_hand_when_state_was_lost_is_repeated_and_not_received_again(
    kit: Kit,
) -> None:
    lost = threading.Event()
    durable: list[bool] = []

    def barrier() -> bool:
        durable.append(not lost.is_set())
        lost.clear()
        return durable[-1]

    broker = kit.broker(barrier=barrier, visibility=30)
    broker.sender.send(QUEUE, bodies(4))
    before = _deliveries(broker, 4)
    lost.set()
    for delivery in before[:3]:
        delivery.done()
    assert broker.flush_settled(20)
    # Written before the loss as well, perhaps, and settled only now.
    before[3].done()
    assert broker.flush_settled(20)
    again = _deliveries(broker, 4)

    assert {delivery.message.run for delivery in again} == {
        delivery.message.run for delivery in before
    }
    assert {delivery.receive_count for delivery in again} == {1}
    for delivery in again:
        delivery.done()
    assert broker.flush_settled(20)
    wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert durable.count(False) == 1


def test_a_thread_that_worked_when_state_was_lost_does_it_again(kit: Kit) -> None:
    answers = [False]
    broker = kit.broker(
        barrier=lambda: answers.pop() if answers else True, visibility=30
    )
    seen: list[Delivery] = []
    with working(broker, seen.append):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
        wait_until(lambda: broker.window.free == broker.window.size)
    assert [delivery.receive_count for delivery in seen] == [1, 1]


@pytest.mark.parametrize("settled", ["before", "after"])
def test_a_worker_that_stops_gives_back_what_it_was_to_repeat(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, settled: str
) -> None:
    transport = kit.transport(visibility=30)
    release = transport.release
    failures = [OSError("the queue is not there")]

    def failing(queue: str, receipts: t.Sequence[str], delay: float = 0) -> t.Any:
        if failures:
            return [failures.pop()] * len(receipts)
        return release(queue, receipts, delay)

    monkeypatch.setattr(transport, "release", failing)
    broker = kit.broker(transport=transport, visibility=30, barrier=lambda: False)
    broker.sender.send(QUEUE, [body(1)])
    [delivery] = _deliveries(broker, 1)
    for act in (delivery.done, broker.stop_receiving)[
        :: 1 if settled == "before" else -1
    ]:
        act()
        assert broker.flush_settled(20)

    [again] = _deliveries(kit.broker(visibility=30), 1)
    assert (failures, again.receive_count) == ([], 2)


def _deliveries(broker: DurableBroker, count: int) -> list[t.Any]:
    found: list[t.Any] = []

    def enough() -> bool:
        found.extend(broker.deliveries(QUEUE, 10, 0.2))
        return len(found) >= count

    wait_until(enough, f"{count} messages")
    return found


def test_a_message_may_be_done_with_before_its_actor_ends(kit: Kit) -> None:
    broker = kit.broker()
    finish = threading.Event()

    def early(delivery: Delivery) -> None:
        delivery.done()
        delivery.done()
        finish.wait(20)

    with working(broker, early):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: broker.window.free == 7)
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
        assert broker.window.free == 7
        finish.set()
        wait_until(lambda: broker.window.free == 8)


def test_a_message_whose_actor_raised_is_received_again(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    broker = kit.broker(visibility=30)
    counts: list[int] = []

    def fails_once(delivery: Delivery) -> None:
        counts.append(delivery.receive_count)
        if len(counts) == 1:
            raise RuntimeError("the first time")

    with working(broker, fails_once):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: len(counts) == 2)
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert counts == [1, 2]
    assert broker.window.free == broker.window.size


def test_a_message_can_be_dead_lettered_by_its_actor(kit: Kit) -> None:
    broker = kit.broker()
    with working(broker, lambda delivery: delivery.dead("it fails its model")):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1))
    [letter] = kit.dead_letters()
    assert (letter.body, letter.reason) == (body(1), "it fails its model")


def test_a_stopping_worker_gives_back_what_it_did_not_start(kit: Kit) -> None:
    # A window wider than the threads, so that messages wait in the process.
    broker, other = kit.broker(size=5, visibility=30), kit.transport(visibility=30)
    started, finish = threading.Event(), threading.Event()
    log = Log()

    def blocked(delivery: Delivery) -> None:
        log(delivery)
        started.set()
        finish.wait(20)

    broker.sender.send(QUEUE, bodies(5))
    with working(broker, blocked, threads=1) as worker:
        assert started.wait(20)
        wait_until(lambda: worker.work_queue.qsize() == 4)
        broker.stop_receiving()
        # At once, while the running one goes on.
        received = collect(other, 4)
        assert other.delete(QUEUE, [item.receipt for item in received]) == [None] * 4
        finish.set()
        worker.join()  # it comes across the messages that were given back
    wait_until(lambda: other.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert len(log) == 1
    assert sorted([*log.runs, *(_run(text(item)) for item in received)]) == [
        f"run-{number}" for number in range(5)
    ]
    assert broker.window.free == broker.window.size


def test_a_stopped_dramatiq_worker_gives_back_what_it_did_not_start(kit: Kit) -> None:
    broker, other = kit.broker(size=5, visibility=30), kit.transport(visibility=30)
    started = threading.Event()
    broker.sender.send(QUEUE, bodies(5))

    def short(delivery: Delivery) -> None:
        started.set()
        wait_until(lambda: broker._stopping.is_set())

    with working(broker, short, threads=1) as worker:
        assert started.wait(20)
        wait_until(lambda: worker.work_queue.qsize() == 4)
    assert {item.receive_count for item in collect(other, 4)} == {2}
    assert broker.window.free == broker.window.size


def test_messages_fetched_by_a_replaced_consumer_are_still_settled(kit: Kit) -> None:
    broker = kit.broker(visibility=30)
    broker.declare_queue(QUEUE)
    old = broker.consume(queue_name=QUEUE, prefetch=2, timeout=5000)
    broker.sender.send(QUEUE, bodies(2))
    first = _next(old)
    old.close()
    new = broker.consume(queue_name=QUEUE, prefetch=2, timeout=5000)
    second = _next(new)
    new.ack(first)
    new.ack(second)
    wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert broker.window.free == broker.window.size


def test_nothing_is_received_while_the_state_server_is_away(kit: Kit) -> None:
    healthy = threading.Event()
    broker = kit.broker(healthy=healthy.is_set)
    log = Log()
    with working(broker, log):
        broker.sender.send(QUEUE, [body(1)])
        assert broker.deliveries(QUEUE, 10, 0.3) == []
        assert broker.transport.counts(QUEUE) == QueueCounts(1, 0, 0, 0)
        healthy.set()
        wait_until(lambda: log.runs == ["run-1"])


def test_an_empty_queue_is_reported(kit: Kit) -> None:
    broker = kit.broker()
    worker = Worker()
    broker.attach(worker)
    for _ in range(3):
        assert broker.deliveries(QUEUE, 10, 0) == []
    assert worker.empty == [QUEUE]


def test_a_router_receives_without_taking_slots(kit: Kit) -> None:
    broker = kit.broker()
    broker.sender.send(QUEUE, bodies(3))
    found: list[Delivery] = []

    def all_there() -> bool:
        found.extend(broker.deliveries(QUEUE, 10, 1))
        return len(found) == 3

    wait_until(all_there)
    assert broker.window.free == broker.window.size
    found[0].done()
    found[1].dead("because")
    found[2].release()
    assert broker.flush_settled(10)
    wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(1, 0, 0, 1))


def _next(consumer: t.Any) -> t.Any:
    message = None

    def there() -> bool:
        nonlocal message
        message = next(consumer)
        return message is not None

    wait_until(there)
    return message


def _run(text: str) -> str:

    message = decode(text)
    assert isinstance(message, RunMessage)
    return message.run


def test_a_message_that_cannot_be_processed_dies_with_what_it_raised(kit: Kit) -> None:
    notes: list[dict[str, str]] = []
    broker = kit.broker(
        transport=kit.transport(max_receives=2, visibility=30),
        on_failed=lambda failed: notes.append(dict(failed)),
    )

    def spill(delivery: t.Any) -> None:
        raise ValueError("spilt\x00 milk" if delivery.message.run == "run-1" else "?")

    with working(broker, spill, threads=2):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: len(kit.dead_letters()) == 1)
        wait_until(lambda: len(notes) == 2)
    [letter] = kit.dead_letters()
    assert str(letter.reason).startswith("received 2 times, at last ValueError: spilt")
    assert letter.receives == 2
    assert [set(note) for note in notes] == [{"run:run-1"}] * 2
    assert notes[0]["run:run-1"].startswith("ValueError: spilt")
    assert notes[1]["run:run-1"].startswith("received 2 times, at last ValueError:")


def test_errors_that_cannot_be_noted_hold_nothing_up(kit: Kit) -> None:
    def refuse(failed: t.Mapping[str, str]) -> None:
        raise OSError("the state server is away")

    broker = kit.broker(
        transport=kit.transport(max_receives=2, visibility=30), on_failed=refuse
    )

    def spill(delivery: t.Any) -> None:
        raise ValueError("spilt")

    with working(broker, spill, threads=2):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: len(kit.dead_letters()) == 1)
