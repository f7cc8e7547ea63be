"""Queues on Redis Streams: one consumer group a queue, and a sorted set for delays.

Written for the commands of Redis 7.0. A pending entry is a message in flight, its idle
time the visibility, its delivery count the receive count. Work streams are never
trimmed: that would remove messages that were never received.
"""

from __future__ import annotations

import functools
import math
import time
import typing as t
import uuid
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from ...common.ids import new_process_name
from ...common.processes import PerProcess
from ...common.redelivery import MAX_DELAY
from ...common.safe_logging import get_logger
from ...common.times import to_milliseconds
from ...messages import EVENT_QUEUE
from ...redis.client import ClientFactory
from ...redis.errors import is_full
from ...redis.errors import is_transient
from ...redis.exchange import RoundTrip
from ...redis.scripts import all_scripts
from ..transport import bad_delay
from ..transport import MAX_RECEIVES
from ..transport import Outcome
from ..transport import QueueAway
from ..transport import QueueCounts
from ..transport import ReceiptLost
from ..transport import Received
from ..transport import SEND_ANSWER_SECONDS
from ..transport import SendLimits
from .dead_letters import RedisDeadLetters
from .keys import queue_tag

logger = get_logger(__name__)

GROUP = "workers"

#: Seconds that a command may take, and that a blocking read may last past its block.
SOCKET_TIMEOUT_SECONDS = 5.0

#: The number of entries in one script call.
SCRIPT_BATCH = 100

#: Milliseconds that dead letters are kept: the longest time of SQS.
DEAD_LETTERS_KEPT_MS = 14 * 86400 * 1000

#: Milliseconds after which a consumer that no longer reads is removed.
CONSUMER_IDLE_MS = 3600 * 1000


@dataclass
class _Mending:
    """The time and place of a queue's next look for due and expired messages."""

    at: float = 0.0
    cursor: str = "0-0"
    next_due: float = math.inf


@dataclass
class _Process:
    """The clients that belong to one process.

    :param client: The client for commands, which may be repeated.
    :param sender: The client for sends. Its callers repeat them, and know for how long.
    :param reader: The client for reads. They are never repeated: messages of a lost
        reply would stay pending with no consumer to handle them.
    """

    client: redis.Redis
    sender: redis.Redis
    reader: redis.Redis
    consumer: str
    scripts: dict[str, Script] = field(default_factory=dict)
    mendings: dict[str, _Mending] = field(default_factory=dict)
    #: Each thread keeps a connection: a read blocks the one that it is on.
    exchange: RoundTrip = field(default_factory=RoundTrip)
    reading: RoundTrip = field(default_factory=RoundTrip)


class RedisTransport:
    """Queues on a Redis-protocol server.

    :param connect: Makes a client; called with ``decode_responses``,
        ``socket_timeout``, ``socket_connect_timeout`` and ``retry``.
    :param namespace: Prefix of every key.
    :param visibility: Seconds that a received message is hidden.
    :param max_receives: The number of receives after which a message is dead-lettered.
    :param answer_within: Seconds that a send waits for a connection, and for an answer.
    """

    #: A server must be asked now and then for delayed messages that are due and for
    #: messages whose visibility ran out: neither wakes a blocked reader.
    longest_wait = 2.0
    waiting_limit = 1
    #: A round trip costs less here than the threads' waiting for one another.
    send_limits = SendLimits(SCRIPT_BATCH, 16 * 2**20, coalesced=False)
    prefetch = 0.0

    def __init__(
        self,
        connect: ClientFactory,
        *,
        namespace: str,
        visibility: float,
        max_receives: int = MAX_RECEIVES,
        answer_within: float = SEND_ANSWER_SECONDS,
    ) -> None:
        self._connect = connect
        self._namespace = namespace
        self._visibility = visibility
        self._max_receives = max_receives
        self.answer_within = answer_within
        #: Read before they are needed, see ``redis/scripts.py``.
        self._scripts = all_scripts(__package__)
        self._process = PerProcess(self._start)
        self.dead_letters = RedisDeadLetters(self)

    def declare(self, queue: str) -> None:
        self._make_group_beyond(queue)
        self.run("q_retire", [self._stream(queue)], ["", CONSUMER_IDLE_MS])

    def name(self, queue: str) -> str:
        return queue

    def visibility(self, queue: str) -> float:
        return self._visibility

    def max_receives(self, queue: str) -> int:
        return self._max_receives

    def is_ordered(self, queue: str) -> bool:
        return False

    def send(
        self, queue: str, bodies: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        if refused := bad_delay(delay):
            return [refused] * len(bodies)
        try:
            if delay:
                return self._send_delayed(queue, bodies, delay)
            process, stream = self._process.get(), self._stream(queue)
            replies = process.exchange.once(
                process.sender, [("XADD", stream, "*", "body", body) for body in bodies]
            )
            if queue != EVENT_QUEUE and any(map(is_full, replies)):
                replies = self._send_beyond(stream, bodies, replies)
        except redis.RedisError as error:
            return [error] * len(bodies)
        return [reply if isinstance(reply, Exception) else None for reply in replies]

    def _send_beyond(
        self, stream: str, bodies: t.Sequence[str], replies: t.Sequence[t.Any]
    ) -> list[t.Any]:
        """Send run messages that were refused for want of memory.

        A run that was accepted can be finished while nothing new is accepted.
        """
        refused = [n for n, reply in enumerate(replies) if is_full(reply)]
        sender = self._process.get().sender
        self.run("q_send", [stream], [bodies[n] for n in refused], sender)
        return [None if n in refused else reply for n, reply in enumerate(replies)]

    def problem(self, body: str) -> Exception | None:
        return None

    def owner_problem(self, queue: str) -> str | None:
        return None  # messages are marked, or the namespace tells

    def is_transient(self, error: Exception) -> bool:
        return is_transient(error)

    def receive(self, queue: str, limit: int, wait: float) -> list[Received]:
        try:
            try:
                received = self._receive(queue, limit, wait)
            except redis.ResponseError as error:
                # The server was flushed, or lost the queue: even under a blocked read.
                if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                self._make_group_beyond(queue)
                received = self._receive(queue, limit, 0)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise QueueAway(str(error)) from error
        return [item for item in received if not self._used_up(queue, item)]

    def delete(self, queue: str, receipts: t.Sequence[str]) -> list[Outcome]:
        return self._for_each("q_ack", [self._stream(queue)], [], receipts)

    def extend(
        self, queue: str, receipts: t.Sequence[str], seconds: float
    ) -> list[Outcome]:
        idle = max(0, to_milliseconds(self._visibility - seconds))
        return self._for_each("q_extend", [self._stream(queue)], [idle], receipts)

    def release(
        self, queue: str, receipts: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        keys = [self._stream(queue), self._delayed(queue)]
        milliseconds = to_milliseconds(min(delay, MAX_DELAY))
        return self._for_each("q_release", keys, [milliseconds], receipts)

    def dead_letter(self, queue: str, received: Received, reason: str) -> None:
        [error] = self._for_each(
            "q_dead",
            [self._stream(queue), self._dead(queue)],
            [reason, DEAD_LETTERS_KEPT_MS, received.receive_count],
            [received.receipt],
        )
        if error is not None:
            raise error

    def send_dead(
        self, queue: str, body: str | bytes, reason: str, *, receives: int = 0
    ) -> None:
        token = uuid.uuid4().hex
        self.run(
            "q_send_dead",
            [self._dead(queue)],
            [token, DEAD_LETTERS_KEPT_MS, reason, receives, body],
        )

    def counts(self, queue: str) -> QueueCounts:
        pipeline = self._process.get().client.pipeline(transaction=False)
        pipeline.xlen(self._stream(queue))
        pipeline.xpending(self._stream(queue), GROUP)
        pipeline.zcard(self._delayed(queue))
        pipeline.xlen(self._dead(queue))
        held, pending, delayed, dead = pipeline.execute(raise_on_error=False)
        for reply in (held, delayed, dead):
            if isinstance(reply, Exception):
                raise reply
        # Without a group no message was received yet.
        in_flight = 0 if isinstance(pending, Exception) else pending["pending"]
        return QueueCounts(max(0, held - in_flight), in_flight, delayed, dead)

    def check(self, queue: str) -> QueueCounts:
        self._make_group(queue)  # the one write that may be repeated at will
        return self.counts(queue)

    def close(self) -> None:
        process = self._process.pop()
        if process is None:
            return
        try:
            for queue in process.mendings:
                script = self._script(process, "q_retire")
                script([self._stream(queue)], [process.consumer, CONSUMER_IDLE_MS])
        except redis.RedisError:
            logger.debug(
                "The consumer %s was not removed",
                process.consumer,
                extra={"action": "consumer_kept"},
            )
        finally:
            process.client.close()
            process.sender.close()
            process.reader.close()

    def _receive(self, queue: str, limit: int, wait: float) -> list[Received]:
        process = self._process.get()
        mending = process.mendings.setdefault(queue, _Mending())
        if time.monotonic() >= min(mending.at, mending.next_due):
            if received := self._mend(process, mending, queue, limit):
                return received
            mending.at = time.monotonic() + min(1.0, self._visibility / 4)
        wait = min(wait, self.longest_wait, self._visibility)
        if wait > 0:
            wait = min(wait, max(0.001, mending.next_due - time.monotonic()))
        return self._read(process, queue, limit, wait)

    def _mend(
        self, process: _Process, mending: _Mending, queue: str, limit: int
    ) -> list[Received]:
        stream = self._stream(queue)
        promote = self._script(process, "q_promote", process.reader)
        due = int(promote([stream, self._delayed(queue)], [SCRIPT_BATCH]))
        mending.next_due = math.inf if due < 0 else time.monotonic() + due / 1000
        reclaim = self._script(process, "q_reclaim", process.reader)
        visibility = round(self._visibility * 1000)
        cursor, *taken = reclaim(
            [stream],
            [process.consumer, visibility, mending.cursor, min(limit, SCRIPT_BATCH)],
        )
        mending.cursor = cursor.decode()
        return [
            Received(
                body=body,
                receipt=f"{id.decode()} {count} {process.consumer}",
                receive_count=earlier + count,
                sent=sent,
            )
            for id, count, body, earlier, sent in taken
        ]

    def _read(
        self, process: _Process, queue: str, limit: int, wait: float
    ) -> list[Received]:
        block = max(1, round(wait * 1000)) if wait > 0 else None
        command: list[str | int | bytes]
        command = ["XREADGROUP", "GROUP", GROUP, process.consumer, "COUNT", limit]
        command += [] if block is None else ["BLOCK", block]
        command += [b"STREAMS", self._stream(queue), ">"]  # so a cluster finds the key
        [reply] = process.reading.once(process.reader, [command])
        if isinstance(reply, Exception):
            raise reply
        return [
            Received(
                body=values.get(b"body", b""),
                receipt=f"{id.decode()} 1 {process.consumer}",
                receive_count=int(values.get(b"receives", 0)) + 1,
                sent=int(values.get(b"sent") or id.partition(b"-")[0]),
            )
            for id, values in _entries(reply)
        ]

    def _used_up(self, queue: str, received: Received) -> bool:
        if received.receive_count <= self._max_receives:
            return False
        reason = f"received {self._max_receives} times without being deleted"
        # This receive delivered it to no one.
        letter = replace(received, receive_count=self._max_receives)
        try:
            self.dead_letter(queue, letter, reason)
        except (redis.RedisError, ReceiptLost) as error:
            # It stays pending; the next receive tries again.
            logger.warning(
                "A message of %s was not dead-lettered: %s",
                queue,
                error,
                extra={"action": "message_not_settled"},
            )
        return True

    def _send_delayed(
        self, queue: str, bodies: t.Sequence[str], delay: float
    ) -> list[Outcome]:
        for start in range(0, len(bodies), SCRIPT_BATCH):
            arguments: list[str | int] = [to_milliseconds(delay)]
            for body in bodies[start : start + SCRIPT_BATCH]:
                arguments += [uuid.uuid4().hex, body]
            self.run(
                "q_delay", [self._delayed(queue)], arguments, self._process.get().sender
            )
        return [None] * len(bodies)

    def _for_each(
        self,
        script: str,
        keys: list[str],
        arguments: t.Sequence[str | int],
        receipts: t.Sequence[str],
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(receipts), SCRIPT_BATCH):
            batch = receipts[start : start + SCRIPT_BATCH]
            parts = [part for receipt in batch for part in receipt.split(" ")]
            try:
                replies = self.run(script, keys, [*arguments, *parts])
            except redis.RedisError as error:
                outcomes += [error] * len(batch)
            else:
                outcomes += [None if reply else ReceiptLost() for reply in replies]
        return outcomes

    def run(
        self,
        name: str,
        keys: list[str],
        arguments: t.Sequence[str | bytes | int],
        client: redis.Redis | None = None,
    ) -> t.Any:
        """Run one of the queues' scripts, by *client* if not by that for commands."""
        return self._script(self._process.get(), name, client)(keys, arguments)

    @property
    def client(self) -> redis.Redis:
        """This process's client for commands, whose replies are bytes."""
        return self._process.get().client

    def keys(self, queue: str) -> tuple[str, str]:
        """Return the keys of the stream of *queue* and of that of its dead letters."""
        return self._stream(queue), self._dead(queue)

    def _script(
        self, process: _Process, name: str, client: redis.Redis | None = None
    ) -> t.Callable[..., t.Any]:
        script = process.scripts.get(name)
        if script is None:
            script = process.client.register_script(self._scripts[name].source)
            process.scripts[name] = script
        return functools.partial(script, client=client)

    def _make_group(self, queue: str) -> None:
        # From the first entry on, not from now on: otherwise messages sent before the
        # first worker came would be skipped.
        try:
            self._process.get().client.xgroup_create(
                self._stream(queue), GROUP, id="0", mkstream=True
            )
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _make_group_beyond(self, queue: str) -> None:
        try:
            self._make_group(queue)
        except redis.ResponseError as error:
            if not is_full(error):
                raise
            # Accepted messages are received although nothing new is accepted.
            self.run("q_group", [self._stream(queue)], [])

    def _start(self) -> _Process:
        options = {
            "decode_responses": False,
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
        }
        client = self._connect(
            **options, retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.01), 3)
        )
        seconds = self.answer_within
        once = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        sender = self._connect(**{**options, **once}, retry=Retry(NoBackoff(), 0))
        options["socket_timeout"] = self.longest_wait + SOCKET_TIMEOUT_SECONDS
        reader = self._connect(**options, retry=Retry(NoBackoff(), 0))
        # A new name for each start: a former process's messages are not this one's.
        consumer = new_process_name()
        return _Process(client, sender, reader, consumer.replace(" ", "-"))

    def _stream(self, queue: str) -> str:
        return f"{queue_tag(self._namespace, queue)}:stream"

    def _delayed(self, queue: str) -> str:
        return f"{queue_tag(self._namespace, queue)}:delayed"

    def _dead(self, queue: str) -> str:
        return f"{queue_tag(self._namespace, queue)}:dlq"


def _entries(reply: t.Any) -> t.Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Yield id and fields of each entry that was read from one stream.

    :param reply: The server's reply, in RESP2 or RESP3, or that of a cluster's client.
    """
    if not reply:
        return
    [(_, entries)] = reply.items() if isinstance(reply, dict) else reply
    for id, fields in entries:
        if not isinstance(fields, dict):
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        yield id, fields
