"""The share of their time that deliveries compute, by the size of the worker."""

from __future__ import annotations

import time

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.store.keys import Keys
from flask_durable.store.measurements.efforts import Effort
from flask_durable.store.measurements.efforts import Efforts
from flask_durable.store.measurements.hourly import KEPT
from flask_durable.store.server import StateServer

from ...support.harness import Harness
from ...support.servers import ValkeyServer

KEYS = Keys("test", 4)


@pytest.fixture
def server(url: str) -> StateServer:
    server = StateServer(url)
    server.client.flushdb()
    return server


def test_what_workers_of_two_sizes_write_is_read_by_size(server: StateServer) -> None:
    small, large = Efforts(server, KEYS, "a: small"), Efforts(server, KEYS, "large")
    for _ in range(2):
        small.took("encode", 80.0, 60.0)
        small.flush()
    large.took("encode", 20.0, None)
    large.flush()
    assert large.read(["encode", "other"]) == {
        "encode": {
            "a: small": Effort(2, 160.0, 160.0, 120.0),
            "large": Effort(1, 20.0, 0.0, 0.0),
        },
        "other": {},
    }


def test_what_was_written_is_not_written_again_and_expires(server: StateServer) -> None:
    efforts = Efforts(server, KEYS, "small")
    efforts.took("encode", 80.0, 60.0)
    efforts.flush()
    efforts.flush()
    assert efforts.read(["encode"])["encode"]["small"].samples == 1
    [key] = server.client.keys()
    assert KEPT - 60 < server.client.ttl(key) <= KEPT


def test_this_day_and_the_one_before_count(server: StateServer) -> None:
    efforts, now = Efforts(server, KEYS, "small"), time.time()
    efforts.took("encode", 80.0, 60.0)
    efforts.flush()
    assert efforts.read(["encode"], now=now + 86400)["encode"]
    assert not efforts.read(["encode"], now=now + 2 * 86400)["encode"]


def test_a_delivery_is_measured_with_the_name_of_its_workers_size(
    valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace, DURABLE_INSTANCE_SIZE="standard-2x")

    def compute() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    @harness.durable.function(on="encode/asked", id="encode")
    def encode(event: Event, step: Step) -> None:
        step.run("compute", compute)

    @harness.durable.function(on="fail/asked", id="fail")
    def fail(event: Event, step: Step) -> None:
        raise LookupError

    try:
        harness.send_and_settle("encode/asked")
        harness.send_and_settle("fail/asked")
        harness.state.efforts.flush()
        found = harness.state.efforts.read(["encode", "fail"])
    finally:
        harness.close()
    assert found["fail"] == {}
    [(size, effort)] = found["encode"].items()
    assert (size, effort.samples) == ("standard-2x", 1)
    assert effort.measured == effort.seconds
    assert effort.computing >= 0.05
