"""FIFO queues through a daemon and Lambda, with the state server away now and then."""

from __future__ import annotations

import contextlib
import random
import time
import typing as t
from collections import defaultdict

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.messages import EVENT_QUEUE
from flask_durable.queue.transport import QueueCounts
from flask_durable.worker.push.messages import RENEWED_FROM

from ..support.harness import Harness
from ..support.proxy import Proxy
from ..support.proxy import proxy
from ..support.servers import SQSServer
from ..support.servers import ValkeyServer
from ..worker.push.conftest import end
from ..worker.push.sqsd import Daemon
from ..worker.push.sqsd import to_app
from ..worker.push.test_lambda import OrderedMapping
from .chaos import RECOVERY

QUEUES = (EVENT_QUEUE, "orders", "default")

TENANTS = ["a", "b", "c"]

#: The functions in turn, each with its event. An order's number is the id of both.
FUNCTIONS = {"place": "order/placed", "pay": "order/paid"}


class OrderedDaemon(Daemon):
    """The daemons of an environment whose queues are those that the app has made."""

    mapping: OrderedMapping

    def url(self, queue: str) -> str:
        return self.mapping.url(queue)


class Orders:
    """Sends events of several tenants, and hands their messages over, or fails to."""

    def __init__(
        self, harness: Harness, sqs: SQSServer, server: Proxy, chance: random.Random
    ) -> None:
        self.harness = harness
        self.chance = chance
        self.begun: dict[str, list[int]] = defaultdict(list)
        self.sent: dict[str, list[int]] = defaultdict(list)
        self._server = server
        self._away = 0
        self._mapping = OrderedMapping(harness, sqs)
        # What nobody answers for is hidden for a second.
        self._daemon = OrderedDaemon(
            sqs, to_app(harness.app), "", queues=QUEUES, visibility=1
        )
        self._daemon.mapping = self._mapping

        for function, name in FUNCTIONS.items():

            @harness.durable.function(on=name, id=function, queue="orders")
            def note(event: Event[t.Any], step: Step) -> None:
                numbers = self.begun[event.data["tenant"]]
                if event.data["n"] not in numbers:  # an attempt may be repeated
                    numbers.append(event.data["n"])
                step.run("one", int)
                step.run("two", int)

    def reign(self, seconds: float) -> None:
        """Send and deliver for so long, with the state server away at times."""
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            for _ in range(self.chance.randrange(5)):
                self._send()
            if not self._away and self.chance.random() < 0.2:
                self._server.take_down()
                self._away = self.chance.choice([1, 2, 4, 12])
            self._deliver(self.chance.choice(QUEUES))
            if self._away:
                self._away -= 1
                if not self._away:
                    self._server.bring_up()
            elif self.chance.random() < 0.02:
                self._receive_often(self.chance.choice(QUEUES[:2]))
        self._away = 0
        self._server.bring_up()
        self._receive_often(self.chance.choice(QUEUES[:2]))

    def settle(self) -> None:
        """Deliver until nothing is left."""
        deadline = time.monotonic() + RECOVERY
        nothing = [QueueCounts(0, 0, 0, 0)] * len(QUEUES)
        while self.queues() != nothing:
            assert time.monotonic() < deadline, self.queues()
            for queue in QUEUES:
                self._deliver(queue)

    def _receive_often(self, queue: str) -> None:
        """Have the server away until messages of *queue* were received often."""
        self.settle()  # nothing that is left was
        for _ in range(8):
            self._send()
        if queue != EVENT_QUEUE:
            for _ in range(4):
                self._deliver(EVENT_QUEUE)
        self._server.take_down()
        for _ in range(RENEWED_FROM + 1):
            self._deliver(queue)
        self._server.bring_up()

    def queues(self) -> list[QueueCounts]:
        broker = self.harness.state.broker
        return [broker.transport.counts(queue) for queue in QUEUES]

    def _send(self) -> None:
        tenant = self.chance.choice(TENANTS)
        n = len(self.sent[tenant])
        with contextlib.suppress(UnavailableError):
            data = {"tenant": tenant, "n": n}
            function, id = names_of(tenant, n)
            self.harness.send(FUNCTIONS[function], data, id=id)
            self.sent[tenant].append(n)

    def _deliver(self, queue: str) -> None:
        twice = 1 + (self.chance.random() < 0.2)  # as if an answer was lost
        if self.chance.random() < 0.5:
            self._daemon.deliver(queue, times=twice)
            return
        messages = self._mapping.receive(queue, self.chance.choice([1, 4, 10]))
        if not messages:
            return
        seconds = self.chance.choice([0.1, 1.0, 3.0])
        if twice == 2 and queue != "default":
            self._mapping.invoke(messages, seconds=seconds, fifo=".fifo")
        self._mapping.settle(queue, messages, seconds=seconds)


def names_of(tenant: str, n: int) -> tuple[str, str]:
    """Return function and id of a tenant's event."""
    return [*FUNCTIONS][n % 2], f"{tenant}-{n // 2}"


@pytest.fixture
def orders(
    valkey: ValkeyServer, sqs: SQSServer, namespace: str, chance: random.Random
) -> t.Iterator[Orders]:
    with proxy(valkey.port, b"\0") as server:
        harness = Harness(
            f"redis://127.0.0.1:{server.port}/0",
            namespace,
            DURABLE_QUEUE_URL=sqs.url,
            DURABLE_QUEUES={
                # A message of these is never sent again, so outages use up receives.
                EVENT_QUEUE: {"group": "data.tenant", "max_receives": 1000},
                "orders": {"fifo": True, "max_receives": 1000},
            },
            DURABLE_FSYNC="ack",
            DURABLE_PUSH_LOOPBACK=True,
            DURABLE_PUSH_BUDGET="1s",
        )
        try:
            yield Orders(harness, sqs, server, chance)
        finally:
            server.bring_up()
            end(harness)


def test_runs_of_each_group_start_in_order_and_none_is_lost(
    orders: Orders, reign: float
) -> None:
    orders.reign(reign)
    orders.settle()
    assert sum(map(len, orders.sent.values())) > 3
    assert orders.begun == orders.sent
    for tenant, numbers in orders.sent.items():
        for n in numbers:
            function, id = names_of(tenant, n)
            assert orders.harness.run_of(id, function).status.value == "completed"
