"""Connections that look alive: to a server that became a replica, and to nowhere."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from flask_durable.app import health
from flask_durable.app.health import HealthChecks
from flask_durable.app.health import Readiness
from flask_durable.errors import UnavailableError
from flask_durable.queue.redis_streams.transport import RedisTransport
from flask_durable.queue.transport import QueueAway
from flask_durable.store.barrier import Barrier
from flask_durable.store.server import StateServer

from ..support.harness import Harness
from ..support.replicas import command
from ..support.replicas import Pair
from ..support.replicas import replicated
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

TAG = "{failover:0}"
QUEUE = "orders"


@pytest.fixture
def pair() -> t.Iterator[Pair]:
    with replicated() as pair:
        yield pair


def test_every_kind_of_connection_leaves_a_server_that_became_a_replica(
    pair: Pair,
) -> None:
    server = StateServer(pair.url)
    hasty = StateServer(pair.url, retries=0)
    transport = RedisTransport(server.make_client, namespace="n", visibility=10)
    barrier = Barrier(server, [TAG], 0)
    transport.declare(QUEUE)
    assert transport.send(QUEUE, ["one"]) == [None]
    assert [message.body for message in transport.receive(QUEUE, 1, 0)] == [b"one"]
    for each in (server, hasty):
        each.call("barrier", TAG)
        each.client.set("warm", "1")
    barrier.wait()
    pair.switch()

    # Once each of them was told to go, it goes: none is told twice.
    for each in (server, hasty):
        each.call("barrier", TAG)
        _at_the_second_try(lambda each=each: each.client.set("x", "1"))
    _at_the_second_try(lambda: _sent(transport))
    assert _at_the_second_try(lambda: transport.receive(QUEUE, 1, 0))
    _at_the_second_try(barrier.wait)
    transport.close()
    server.close()
    hasty.close()


def _sent(transport: RedisTransport) -> None:
    [error] = transport.send(QUEUE, ["two"])
    if error is not None:
        raise error


def _at_the_second_try(act: t.Callable[[], t.Any]) -> t.Any:
    try:
        return act()
    except (redis.ConnectionError, UnavailableError, QueueAway):
        return act()


def test_all_threads_leave_a_server_that_became_a_replica_once_one_is_told(
    pair: Pair,
) -> None:
    server = StateServer(pair.url)
    ready = threading.Barrier(6)

    def call(_: int) -> t.Any:
        ready.wait(30)  # so that each thread has one
        return server.call("barrier", TAG)

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(call, range(6)))
        pair.switch()
        assert all(threads.map(call, range(6)))
    server.close()


def test_one_timeout_is_enough_for_all_connections_of_a_network_that_forgot_them(
    pair: Pair,
) -> None:
    # One try: what is forgotten is met by the first of all that follow, or not at all.
    server = StateServer(pair.url, retries=0, timeout=1)
    go_on = threading.Barrier(6)

    def call(_: int) -> t.Any:
        go_on.wait(30)
        return server.call("barrier", TAG)

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(call, range(6)))
        idle = [server.client.connection_pool.get_connection() for _ in range(4)]
        for connection in idle:
            server.client.connection_pool.release(connection)
        pair.name.forget()

        assert server.call("barrier", TAG)
        assert pair.name.fell_for == 1
        assert server.client.ping()
        assert server.new_client().ping()
        assert all(threads.map(call, range(6)))
    assert pair.name.fell_for == 1
    server.close()


def test_a_process_on_a_replica_is_not_ready(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READINESS_BELIEVED", 0)
    with valkey_server() as server:
        harness = Harness(server.url, namespace)
        assert harness.state.readiness.problems() == []
        command(server, "REPLICAOF", "127.0.0.1", "1")
        [problem] = harness.state.readiness.problems()
        assert "replica" in problem
        assert not next(HealthChecks(harness.state).everything()).ok
        command(server, "REPLICAOF", "NO", "ONE")
        assert harness.state.readiness.problems() == []
        harness.close()


def test_a_process_whose_queue_is_on_a_replica_is_not_ready(
    valkey: ValkeyServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READINESS_BELIEVED", 0)
    with valkey_server() as queues:
        harness = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=queues.url)
        assert harness.state.readiness.problems() == []
        command(queues, "REPLICAOF", "127.0.0.1", "1")
        [problem] = harness.state.readiness.problems()
        assert problem.startswith("queue: ")
        command(queues, "REPLICAOF", "NO", "ONE")
        assert harness.state.readiness.problems() == []
        harness.close()


def test_a_look_at_the_readiness_is_believed_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def look() -> list[str]:
        looks.append(1)
        if len(looks) == 2:
            raise RuntimeError
        return [f"look {len(looks)}"]

    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    readiness = Readiness(look)
    assert [readiness.problems() for _ in range(5)] == [["look 1"]] * 5
    now[0] += health.READINESS_BELIEVED + 0.1
    with pytest.raises(RuntimeError):
        readiness.problems()
    # Nor is one repeated that failed.
    assert readiness.problems() == ["the check failed"]
    now[0] += health.READINESS_BELIEVED + 0.1
    assert readiness.problems() == ["look 3"]


def test_one_thread_looks_at_the_readiness_and_the_others_go_by_the_last_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "READINESS_BELIEVED", 0)
    looks: list[int] = []
    go_on = threading.Event()

    def look() -> list[str]:
        looks.append(1)
        if len(looks) == 2:
            assert go_on.wait(30)
        return [f"look {len(looks)}"]

    readiness = Readiness(look)
    assert readiness.problems() == ["look 1"]
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(readiness.problems)
        wait_until(lambda: len(looks) == 2, "the second look")
        assert readiness.problems() == ["look 1"]
        go_on.set()
        assert second.result(30) == ["look 2"]
