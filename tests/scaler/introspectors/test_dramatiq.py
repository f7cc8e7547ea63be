"""Queues of a real Dramatiq broker, with real workers of it."""

from __future__ import annotations

import threading
import time
import typing as t

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from flask_durable.errors import PlatformError
from flask_durable.scaler.introspectors import make_introspector
from flask_durable.scaler.introspectors.sampling import DRAWN

from ...support.servers import ValkeyServer
from ...support.servers import wait_until
from .looks import jobs
from .looks import Look

look = Look("dramatiq")


@pytest.fixture
def broker(server: ValkeyServer) -> t.Iterator[RedisBroker]:
    broker = RedisBroker(url=server.url)
    yield broker
    broker.close()
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


Declare = t.Callable[..., "dramatiq.Actor[..., t.Any]"]


@pytest.fixture
def declare(broker: RedisBroker) -> Declare:
    def declare(
        name: str, queue: str = "legacy", body: t.Callable[[], t.Any] = lambda: None
    ) -> dramatiq.Actor[..., t.Any]:
        return dramatiq.actor(body, actor_name=name, queue_name=queue, broker=broker)

    return declare


def test_messages_are_counted_by_actor(server: ValkeyServer, declare: Declare) -> None:
    one, two = declare("one"), declare("two", "other")
    for _ in range(5):
        one.send()
    two.send()
    seen = look(server, "legacy", "other")
    assert jobs(seen) == {"one": 5, "two": 1}
    assert seen.queues == {"one": "legacy", "two": "other"}
    assert (seen.samples, seen.running, seen.units) == ((), (), ())
    assert jobs(look(server, "legacy")) == {"one": 5}


def test_the_age_is_that_of_the_first_in_line(
    server: ValkeyServer, declare: Declare, broker: RedisBroker
) -> None:
    one, now = declare("one"), int(time.time() * 1000)
    for age in (500_000, 300_000, 100_000):
        broker.enqueue(one.message().copy(message_timestamp=now - age))
    seen = look(server)
    assert max(group.oldest for group in seen.waiting) == pytest.approx(500, abs=20)
    assert min(group.newest for group in seen.waiting) == pytest.approx(100, abs=20)


def test_a_message_that_was_delayed_is_as_old_as_what_is_before_it(
    server: ValkeyServer, declare: Declare, broker: RedisBroker
) -> None:
    one, now = declare("one"), int(time.time() * 1000)
    for age in (50_000, 5_000_000):
        broker.enqueue(one.message().copy(message_timestamp=now - age))
    # The first is sent first: nothing is in line for longer than what is before it.
    ages = sorted(g.oldest for g in look(server).waiting)
    assert ages == pytest.approx([50, 50], abs=20)


def test_delayed_messages_wake_up(server: ValkeyServer, declare: Declare) -> None:
    one = declare("one")
    one.send_with_options(delay=30_000)
    one.send_with_options(delay=3_600_000)
    seen = look(server)
    [(function, due)] = seen.wakeups
    assert function == "one"
    assert 0 < due <= 30
    assert seen.queues == {"one": "legacy"}
    assert not seen.waiting


def test_many_delayed_messages_are_sampled(
    server: ValkeyServer, declare: Declare
) -> None:
    one = declare("one")
    for _ in range(2_900):
        one.send_with_options(delay=30_000)
    assert len(look(server).wakeups) == 2_900


def test_a_worker_that_has_more_than_its_threads_lets_the_rest_wait(
    server: ValkeyServer, declare: Declare, broker: RedisBroker
) -> None:
    gate = threading.Event()
    one = declare("one", body=lambda: gate.wait(60))
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        for _ in range(6):
            one.send()

        def is_busy() -> bool:
            seen = look(server, threads=2)
            return len(seen.running) == 2 and jobs(seen) == {"one": 4}

        wait_until(is_busy, "two run and four wait", 30)
        wait_until(lambda: bool(look(server, threads=2).units), "a unit", 30)
        [unit] = look(server, threads=2).units
        assert (unit.slots, unit.busy) == (2, 2)
    finally:
        gate.set()
        worker.stop()


def test_what_a_dead_worker_had_waits(server: ValkeyServer, declare: Declare) -> None:
    declare("one").send()
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        id = client.lpop("dramatiq:legacy")
        client.sadd("dramatiq:__acks__.dead.legacy", str(id))
        client.zadd("dramatiq:__heartbeats__", {"dead": (time.time() - 90) * 1000})
    seen = look(server)
    assert jobs(seen) == {"one": 1}
    assert (seen.running, seen.units) == ((), ())


def test_a_long_queue_is_sampled(server: ValkeyServer, declare: Declare) -> None:
    one, two = declare("one"), declare("two")
    for number in range(3_000):
        (one if number % 3 else two).send()
    seen = look(server)
    found = jobs(seen)
    assert sum(found.values()) == 3_000
    assert found["one"] == pytest.approx(2_000, abs=200)
    [sample] = seen.samples
    assert (sample.jobs, sample.size) == (3_000, DRAWN)


def test_a_message_of_another_encoder_counts_and_is_not_decoded(
    server: ValkeyServer, broker: RedisBroker
) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.rpush("dramatiq:legacy", "x")
        client.hset("dramatiq:legacy.msgs", "x", b"\x80\x04}\x94.")
    assert jobs(look(server)) == {"(unreadable)": 1}


def test_a_server_that_does_not_answer_is_an_error_without_its_url() -> None:
    given = {"introspector": "dramatiq", "url": "redis://:hidden@127.0.0.1:1/0"}
    with pytest.raises(PlatformError) as raised:
        make_introspector(given, ["legacy"]).look(60.0)
    assert raised.value.code == "platform.unavailable"
    assert "hidden" not in str(raised.value)
