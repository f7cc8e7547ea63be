"""Messages through our broker on SQS, and through a loop that one writes by hand.

The loop is what boto3's manual leads to: batches of ten to send, a long poll for ten,
and a batch to delete them. Both do nothing with a message. They take turns on one
server, moto's, each with a queue of its own in every round, and with few messages,
since moto's calls cost the more the longer a queue is. Most of the time is moto's; so
what our own process computes for a message is compared as well.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
import typing as t
from dataclasses import dataclass

from flask_durable.queue.broker import DurableBroker
from tests.queue.kit import bodies
from tests.queue.kit import Log
from tests.queue.kit import QUEUE
from tests.queue.kit import SQSKit
from tests.queue.kit import working
from tests.support.servers import sqs_server
from tests.support.servers import wait_until

from .model import Figure
from .model import Options

#: Messages of a round.
COUNT = 400

#: How many SQS takes and gives in one call.
BATCH = 10


@dataclass(frozen=True)
class Cost:
    """What one message took.

    :param seconds: By the clock.
    :param computed: Seconds of this process's processor time.
    """

    seconds: float
    computed: float


class Side(t.Protocol):
    """What is compared."""

    def send(self, texts: t.Sequence[str]) -> None:
        """Send messages."""

    def receive(self, count: int) -> None:
        """Receive and delete so many messages."""


class Loop:
    """The loop by hand, on one thread."""

    def __init__(self, kit: SQSKit) -> None:
        self._client = kit.client
        name = f"{kit.namespace}-by-hand"
        self._url = self._client.create_queue(QueueName=name)["QueueUrl"]

    def send(self, texts: t.Sequence[str]) -> None:
        for start in range(0, len(texts), BATCH):
            entries = [
                {"Id": str(number), "MessageBody": text}
                for number, text in enumerate(texts[start : start + BATCH])
            ]
            self._client.send_message_batch(QueueUrl=self._url, Entries=entries)

    def receive(self, count: int) -> None:
        while count:
            reply = self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=20
            )
            messages = reply.get("Messages", [])
            for message in messages:
                json.loads(message["Body"])
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            count -= len(messages)


class Ours:
    """Our broker, and a Dramatiq worker with eight threads."""

    def __init__(self, kit: SQSKit) -> None:
        self._broker: DurableBroker = kit.broker(visibility=30)
        # Both of its clients are made, and connected.
        self._broker.transport.declare(QUEUE)
        self._broker.transport.counts(QUEUE)

    def send(self, texts: t.Sequence[str]) -> None:
        assert self._broker.sender.send(QUEUE, texts) == [None] * len(texts)

    def receive(self, count: int) -> None:
        log = Log()
        with working(self._broker, log):
            wait_until(lambda: len(log) == count, timeout=60)
            assert self._broker.flush_settled(30)


def measure(options: Options) -> t.Iterator[Figure]:
    """Take turns, and compare the medians."""
    with sqs_server() as server:
        _round(server.url)  # everything is imported
        rounds = [_round(server.url) for _ in range(3 if options.quick else 9)]
    for work in ("send", "receive and delete"):
        theirs = [found["loop", work] for found in rounds]
        ours = [found["ours", work] for found in rounds]
        yield _figure(f"SQS, {work}: messages/s", 0.9, theirs, ours, "seconds")
        yield _figure(f"SQS, {work}: computed", None, theirs, ours, "computed")


def _round(url: str) -> dict[tuple[str, str], Cost]:
    kit = SQSKit(url)
    found = {}
    sides: dict[str, Side] = {"loop": Loop(kit), "ours": Ours(kit)}
    try:
        for name, side in sides.items():
            found[name, "send"] = _cost(functools.partial(side.send, bodies(COUNT)))
            receive = functools.partial(side.receive, COUNT)
            found[name, "receive and delete"] = _cost(receive)
    finally:
        kit.close()
    return found


def _cost(work: t.Callable[[], None]) -> Cost:
    began, computed = time.perf_counter(), time.process_time()
    work()
    return Cost(
        (time.perf_counter() - began) / COUNT,
        (time.process_time() - computed) / COUNT,
    )


def _figure(
    name: str,
    budget: float | None,
    theirs: t.Sequence[Cost],
    ours: t.Sequence[Cost],
    field: str,
) -> Figure:
    by_hand = statistics.median(getattr(cost, field) for cost in theirs)
    measured = statistics.median(getattr(cost, field) for cost in ours)
    return Figure(
        name,
        budget,
        by_hand / measured if budget else measured / by_hand,
        "x by hand",
        at_least=budget is not None,
        detail=f"{measured * 1e6:.0f} us a message, by hand {by_hand * 1e6:.0f} us",
    )
