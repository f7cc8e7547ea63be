"""The parts that only queues on Redis Streams have: a group, consumers, a cursor."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
import redis

from flask_durable.messages import EVENT_QUEUE
from flask_durable.queue.redis_streams.transport import GROUP
from flask_durable.queue.redis_streams.transport import RedisTransport
from flask_durable.queue.transport import QueueCounts
from flask_durable.queue.transport import ReceiptLost

from ...support.servers import valkey_server
from ...support.servers import ValkeyServer
from ...support.servers import wait_until
from ..kit import bodies
from ..kit import body
from ..kit import collect
from ..kit import Log
from ..kit import QUEUE
from ..kit import RedisKit
from ..kit import send
from ..kit import text
from ..kit import working


@pytest.fixture
def mortal() -> t.Iterator[ValkeyServer]:
    """A server of its own, which the test may kill, flush or fill."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def mortal_kit(mortal: ValkeyServer) -> t.Iterator[RedisKit]:
    made = RedisKit(mortal.url)
    yield made
    made.close()


def consumers(kit: RedisKit) -> dict[str, int]:
    found: t.Any = kit.client.xinfo_consumers(kit.key("stream"), GROUP)
    return {consumer["name"]: consumer["pending"] for consumer in found}


def test_a_killed_and_restarted_server_loses_no_message(
    mortal: ValkeyServer, mortal_kit: RedisKit
) -> None:
    broker = mortal_kit.broker()
    log = Log()
    steps = threading.Semaphore(0)

    def step_by_step(delivery: t.Any) -> None:
        steps.acquire(timeout=20)
        log(delivery)

    assert broker.sender.send(QUEUE, bodies(30)) == [None] * 30
    assert broker.sender.send(QUEUE, [body(30)], 0.5) == [None]
    with working(broker, step_by_step, threads=4):
        steps.release(10)
        wait_until(lambda: len(log) >= 10)
        mortal.kill()
        steps.release(6)
        mortal.start()
        steps.release(1000)
        wait_until(lambda: len(set(log.runs)) == 31)
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert set(log.runs) == {f"run-{number}" for number in range(31)}
    assert broker.window.free == broker.window.size


def test_nothing_is_reclaimed_before_the_server_was_up_for_a_visibility_timeout(
    mortal: ValkeyServer, mortal_kit: RedisKit
) -> None:
    owner, other = (mortal_kit.transport(visibility=2) for _ in range(2))
    send(owner, [body(1)])
    [held] = collect(owner, 1)
    mortal.kill()
    time.sleep(2.2)
    mortal.start()
    # By the clock it is expired; its owner has had no chance to extend it.
    assert not _reads(other)
    assert owner.extend(QUEUE, [held.receipt], 2) == [None]
    assert [text(item) for item in collect(other, 1)] == [body(1)]


def test_the_group_is_made_again_after_the_server_was_flushed(
    mortal_kit: RedisKit,
) -> None:
    broker = mortal_kit.broker()
    log = Log()
    with working(broker, log):
        broker.sender.send(QUEUE, [body(1)])
        wait_until(lambda: log.runs == ["run-1"])
        mortal_kit.client.flushall()
        broker.sender.send(QUEUE, [body(2)])
        wait_until(lambda: log.runs == ["run-1", "run-2"])
        mortal_kit.client.delete(mortal_kit.key("stream"))
        broker.sender.send(QUEUE, [body(3)])
        wait_until(lambda: log.runs == ["run-1", "run-2", "run-3"])


def test_receipts_from_before_a_flush_do_nothing(mortal_kit: RedisKit) -> None:
    transport = mortal_kit.transport()
    send(transport, [body(1)])
    [held] = collect(transport, 1)
    mortal_kit.client.flushall()
    assert transport.delete(QUEUE, [held.receipt]) == [None]
    assert transport.release(QUEUE, [held.receipt]) == [None]
    [outcome] = transport.extend(QUEUE, [held.receipt], 1)
    assert isinstance(outcome, ReceiptLost)
    assert mortal_kit.client.keys("*") == []


def test_scripts_that_the_server_forgot_are_loaded_again(redis_kit: RedisKit) -> None:
    transport = redis_kit.transport()
    send(transport, [body(1)])
    [held] = collect(transport, 1)
    redis_kit.client.script_flush()
    assert transport.delete(QUEUE, [held.receipt]) == [None]


def test_a_consumer_with_pending_messages_is_never_removed(
    redis_kit: RedisKit,
) -> None:
    transport = redis_kit.transport()
    send(transport, bodies(2))
    one, two = collect(transport, 2)
    name = two.receipt.rpartition(" ")[2]
    transport.delete(QUEUE, [one.receipt])
    transport.close()
    assert consumers(redis_kit) == {name: 1}
    other = redis_kit.transport()
    assert [text(item) for item in collect(other, 1)] == [text(two)]


def test_a_closed_transport_leaves_no_consumer_behind(redis_kit: RedisKit) -> None:
    transport = redis_kit.transport()
    send(transport, [body(1)])
    [held] = collect(transport, 1)
    assert len(consumers(redis_kit)) == 1
    transport.delete(QUEUE, [held.receipt])
    transport.close()
    assert consumers(redis_kit) == {}


def test_idle_consumers_of_dead_processes_are_removed(
    redis_kit: RedisKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flask_durable.queue.redis_streams.transport.CONSUMER_IDLE_MS", 1
    )
    dead, busy = redis_kit.transport(visibility=30), redis_kit.transport(visibility=30)
    dead.declare(QUEUE)
    assert not _reads(dead)
    send(busy, [body(1)])
    [held] = collect(busy, 1)

    def tidied() -> bool:
        other = redis_kit.transport()
        other.declare(QUEUE)
        return len(consumers(redis_kit)) == 1

    wait_until(tidied)
    assert consumers(redis_kit) == {held.receipt.rpartition(" ")[2]: 1}


def test_a_small_limit_finds_the_expired_one_among_many_held(
    redis_kit: RedisKit,
) -> None:
    # One call looks at ten times its limit: only a kept cursor gets past the others.
    holder, dead, other = (redis_kit.transport(visibility=2) for _ in range(3))
    send(holder, bodies(300))
    held = holder.receive(QUEUE, 300, 0)
    send(dead, [body(999)])
    assert len(dead.receive(QUEUE, 1, 0)) == 1
    receipts = [item.receipt for item in held]
    found: list[str] = []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        assert holder.extend(QUEUE, receipts, 2) == [None] * 300
        found = [text(item) for item in other.receive(QUEUE, 1, 0.1)]
    assert found == [body(999)]


def test_a_released_message_wakes_a_blocked_reader(redis_kit: RedisKit) -> None:
    redis_kit.longest_wait = 2.0
    holder, reader = (redis_kit.transport(visibility=30) for _ in range(2))
    send(holder, [body(1)])
    [held] = collect(holder, 1)
    found: list[str] = []
    assert not _reads(reader)
    thread = threading.Thread(
        target=lambda: found.extend(text(i) for i in reader.receive(QUEUE, 1, 2))
    )
    thread.start()
    wait_until(lambda: _blocked(redis_kit.client))
    holder.release(QUEUE, [held.receipt])
    thread.join(10)
    assert found == [body(1)]


def test_a_repeated_settlement_does_nothing_more(redis_kit: RedisKit) -> None:
    """As when a reply was lost and the client repeats the call by itself."""
    transport = redis_kit.transport(visibility=30)
    send(transport, bodies(3))
    one, two, three = collect(transport, 3)
    for _ in range(2):
        transport.dead_letter(QUEUE, one, "because")
        assert transport.release(QUEUE, [two.receipt]) == [None]
        assert transport.release(QUEUE, [three.receipt], 60) == [None]
    assert transport.counts(QUEUE) == QueueCounts(1, 0, 1, 1)


def test_a_stale_receipt_cannot_release_or_dead_letter(redis_kit: RedisKit) -> None:
    owner, other = redis_kit.transport(), redis_kit.transport()
    send(owner, [body(1)])
    [stale] = collect(owner, 1)
    collect(other, 1)
    for delay in (0, 1):
        [outcome] = owner.release(QUEUE, [stale.receipt], delay)
        assert isinstance(outcome, ReceiptLost)
    with pytest.raises(ReceiptLost):
        owner.dead_letter(QUEUE, stale, "too late")
    assert owner.counts(QUEUE) == QueueCounts(0, 1, 0, 0)


def test_a_receipt_is_stale_after_its_own_consumer_received_again(
    redis_kit: RedisKit,
) -> None:
    transport = redis_kit.transport()
    send(transport, [body(1)])
    [stale] = collect(transport, 1)
    [current] = collect(transport, 1)
    assert isinstance(transport.delete(QUEUE, [stale.receipt])[0], ReceiptLost)
    assert transport.delete(QUEUE, [current.receipt]) == [None]


def test_bodies_are_opaque_bytes(redis_kit: RedisKit) -> None:
    raw = b"\xff\x00 %s 1 2\r\n \xc3"
    transport = redis_kit.transport(visibility=30)
    redis_kit.client.xadd(redis_kit.key("stream"), {"body": raw})
    transport.declare(QUEUE)
    for delay in (0.0, 0.1):
        [held] = collect(transport, 1)
        assert held.body == raw
        transport.release(QUEUE, [held.receipt], delay)
    [held] = collect(transport, 1)
    assert (held.body, held.receive_count) == (raw, 3)


def test_foreign_entries_are_dead_lettered(redis_kit: RedisKit) -> None:
    broker = redis_kit.broker()
    redis_kit.client.xadd(redis_kit.key("stream"), {"something": "else"})
    redis_kit.client.xadd(redis_kit.key("stream"), {"body": b"\xff\xfe"})
    with working(broker, lambda delivery: None):
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 2))


def test_a_full_server_refuses_new_messages_and_settles_accepted_ones(
    mortal: ValkeyServer, mortal_kit: RedisKit
) -> None:
    transport = mortal_kit.transport(visibility=30)
    send(transport, bodies(4))
    one, two, three, four = collect(transport, 4)
    mortal_kit.client.config_set("maxmemory", 1)
    # A run message is sent all the same, see test_memory.
    for queue, delay in ((EVENT_QUEUE, 0), (QUEUE, 1)):
        [outcome] = transport.send(queue, [body(9)], delay)
        assert isinstance(outcome, redis.exceptions.OutOfMemoryError)
    transport.declare(QUEUE)  # as a worker does that starts now
    assert transport.extend(QUEUE, [one.receipt], 30) == [None]
    assert transport.delete(QUEUE, [one.receipt]) == [None]
    assert transport.release(QUEUE, [two.receipt]) == [None]
    assert transport.release(QUEUE, [three.receipt], 60) == [None]
    transport.dead_letter(QUEUE, four, "because")
    assert transport.counts(QUEUE) == QueueCounts(1, 0, 1, 1)
    assert [text(item) for item in collect(transport, 1)] == [text(two)]


def test_old_dead_letters_are_trimmed_and_work_never_is(redis_kit: RedisKit) -> None:
    client, dlq = redis_kit.client, redis_kit.key("dlq")
    long_ago = int(time.time() * 1000) - 15 * 86400 * 1000
    for number in range(250):
        client.xadd(dlq, {"body": "old"}, id=f"{long_ago}-{number + 1}")
        client.xadd(redis_kit.key("stream"), {"body": "x"}, id=f"1-{number + 1}")
    transport = redis_kit.transport(visibility=30)
    transport.declare(QUEUE)
    transport.dead_letter(QUEUE, transport.receive(QUEUE, 1, 0)[0], "because")
    counts = transport.counts(QUEUE)
    # Whole nodes of about a hundred entries go.
    assert counts.dead < 100
    assert counts.waiting == 249


def test_many_due_messages_are_promoted_batch_by_batch(redis_kit: RedisKit) -> None:
    transport = redis_kit.transport(visibility=30)
    send(transport, bodies(250), 0.2)
    assert sorted(map(text, collect(transport, 250))) == sorted(bodies(250))


def test_each_process_start_has_a_consumer_of_its_own(redis_kit: RedisKit) -> None:
    transports = [redis_kit.transport(visibility=30) for _ in range(2)]
    send(transports[0], bodies(2))
    names = set()
    for transport in transports:
        [held] = transport.receive(QUEUE, 1, 0)
        names.add(held.receipt.rpartition(" ")[2])
    assert len(names) == 2


def test_nothing_is_connected_to_before_it_is_needed() -> None:
    def connect(**options: t.Any) -> redis.Redis:
        raise AssertionError("it connected")

    RedisTransport(connect, namespace="test", visibility=1).close()


def _reads(transport: t.Any) -> list[t.Any]:
    found: list[t.Any] = transport.receive(QUEUE, 10, 0)
    return found


def _blocked(client: redis.Redis) -> bool:
    info: t.Any = client.info("clients")
    return bool(info["blocked_clients"])
