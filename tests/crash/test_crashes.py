"""The workload is lived through once for every operation that can go wrong."""

from __future__ import annotations

import functools
import logging
import typing as t

import pytest
import redis
from moto import mock_aws

from flask_durable.queue import sqs

from ..servers import AWS_ENVIRONMENT
from ..servers import ValkeyServer
from ..servers import wait_until
from .faults import Fault
from .faults import intercepted
from .faults import Operations
from .world import VISIBILITY
from .world import World

#: What a life consists of at least, on any queue.
STORE = {
    "redis functions_publish",
    "redis run_create+GET",
    "redis run_claim+HGETALL",
    "redis step_commit",
    "redis run_suspend",
    "redis run_finish",
    "redis sweep",
    "redis ZREM",
    "redis ZREM+HDEL",
}
QUEUE = {
    "redis": {"redis XADD", "redis XREADGROUP", "redis q_promote", "redis q_ack"},
    "sqs": {
        f"sqs {call} {queue}"
        for call in ("SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch")
        for queue in ("events", "default")
    },
}

Life = t.Callable[..., Operations]


@pytest.fixture(scope="module", params=["redis", "sqs"])
def queue_url(request: pytest.FixtureRequest) -> t.Iterator[str | None]:
    """The address of each kind of queue; SQS is moto's, in this process."""
    if request.param == "redis":
        yield None
        return
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for key, value in AWS_ENVIRONMENT.items():
            patch.setenv(key, value)
        # To make a client takes longer than a whole life.
        patch.setattr(sqs, "make_client", functools.cache(sqs.make_client))
        yield "sqs://?region=us-east-1"


@pytest.fixture
def life(
    valkey: ValkeyServer,
    queue_url: str | None,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> Life:
    """Return a function that lives the workload once, in a namespace of its own."""
    caplog.set_level(logging.CRITICAL)
    wait_until(lambda: _uptime(valkey) > VISIBILITY, "the server's first seconds")
    number = 0

    def live(fault: Fault | None = None, at: int = -1, **options: t.Any) -> Operations:
        nonlocal number
        number += 1
        operations = Operations(fault, at)
        with intercepted(operations):
            name = f"{namespace}-{number}"
            World(valkey.url, queue_url, name, operations, **options).live()
        return operations

    return live


def test_a_life_without_a_fault_has_many_operations(
    life: Life, queue_url: str | None
) -> None:
    operations = life()

    kinds = set(operations.kinds)
    wanted = STORE | QUEUE["redis" if queue_url is None else "sqs"]
    assert wanted <= kinds, wanted - kinds
    assert len(operations.kinds) > 60


@pytest.mark.parametrize("fault", Fault)
def test_a_workload_survives_a_fault_at_any_operation(
    life: Life, fault: Fault, pytestconfig: pytest.Config
) -> None:
    everywhere = bool(pytestconfig.getoption("--long", False))
    problems: list[str] = []
    for in_place, prompt in ((8, True), (0, False)):
        options = {"in_place": in_place, "prompt": prompt}
        life(**options)  # the first one loads the scripts, which no later one does
        kinds = life(**options).kinds
        points = list(range(len(kinds))) if everywhere else _sample(kinds)
        assert len(points) > 20
        for at in points:
            try:
                lived = life(fault, at, **options)
                assert lived.kinds[at] == kinds[at], "another life before the fault"
            except AssertionError as problem:
                problems.append(f"{fault.value} at {at} ({kinds[at]}): {problem}")
    assert not problems, "\n".join(problems)


def _uptime(valkey: ValkeyServer) -> int:
    with redis.Redis.from_url(valkey.url) as client:
        return int(client.info("server")["uptime_in_seconds"])


def _sample(kinds: t.Sequence[str]) -> list[int]:
    """Return the first, the last and a middle operation of each kind."""
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    points = {
        found[number]
        for found in places.values()
        for number in (0, len(found) // 2, -1)
    }
    return sorted(points)
