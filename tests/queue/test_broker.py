"""The broker adds slots, settling and stopping to a transport, here that on Redis."""

from __future__ import annotations

import queue
import threading
import typing as t
from collections.abc import Sequence

import dramatiq
import pytest
import redis
from dramatiq.errors import QueueNotFound

from flask_durable.app.queues import make_transport
from flask_durable.config.settings import Settings
from flask_durable.errors import ConfigurationError
from flask_durable.messages import RunMessage
from flask_durable.queue.broker import DurableBroker
from flask_durable.queue.consumer import Inbox
from flask_durable.queue.consumer import LocalMessage
from flask_durable.queue.delivery import Delivery
from flask_durable.queue.sending import Sender
from flask_durable.queue.transport import Outcome
from flask_durable.queue.transport import QueueCounts
from flask_durable.queue.transport import Transport
from flask_durable.queue.window import Window

from ..support.servers import wait_until
from .kit import bodies
from .kit import body
from .kit import collect
from .kit import Log
from .kit import QUEUE
from .kit import RedisKit
from .kit import State
from .kit import Worker
from .kit import working

EMPTY = QueueCounts(0, 0, 0, 0)


class Flaky:
    """A transport some of whose entries fail, the first times they are tried."""

    def __init__(self, transport: Transport, failures: int) -> None:
        self._transport = transport
        self._failures = failures
        self._lock = threading.Lock()
        self.calls: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._transport, name)

    def delete(self, queue: str, receipts: Sequence[str]) -> list[Outcome]:
        return self._some("delete", queue, receipts)

    def release(
        self, queue: str, receipts: Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        return self._some("release", queue, receipts, delay)

    def dead_letter(self, queue: str, received: t.Any, reason: str) -> None:
        with self._lock:
            self._failures -= 1
            if self._failures >= 0:
                raise OSError("not now")
        self._transport.dead_letter(queue, received, reason)

    def _some(
        self, name: str, queue: str, receipts: Sequence[str], *args: float
    ) -> list[Outcome]:
        self.calls.append((name, len(receipts)))
        outcomes: list[Outcome] = []
        for receipt in receipts:
            with self._lock:
                self._failures -= 1
                failing = self._failures >= 0
            if failing:
                outcomes.append(OSError("not now"))
            else:
                outcomes += getattr(self._transport, name)(queue, [receipt], *args)
        return outcomes


@pytest.fixture
def flaky(redis_kit: RedisKit) -> Flaky:
    return Flaky(redis_kit.transport(visibility=30), failures=5)


def test_failed_deletes_are_repeated_and_hold_no_slot(
    redis_kit: RedisKit, flaky: Flaky
) -> None:
    broker = redis_kit.broker(transport=flaky, size=2, visibility=30)
    log = Log()
    with working(broker, log, threads=2):
        broker.sender.send(QUEUE, bodies(20))
        wait_until(lambda: len(log) == 20)
        wait_until(lambda: broker.transport.counts(QUEUE) == EMPTY)
    assert len(set(log.runs)) == 20
    assert broker.window.free == 2


@pytest.mark.parametrize("settle", ["release", "dead"])
def test_failed_settlements_are_repeated(
    redis_kit: RedisKit, flaky: Flaky, settle: str
) -> None:
    broker = redis_kit.broker(transport=flaky, visibility=30)
    broker.sender.send(QUEUE, [body(1)])
    [delivery] = _deliveries(broker, 1)
    if settle == "release":
        delivery.release()
    else:
        delivery.dead("because")
    assert broker.flush_settled(20)
    expected = (
        QueueCounts(1, 0, 0, 0) if settle == "release" else QueueCounts(0, 0, 0, 1)
    )
    assert broker.transport.counts(QUEUE) == expected


def test_deletes_share_a_call_and_a_barrier(redis_kit: RedisKit, flaky: Flaky) -> None:
    flaky._failures = 0
    barriers: list[int] = []

    def barrier() -> bool:
        barriers.append(1)
        return True

    broker = redis_kit.broker(transport=flaky, visibility=30, barrier=barrier)
    broker.sender.send(QUEUE, bodies(10))
    for delivery in _deliveries(broker, 10):
        delivery.done()
    assert broker.flush_settled(20)
    assert broker.transport.counts(QUEUE) == EMPTY
    assert sum(count for _, count in flaky.calls) == 10
    assert len(barriers) == len(flaky.calls) < 5


def test_only_the_first_settlement_counts(redis_kit: RedisKit) -> None:
    broker = redis_kit.broker(visibility=30)
    broker.sender.send(QUEUE, [body(1)])
    [delivery] = _deliveries(broker, 1)
    delivery.dead("first")
    delivery.done()
    delivery.release()
    assert broker.flush_settled(20)
    assert broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_a_reason_may_be_any_text(redis_kit: RedisKit) -> None:
    broker = redis_kit.broker(visibility=30)
    broker.sender.send(QUEUE, [body(1)])
    [delivery] = _deliveries(broker, 1)
    delivery.dead("\ud800\x00" * 10_000)
    assert broker.flush_settled(20)
    [letter] = redis_kit.dead_letters()
    assert letter.reason is not None
    assert len(letter.reason) == 500


def test_what_is_settled_while_its_queue_is_busy_follows_at_once(
    redis_kit: RedisKit, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that waits without being told would wait for longer than the test does.
    for module in ("acknowledger", "settling"):
        monkeypatch.setattr(f"flask_durable.queue.{module}.SETTLER_IDLE_SECONDS", 600)
    flaky._failures = 0
    deleting, answered = threading.Event(), threading.Event()
    delete = flaky.delete

    def hang_once(queue: str, receipts: Sequence[str]) -> list[Outcome]:
        deleting.set()
        assert answered.wait(20)
        return delete(queue, receipts)

    monkeypatch.setattr(flaky, "delete", hang_once)
    broker = redis_kit.broker(transport=flaky, visibility=60)
    broker.sender.send(QUEUE, bodies(3))
    first, second, third = _deliveries(broker, 3)
    first.done()
    assert deleting.wait(20)
    second.done()
    third.done()
    # It has stopped waiting for that queue by now.
    wait_until(
        lambda: broker._acknowledger.backlog == 3 and not broker.flush_settled(0.3)
    )
    answered.set()

    assert broker.flush_settled(20)
    assert broker.transport.counts(QUEUE) == EMPTY


def test_receiving_pauses_while_settled_messages_pile_up(
    redis_kit: RedisKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.queue.broker.MAX_BACKLOG", 3)
    failing = threading.Event()
    failing.set()

    def barrier() -> bool:
        if failing.is_set():
            raise OSError("the disk is not there")
        return True

    broker = redis_kit.broker(barrier=barrier, size=1)
    log = Log()
    with working(broker, log, threads=1):
        broker.sender.send(QUEUE, bodies(20))
        wait_until(lambda: broker._acknowledger.backlog > 3)
        assert broker.deliveries(QUEUE, 10, 1) == []
        assert len(log) < 20
        failing.clear()
        wait_until(lambda: len(log) == 20)


def test_slots_are_freed_once_when_messages_cannot_be_handed_in(
    redis_kit: RedisKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([False, True])
    put = Inbox.put

    def put_or_fail(inbox: Inbox, message: LocalMessage) -> None:
        if next(failures, False):
            raise RuntimeError("cannot start new thread")
        put(inbox, message)

    monkeypatch.setattr(Inbox, "put", put_or_fail)
    broker = redis_kit.broker(visibility=30)
    broker.sender.send(QUEUE, ["not json", *bodies(5)])
    log = Log()
    with working(broker, log):
        wait_until(lambda: set(log.runs) == {f"run-{number}" for number in range(5)})
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1))
        assert broker.window.free == broker.window.size


def test_a_message_at_its_last_receive_is_not_given_back(
    redis_kit: RedisKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_durable.queue.broker.MAX_THREAD_WAIT_SECONDS", -1.0)
    broker = redis_kit.broker(
        transport=redis_kit.transport(visibility=30, max_receives=1), size=3
    )
    broker.sender.send(QUEUE, bodies(3))
    going = threading.Event()
    log = Log()

    def run(delivery: t.Any) -> None:
        assert going.wait(30)
        log(delivery)

    with working(broker, run, threads=1):
        wait_until(lambda: len(broker._waiting) == 3)
        broker.give_back_overdue()
        going.set()
        wait_until(lambda: broker.transport.counts(QUEUE) == EMPTY)
    assert sorted(log.runs) == ["run-0", "run-1", "run-2"]


def test_a_payload_handed_over_runs_without_the_queue(redis_kit: RedisKit) -> None:
    broker = redis_kit.broker()
    seen: list[t.Any] = []
    with working(broker, seen.append):
        wait_until(lambda: broker.serves(QUEUE))
        assert broker.window.reserve(1) == 1
        payload = object()
        broker.hand_over(QUEUE, payload)
        wait_until(lambda: seen == [payload])
        wait_until(lambda: broker.window.free == broker.window.size)
    assert not broker.serves(QUEUE)


def test_nothing_can_be_handed_over_to_a_queue_that_is_not_consumed(
    redis_kit: RedisKit,
) -> None:
    with pytest.raises(QueueNotFound):
        redis_kit.broker().hand_over("elsewhere", object())


def test_payloads_that_nobody_started_are_reported_when_stopping(
    redis_kit: RedisKit,
) -> None:
    broker = redis_kit.broker(size=4)
    worker = Worker()
    broker.attach(worker)
    started, finish = threading.Event(), threading.Event()

    def blocked(payload: t.Any) -> None:
        started.set()
        finish.wait(20)

    with working(broker, blocked, threads=1):
        wait_until(lambda: broker.serves(QUEUE))
        assert broker.window.reserve(4) == 4
        for number in range(3):
            broker.hand_over(QUEUE, number)
        assert started.wait(20)
        broker.stop_receiving()
        assert sorted(worker.unstarted) == [1, 2]
        broker.hand_over(QUEUE, 3)
        assert sorted(worker.unstarted) == [1, 2, 3]
        finish.set()
    assert sorted(worker.unstarted) == [1, 2, 3]
    assert broker.window.free == 4


def test_a_message_is_either_started_or_given_back() -> None:
    for _ in range(200):
        message = LocalMessage(QUEUE, object(), Window(1))
        outcomes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=_put_result, args=(outcomes, act))
            for act in (message.start, message.withdraw)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted([outcomes.get(), outcomes.get()]) == [False, True]


def test_a_message_lost_before_it_was_started_is_skipped(redis_kit: RedisKit) -> None:
    # Two run threads would be free, but only one exists: the second message waits.
    broker, other = redis_kit.broker(size=2), redis_kit.transport()
    broker._in_flight.close()  # no heartbeat: as if this process had been stopped
    started, finish = threading.Event(), threading.Event()
    log = Log()

    def blocked(delivery: Delivery) -> None:
        log(delivery)
        started.set()
        finish.wait(20)

    with working(broker, blocked, threads=1):
        broker.sender.send(QUEUE, bodies(2))
        assert started.wait(20)
        wait_until(lambda: broker.window.free == 0)
        taken = collect(other, 2)
        broker._in_flight.extend()
        assert other.delete(QUEUE, [item.receipt for item in taken]) == [None] * 2
        finish.set()
        wait_until(lambda: broker.window.free == 2)
    assert len(log) == 1
    assert broker.transport.counts(QUEUE) == EMPTY


def test_a_message_without_its_actor_is_given_back(redis_kit: RedisKit) -> None:
    broker = redis_kit.broker(visibility=30)
    broker.declare_queue(QUEUE)
    worker = dramatiq.Worker(broker, worker_timeout=50)
    worker.start()
    try:
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 1, 0))
        assert broker.window.free == broker.window.size
    finally:
        worker.stop()


def test_interrupted_actors_give_their_message_back(redis_kit: RedisKit) -> None:
    broker = redis_kit.broker(visibility=30)
    seen: list[int] = []

    def interrupted(delivery: Delivery) -> None:
        seen.append(delivery.receive_count)
        if len(seen) == 1:
            raise SystemExit

    with working(broker, interrupted):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: seen == [1, 2])
        wait_until(lambda: broker.transport.counts(QUEUE) == EMPTY)


def test_a_failed_enqueue_raises() -> None:
    settings = _settings(queue_url="redis://localhost:1")
    sender = Sender(make_transport(settings, _no_client))
    broker = DurableBroker(sender, window=Window(1), state=State())
    message: dramatiq.Message[t.Any] = dramatiq.Message(
        QUEUE, "execute", (RunMessage("r", "f", 1),), {}, {}
    )
    with pytest.raises(redis.ConnectionError):
        broker.enqueue(message)


def test_the_queues_are_where_the_state_is_unless_given(redis_kit: RedisKit) -> None:
    made: list[dict[str, t.Any]] = []

    def factory(**options: t.Any) -> t.Any:
        made.append(options)
        return redis_kit.client

    for url in (None, redis_kit.url):
        settings = _settings(redis_url=redis_kit.url, queue_url=url)
        transport = make_transport(settings, factory)
        assert transport.counts("no-such") == EMPTY
        assert made
        made.clear()


def test_sqs_without_boto3_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = _settings(queue_url="sqs://?region=eu-west-1")
    with pytest.raises(ConfigurationError, match=r"flask-durable\[sqs\]"):
        make_transport(settings, _no_client)


def _put_result(outcomes: queue.SimpleQueue[bool], act: t.Callable[[], bool]) -> None:
    outcomes.put(act())


def _no_client(**options: t.Any) -> t.NoReturn:
    raise AssertionError("the queues are elsewhere")


def _settings(**values: str | None) -> Settings:
    return Settings.model_validate(values)


def _deliveries(broker: DurableBroker, count: int) -> list[Delivery]:
    found: list[Delivery] = []

    def all_there() -> bool:
        found.extend(broker.deliveries(QUEUE, 10, 1))
        return len(found) >= count

    wait_until(all_there)
    return found
