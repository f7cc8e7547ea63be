"""Every operation that a process sends to the servers, and a fault at one of them.

Operations are intercepted where redis-py and boto3 send them: below the code that
repeats a Redis command, above the one that repeats a call of SQS. Those of a directory
of blobs are whole: an object is there or is not. Of a database the commits count: what
comes before them is undone by a death.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib
import sqlite3
import threading
import typing as t
from unittest import mock

import redis
from sqlalchemy.engine.default import DefaultDialect

from flask_durable.errors import PayloadUnavailable
from flask_durable.payloads.files import FileStore
from flask_durable.queue import acknowledger
from flask_durable.queue.acknowledger import Acknowledger
from flask_durable.queue.heartbeat import _QueueInFlight
from flask_durable.queue.settling import SETTLER_IDLE_SECONDS
from flask_durable.redis import scripts
from flask_durable.redis.exchange import RoundTrip

T = t.TypeVar("T")


class SimulatedDeath(BaseException):
    """The process died. None of its later operations is carried out."""


class Fault(enum.Enum):
    """The fault at one operation."""

    #: The process dies before it is carried out, or after.
    DEATH_BEFORE = "death before"
    DEATH_AFTER = "death after"
    #: It is carried out, the reply is lost, and the client library repeats it.
    LOST_REPLY = "lost reply"
    #: The same, and the library's repetitions fail as well: our own have to do.
    OUTAGE = "outage"

    @property
    def kills(self) -> bool:
        return self in (Fault.DEATH_BEFORE, Fault.DEATH_AFTER)


Place = tuple[str, int]


class Operations:
    """The operations that one life of the workload sends, in order.

    Only one thread of the process acts at a time, so that the same life has the same
    operations: those of the main thread count while it is :meth:`driving`, and its
    other threads wait for their :meth:`turn <others>`.

    :param fault: The fault that happens; ``None`` for none.
    :param at: The operation that it happens at: the n-th of a kind, counted from 1. A
        busy machine may look after its queues more often, but that changes no state.
    """

    def __init__(self, fault: Fault | None = None, at: Place = ("", 0)) -> None:
        self.fault = fault
        self.at = at
        #: The operations that were sent, such as ``"redis step_commit"``.
        self.kinds: list[str] = []
        #: True if the process that acts now is dead.
        self.dead = False
        #: Client, queue's address and receipt of each message that SQS gave us.
        self.receipts: list[tuple[t.Any, str, str]] = []
        #: Called in the main thread before each of its operations.
        self.before_each: t.Callable[[], None] | None = None
        self._failing: dict[str, int] = {}
        self._driving = False
        self._others = threading.Event()
        self._burial = threading.Event()

    @contextlib.contextmanager
    def driving(self, driving: bool = True) -> t.Iterator[None]:
        """Count what the main thread sends inside, or let it pass uncounted."""
        before, self._driving = self._driving, driving
        try:
            yield
        finally:
            self._driving = before

    @contextlib.contextmanager
    def others(self) -> t.Iterator[None]:
        """Let the other threads of the process act, while the main thread waits."""
        self._others.set()
        try:
            yield
        finally:
            self._others.clear()

    @property
    def others_act(self) -> bool:
        """True if the other threads act now, or see that their process is dead."""
        return self.dead or self._others.is_set()

    def perform(
        self,
        system: str,
        kind: str,
        carry_out: t.Callable[[], T],
        lost: t.Callable[[], Exception],
    ) -> T:
        """Carry out one operation, or do what the fault says.

        :param lost: Makes the error of an operation that was not answered.
        """
        if threading.current_thread() is not threading.main_thread():
            while not self.dead and not self._others.wait(0.01):
                pass
        elif not self._driving:
            return carry_out()
        elif self.before_each is not None:
            self.before_each()
        if self.dead:
            self._die(lost)
        kind = f"{system} {kind}"
        self.kinds.append(kind)
        if self._failing.get(system):
            self._failing[system] -= 1
            raise lost()
        if self.at != (kind, self.kinds.count(kind)):
            return carry_out()
        if self.fault is Fault.DEATH_BEFORE:
            self._die(lost)
        carry_out()
        if self.fault is Fault.DEATH_AFTER:
            self._die(lost)
        if self.fault is Fault.OUTAGE:
            self._failing[system] = 5 if system == "redis" else 1
        elif system == "sqs":
            return carry_out()  # botocore repeats it, out of sight
        raise lost()

    @property
    def came_to_it(self) -> bool:
        """True if there was an operation for the fault."""
        return self.kinds.count(self.at[0]) >= self.at[1]

    @property
    def places(self) -> list[Place]:
        """Every operation, by its kind and number."""
        return [
            (kind, self.kinds[: number + 1].count(kind))
            for number, kind in enumerate(self.kinds)
        ]

    def _die(self, lost: t.Callable[[], Exception]) -> t.NoReturn:
        self.dead = True
        if threading.current_thread() is threading.main_thread():
            raise SimulatedDeath
        # Another thread stands still until its process is taken away.
        self._burial.wait()
        raise lost()

    @contextlib.contextmanager
    def burial(self) -> t.Iterator[None]:
        """Let threads of the dead process end; their operations are not carried out."""
        self.dead = True
        self._burial.set()
        try:
            yield
        finally:
            self._burial.clear()
            self.dead = False


@contextlib.contextmanager
def intercepted(operations: Operations) -> t.Iterator[None]:
    """Send everything that goes to a server through *operations*."""
    with contextlib.ExitStack() as stack:
        # Heartbeats come by the clock: two lives would not have the same.
        stack.enter_context(mock.patch.object(_QueueInFlight, "extend"))
        stack.enter_context(
            mock.patch.object(acknowledger, "SHARED_CALL_WAIT_SECONDS", 0)
        )
        for target, name, wrapper in (
            (redis.Redis, "_send_command_parse_response", _command),
            (RoundTrip, "_directly", _exchange),
            (redis.client.Pipeline, "_execute_pipeline", _pipeline),
            (redis.client.Pipeline, "_execute_transaction", _pipeline),
            (_botocore("client").BaseClient, "_make_api_call", _api_call),
            (FileStore, "put", _put),
            (DefaultDialect, "do_commit", _commit),
            (Acknowledger, "_busy_for", _busy_for),
        ):
            original = getattr(target, name)
            method = functools.wraps(original)(wrapper(operations, original))
            stack.enter_context(mock.patch.object(target, name, method))
        yield


def _command(operations: Operations, original: t.Any) -> t.Any:
    def send(
        self: t.Any, conn: t.Any, name: str, *args: t.Any, **options: t.Any
    ) -> t.Any:
        return operations.perform(
            "redis",
            _kind(args),
            lambda: original(self, conn, name, *args, **options),
            _redis_lost,
        )

    return send


def _exchange(operations: Operations, original: t.Any) -> t.Any:
    def exchange(self: t.Any, connection: t.Any, commands: t.Any) -> t.Any:
        return operations.perform(
            "redis",
            "+".join(dict.fromkeys(_kind(command) for command in commands)),
            lambda: original(self, connection, commands),
            _redis_lost,
        )

    return exchange


def _pipeline(operations: Operations, original: t.Any) -> t.Any:
    def execute(self: t.Any, conn: t.Any, commands: t.Any, *rest: t.Any) -> t.Any:
        return operations.perform(
            "redis",
            "+".join(dict.fromkeys(_kind(args) for args, _ in commands)),
            lambda: original(self, conn, commands, *rest),
            _redis_lost,
        )

    return execute


def _api_call(operations: Operations, original: t.Any) -> t.Any:
    def call(self: t.Any, name: str, parameters: dict[str, t.Any]) -> t.Any:
        address = str(parameters.get("QueueUrl", ""))
        queue = address.rpartition("-")[2]

        def carry_out() -> t.Any:
            reply = original(self, name, parameters)
            for message in reply.get("Messages", ()):
                receipt = self, address, message["ReceiptHandle"]
                operations.receipts.append(receipt)
            return reply

        return operations.perform(
            "sqs",
            f"{name} {queue}".strip(),
            carry_out,
            lambda: _botocore("exceptions").ReadTimeoutError(endpoint_url="a test"),
        )

    return call


def _put(operations: Operations, original: t.Any) -> t.Any:
    def put(self: FileStore, key: str, content: bytes) -> None:
        operations.perform(
            "blobs",
            f"put {key.partition('/')[0]}",
            lambda: original(self, key, content),
            lambda: PayloadUnavailable("the answer was lost by a test"),
        )

    return put


def _commit(operations: Operations, original: t.Any) -> t.Any:
    def do_commit(self: t.Any, connection: t.Any) -> None:
        operations.perform(
            "sql",
            "commit",
            lambda: original(self, connection),
            lambda: sqlite3.OperationalError("the answer was lost by a test"),
        )

    return do_commit


def _busy_for(operations: Operations, original: t.Any) -> t.Any:
    # Otherwise it is chance how many messages are settled at once.
    def busy_for(self: t.Any, queue: str) -> float:
        return original(self, queue) if operations.others_act else SETTLER_IDLE_SECONDS

    return busy_for


def _botocore(module: str) -> t.Any:
    return importlib.import_module(f"botocore.{module}")


def _redis_lost() -> Exception:
    return redis.ConnectionError("the reply was lost by a test")


def _kind(command: t.Sequence[t.Any]) -> str:
    name = str(command[0])
    if name in ("EVALSHA", "EVAL"):
        return _names().get(str(command[1]), name)
    return name


@functools.cache
def _names() -> dict[str, str]:
    """Return the names of our scripts by digest and by text."""
    names = {}
    for package in ("flask_durable.store", "flask_durable.queue.redis_streams"):
        for name, script in scripts.all_scripts(package).items():
            names[script.source] = name
            names[script.digest] = name
    return names
