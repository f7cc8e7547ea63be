"""The workload is lived through once for every operation that can go wrong."""

from __future__ import annotations

import functools
import logging
import typing as t
from unittest import mock

import pytest
from moto import mock_aws

from flask_durable.queue import sqs

from ..servers import AWS_ENVIRONMENT
from ..servers import ValkeyServer
from .faults import Fault
from .faults import intercepted
from .faults import Operations
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
    life: Life, fault: Fault, queue_url: str | None, pytestconfig: pytest.Config
) -> None:
    life()  # the first one loads the scripts, which no later one does
    kinds = life().kinds
    points = list(range(len(kinds)))
    if not pytestconfig.getoption("--long", False):
        points = _sample(kinds, most=2 if queue_url else 5)
    problems = []
    for at in points:
        try:
            lived = life(fault, at)
            assert lived.kinds[at] == kinds[at], "the lives differ before the fault"
        except AssertionError as problem:
            problems.append(f"{fault.value} at {at} ({kinds[at]}): {problem}")
    assert not problems, "\n".join(problems)
    assert len(points) > 20


def _sample(kinds: t.Sequence[str], most: int) -> list[int]:
    """Return places of every kind, spread over the life."""
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    points = []
    for found in places.values():
        step = max(1, len(found) // most)
        points += found[::step][:most]
    return sorted(points)
