"""Promises of the broker for every kind of queue: Redis Streams and SQS."""

from __future__ import annotations

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
from flask_durable.queue.transport import QueueCounts

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
    held: list[Delivery] = []

    def slow(delivery: Delivery) -> None:
        held.append(delivery)
        finish.wait(60)

    def stays_hidden() -> bool:
        """Look for a while; the message comes only where no beat was in time."""
        known = len(held)
        until = time.monotonic() + 2.5 * kit.visibility
        while time.monotonic() < until:
            found = other.receive(QUEUE, 10, 0.1)
            if found or len(held) > known:
                assert time.monotonic() - held[known - 1].renewed > kit.visibility / 2
                other.release(QUEUE, [item.receipt for item in found])
                return False
        return True

    with working(broker, slow):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: held)
        # A machine may stand still for longer than the visibility, but not each time.
        wait_until(stays_hidden, "a message that stays hidden", 30)
        finish.set()
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert {text(delivery.received) for delivery in held} == {body(1)}


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
