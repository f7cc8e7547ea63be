"""Reading from the server of another library's queues."""

from __future__ import annotations

import typing as t

import pytest
import redis

from flask_durable.scaler.introspectors.server import QueueServer
from flask_durable.scaler.introspectors.server import read_hash
from flask_durable.scaler.introspectors.server import read_list
from flask_durable.scaler.introspectors.server import read_sorted_set

from ...support.servers import ValkeyServer


@pytest.fixture(params=[2, 3])
def client(
    server: ValkeyServer, request: pytest.FixtureRequest
) -> t.Iterator[redis.Redis]:
    """A client by each version of the protocol."""
    with QueueServer(f"{server.url}?protocol={request.param}").client() as client:
        yield client
        client.flushall()
        client.close()


def test_some_values_of_a_hash_stand_for_all(client: redis.Redis) -> None:
    client.hset("hash", mapping={str(n): f"value {n % 2}" for n in range(700)})
    exact = read_hash(client, "hash", 1_000)
    assert len(exact) == 700
    assert {number for _, number in exact} == {1}
    drawn = read_hash(client, "hash", 300)
    assert len(drawn) == 300
    assert sum(number for _, number in drawn) == 700
    assert {value for value, _ in drawn} == {"value 0", "value 1"}
    assert read_hash(client, "nothing", 300) == []


def test_a_list_is_read_as_a_whole_or_in_places(client: redis.Redis) -> None:
    client.rpush("list", *map(str, range(600)))
    whole = list(range(600))
    assert read_list(client, "list", whole) == [*map(str, whole)]
    places = list(range(0, 602, 2))
    assert read_list(client, "list", places) == [*map(str, places[:-1]), None]
    assert read_list(client, "list", list(range(598, 602))) == [
        "598",
        "599",
        None,
        None,
    ]
    assert read_list(client, "list", []) == []


def test_a_sorted_set_is_read_as_a_whole_or_by_ranks(client: redis.Redis) -> None:
    client.zadd("zset", {str(n): n / 2 for n in range(10)})
    assert read_sorted_set(client, "zset", [0, 1]) == [("0", 0.0), ("1", 0.5)]
    assert read_sorted_set(client, "zset", [1, 9, 12]) == [("1", 0.5), ("9", 4.5)]
