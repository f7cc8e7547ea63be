"""The kinds of queues, with what their tests need beyond the transport's protocol."""

from __future__ import annotations

import contextlib
import threading
import typing as t
import uuid
from dataclasses import dataclass
from dataclasses import field

import boto3
import dramatiq
import redis

from flask_durable.app.queues import queue_client_factory
from flask_durable.messages import RunMessage
from flask_durable.queue.broker import DurableBroker
from flask_durable.queue.redis_streams.transport import RedisTransport
from flask_durable.queue.sending import SEND_PATIENCE_SECONDS
from flask_durable.queue.sending import Sender
from flask_durable.queue.sqs.options import SQSAddress
from flask_durable.queue.sqs.transport import SQSTransport
from flask_durable.queue.transport import Received
from flask_durable.queue.transport import Transport
from flask_durable.queue.window import Window

from ..support.servers import wait_until

QUEUE = "media"


@dataclass
class DeadLetter:
    body: str
    reason: str | None
    receives: int


@dataclass
class State:
    """The state that messages lead to: always durable, if a test has no other."""

    barrier: t.Callable[[], bool] = lambda: True
    healthy: t.Callable[[], bool] = lambda: True
    on_failed: t.Callable[[t.Mapping[str, str]], None] = lambda failed: None

    @property
    def reachable(self) -> bool:
        return self.healthy()

    def wait_durable(self) -> bool:
        return self.barrier()

    def note_failures(self, failed: t.Mapping[str, str]) -> None:
        self.on_failed(failed)


#: The options of a kit's broker that are those of its state.
STATE = {"barrier", "healthy", "on_failed"}


@dataclass
class Worker:
    """A worker that notes what its broker tells it."""

    empty: list[str] = field(default_factory=list)
    unstarted: list[t.Any] = field(default_factory=list)

    def found_empty(self, queue: str) -> None:
        self.empty.append(queue)

    def take_back(self, payloads: list[t.Any]) -> None:
        self.unstarted += payloads


class Kit:
    """One kind of queue on a server, in a namespace that no other test uses."""

    kind: str
    #: The shortest visibility timeout that the kind can do.
    visibility: float
    longest_wait: float
    #: True if the server takes a stale receipt for the latest one, which none should.
    takes_stale_receipts = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = f"test-{uuid.uuid4().hex[:8]}"
        self._closers: list[t.Callable[[], None]] = []

    def transport(
        self, *, visibility: float | None = None, max_receives: int = 10
    ) -> Transport:
        made = make_transport(
            self.kind,
            self.url,
            self.namespace,
            self.visibility if visibility is None else visibility,
            max_receives,
        )
        # A blocked read ends sooner, so that closing a broker does.
        made.longest_wait = min(made.longest_wait, self.longest_wait)
        self._closers.append(made.close)
        return made

    def broker(self, *, size: int = 8, **options: t.Any) -> DurableBroker:
        visibility = options.pop("visibility", self.visibility)
        state = {name: options.pop(name) for name in STATE & options.keys()}
        options.setdefault("window", Window(size))
        transport = options.pop("transport", None)
        if transport is None:
            transport = self.transport(visibility=visibility)
        patience = options.pop("patience", SEND_PATIENCE_SECONDS)
        sender = Sender(transport, patience, options.pop("home", None))
        made = DurableBroker(sender, state=State(**state), **options)
        self._closers.append(made.close)
        return made

    def close(self) -> None:
        for closer in reversed(self._closers):
            closer()

    def dead_letters(self) -> list[DeadLetter]:
        raise AssertionError("each kind has its own")


class RedisKit(Kit):
    kind = "redis"
    visibility = 0.5
    longest_wait = 0.3

    @property
    def client(self) -> redis.Redis:
        client = redis.Redis.from_url(self.url, decode_responses=True)
        self._closers.append(client.close)
        return client

    def key(self, part: str) -> str:
        return f"{{{self.namespace}:q:{QUEUE}}}:{part}"

    def dead_letters(self) -> list[DeadLetter]:
        entries: t.Any = self.client.xrange(self.key("dlq"))
        return [
            DeadLetter(values["body"], values["reason"], int(values["receives"]))
            for _, values in entries
        ]


class SQSKit(Kit):
    kind = "sqs"
    visibility = 1.0
    longest_wait = 20.0

    @property
    def client(self) -> t.Any:
        endpoint = SQSAddress.parse(self.url).endpoint
        client = boto3.client("sqs", endpoint_url=endpoint)
        self._closers.append(client.close)
        return client

    def queue_url(self, name: str = QUEUE) -> str:
        full = f"{self.namespace}-{name}"
        return str(self.client.get_queue_url(QueueName=full)["QueueUrl"])

    def dead_letters(self) -> list[DeadLetter]:
        found = self.client.receive_message(
            QueueUrl=self.queue_url(f"{QUEUE}-dlq"),
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [_dead_letter(message) for message in found.get("Messages", ())]


def _dead_letter(message: dict[str, t.Any]) -> DeadLetter:
    attributes = message.get("MessageAttributes", {})
    if "reason" not in attributes:  # moved by SQS itself, with its own count
        receives = int(message["Attributes"]["ApproximateReceiveCount"]) - 1
        return DeadLetter(message["Body"], None, receives)
    return DeadLetter(
        message["Body"],
        attributes["reason"]["StringValue"],
        int(attributes["receives"]["StringValue"]),
    )


def make_transport(
    kind: str,
    url: str,
    namespace: str,
    visibility: float,
    max_receives: int = 10,
    **more: t.Any,
) -> Transport:
    options: dict[str, t.Any] = {
        **more,
        "namespace": namespace,
        "visibility": visibility,
        "max_receives": max_receives,
    }
    if kind == "redis":
        return RedisTransport(queue_client_factory(url), **options)
    return SQSTransport(SQSAddress.parse(url), **options)


def body(number: int) -> str:
    return RunMessage(run=f"run-{number}", function="app.fn", queued=number).encode()


def bodies(count: int) -> list[str]:
    return [body(number) for number in range(count)]


def text(received: Received) -> str:
    value = received.body
    return value.decode() if isinstance(value, bytes) else value


def collect(
    transport: Transport, count: int, *, timeout: float = 15.0
) -> list[Received]:
    """Receive until there are *count* messages."""
    found: list[Received] = []

    def enough() -> bool:
        found.extend(transport.receive(QUEUE, 10, 0.2))
        return len(found) >= count

    wait_until(enough, f"{count} messages", timeout)
    return found


def send(transport: Transport, texts: t.Sequence[str], delay: float = 0) -> None:
    assert transport.send(QUEUE, texts, delay) == [None] * len(texts)


@contextlib.contextmanager
def working(
    broker: DurableBroker, actor: t.Callable[[t.Any], None], *, threads: int = 8
) -> t.Iterator[dramatiq.Worker]:
    """Run a real Dramatiq worker on the queue of the tests."""
    dramatiq.actor(broker=broker, actor_name="execute", queue_name=QUEUE)(actor)
    worker = dramatiq.Worker(
        broker, queues={QUEUE}, worker_threads=threads, worker_timeout=50
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(timeout=10_000)


class Log:
    """Runs that were seen, in order, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.runs: list[str] = []

    def __call__(self, delivery: t.Any) -> None:
        with self._lock:
            self.runs.append(delivery.message.run)

    def __len__(self) -> int:
        return len(self.runs)
