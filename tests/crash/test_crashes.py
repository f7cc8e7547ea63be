"""Each workload is lived through once for every operation that can go wrong."""

from __future__ import annotations

import functools
import hashlib
import logging
import pathlib
import time
import typing as t
from collections import Counter

import pytest
import redis
from moto import mock_aws

from flask_durable.queue.sqs import client as sqs_client
from flask_durable.queue.sqs.client import make_client
from flask_durable.queue.sqs.options import SQSAddress

from ..support.servers import AWS_ENVIRONMENT
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from .faults import Fault
from .faults import intercepted
from .faults import Operations
from .faults import Place
from .workloads import FanOut
from .workloads import Ledger
from .workloads import Orders
from .workloads import Waits
from .workloads import Workload
from .world import VISIBILITY
from .world import World

#: The operations of a queue, of each kind of queue.
QUEUE = {
    "redis": ("XADD", "XREADGROUP", "q_promote", "q_ack"),
    "sqs": tuple(
        f"{call} events"
        for call in ("SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch")
    ),
}

WORKLOADS = [Orders, Waits, FanOut, Ledger]

Life = t.Callable[..., Operations]


@pytest.fixture(params=["redis", "sqs"])
def queue_url(request: pytest.FixtureRequest) -> t.Iterator[str | None]:
    """The address of each kind of queue; SQS is moto's, in this process."""
    if request.param == "redis":
        yield None
        return
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for key, value in AWS_ENVIRONMENT.items():
            patch.setenv(key, value)
        url = "sqs://?region=us-east-1"
        # To make a client takes longer than a whole life.
        client = make_client(SQSAddress.parse(url))
        patch.setattr(sqs_client, "make_client", lambda *_, **__: client)
        yield url


@pytest.fixture
def life(
    valkey: ValkeyServer,
    queue_url: str | None,
    namespace: str,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> Life:
    """Return a function that lives a workload once, in a namespace of its own."""
    caplog.set_level(logging.CRITICAL)
    wait_until(lambda: _uptime(valkey) > VISIBILITY, "the server's first seconds")
    number = 0

    def live(
        fault: Fault | None = None,
        at: Place = ("", 0),
        workload: type[Workload] = Orders,
        **options: t.Any,
    ) -> Operations:
        nonlocal number
        number += 1
        operations = Operations(fault, at)
        with intercepted(operations):
            functions = workload(tmp_path / f"life-{number}")
            where = (valkey.url, queue_url, f"{namespace}-{number}")
            World(functions, *where, operations, **options).live()
        return operations

    return live


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_life_without_a_fault_has_many_operations(
    life: Life, workload: type[Workload], queue_url: str | None
) -> None:
    operations = life(workload=workload)

    queue = QUEUE["redis" if queue_url is None else "sqs"]
    for name in (*workload.OPERATIONS, *queue):
        assert any(name in kind for kind in operations.kinds), name
    assert len(operations.kinds) > 30


@pytest.mark.parametrize("options", [(8, True), (0, False)])
def test_a_life_sends_the_same_however_busy_the_machine_is(
    life: Life, options: tuple[int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place, prompt = options
    live = functools.partial(life, in_place=in_place, prompt=prompt)
    live()  # the first one loads the scripts, which no later one does
    plain = Counter(live().kinds)
    clock = time.monotonic

    # A machine that is a thousand times as slow, by its own clock.
    monkeypatch.setattr(time, "monotonic", lambda: 1000 * clock())

    assert Counter(live().kinds) == plain


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", Fault)
def test_a_workload_survives_a_fault_at_any_operation(
    life: Life, fault: Fault, queue_url: str | None, pytestconfig: pytest.Config
) -> None:
    everywhere = bool(pytestconfig.getoption("--long", False))
    problems: list[str] = []
    for in_place, prompt in ((8, True), (0, False)):
        options = {"in_place": in_place, "prompt": prompt}
        life(**options)  # the first one loads the scripts, which no later one does
        places = life(**options).places
        assert len(places) > 60
        if not everywhere:
            places = _sample(places, whole=prompt and queue_url is None)
            assert len(places) > 12
        for place in places:
            try:
                assert life(fault, place, **options).came_to_it
            except AssertionError as problem:
                problems.append(f"{fault.value} at {place}, {options}: {problem}")
        if queue_url is not None and not everywhere:
            break
    assert not problems, "\n".join(problems)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("workload", WORKLOADS[1:])
def test_each_kind_of_step_survives_a_fault_at_its_own_operations(
    life: Life,
    workload: type[Workload],
    fault: Fault,
    queue_url: str | None,
    pytestconfig: pytest.Config,
) -> None:
    everywhere = bool(pytestconfig.getoption("--long", False))
    problems: list[str] = []
    ways = [(8, True), (0, False)]
    if not everywhere:
        ways = [ways[queue_url is not None]]
    for in_place, prompt in ways:
        options = {"in_place": in_place, "prompt": prompt, "workload": workload}
        life(**options)  # the first one loads the scripts, which no later one does
        places = life(**options).places
        if not everywhere:
            places = _own(places, workload, several=queue_url is None)
            assert len(places) >= len(workload.OPERATIONS)
        for place in places:
            try:
                assert life(fault, place, **options).came_to_it
            except AssertionError as problem:
                problems.append(f"{fault.value} at {place}, {options}: {problem}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("fault", Fault)
def test_a_workload_survives_a_fault_at_a_barrier(life: Life, fault: Fault) -> None:
    options = {"fsync": "ack", "prompt": False}
    barriers = [place for place in life(**options).places if "WAITAOF" in place[0]]

    # Each waits for the disk, so only one of them goes wrong.
    assert life(fault, barriers[1], **options).came_to_it


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.kills])
def test_a_workload_with_large_values_survives_a_death_at_any_object(
    life: Life, fault: Fault, tmp_path: pathlib.Path
) -> None:
    options: dict[str, t.Any] = {"blobs": tmp_path / "whole"}
    life(**options)  # the first one loads the scripts, which no later one does
    whole = life(**options).places
    puts = [p for p in whole if p[0].startswith("blobs") or "run_hold" in p[0]]
    assert len(puts) > 12

    for number, place in enumerate(puts):
        options["blobs"] = tmp_path / str(number)
        assert life(fault, place, **options).came_to_it
    objects = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(objects) > len(puts) ** 2 / 2
    for path in objects:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _uptime(valkey: ValkeyServer) -> int:
    with redis.Redis.from_url(valkey.url) as client:
        return int(client.info("server")["uptime_in_seconds"])


def _sample(places: t.Iterable[Place], *, whole: bool) -> list[Place]:
    """Return an operation of each kind.

    :param whole: True to take all of the kinds that change the state of runs, and
        two of the others.
    """
    numbers: dict[str, list[int]] = {}
    for kind, number in places:
        numbers.setdefault(kind, []).append(number)
    chosen = []
    for kind, found in numbers.items():
        if not whole:
            found = [found[len(found) // 2]]
        elif not any(name in kind for name in Orders.OPERATIONS):
            found = sorted({found[0], found[-1]})
        chosen += [(kind, number) for number in found]
    return chosen


def _own(
    places: t.Iterable[Place], workload: type[Workload], *, several: bool
) -> list[Place]:
    """Return one of each kind of the workload's own operations.

    :param several: True to take the first and the last one too.
    """
    numbers: dict[str, list[int]] = {}
    for kind, number in places:
        if any(name in kind for name in workload.OPERATIONS):
            numbers.setdefault(kind, []).append(number)
    chosen = []
    for kind, found in numbers.items():
        some = {found[len(found) // 2]}
        if several:
            some |= {found[0], found[-1]}
        chosen += [(kind, number) for number in sorted(some)]
    return chosen
