"""Queues on Amazon SQS, by a boto3 client.

Sends, deletes and visibility changes travel in batches of ten. Each receive asks for
its visibility timeout, so queues made by others keep their own. SQS itself moves a
message that was received too often, by the queue's redrive policy.
"""

from __future__ import annotations

import math
import typing as t
import uuid

from ...common.redelivery import MAX_DELAY
from ...common.times import now_milliseconds
from ...errors import ConfigurationError
from ...messages import MessageRefused
from ..marks import Home
from ..transport import bad_delay
from ..transport import MAX_RECEIVES
from ..transport import Outcome
from ..transport import QueueAway
from ..transport import QueueCounts
from ..transport import ReceiptLost
from ..transport import Received
from ..transport import SEND_ANSWER_SECONDS
from .batch import attributes_size
from .batch import Entry
from .batch import is_about_message
from .batch import is_repeatable
from .batch import legal
from .batch import LIMITS
from .batch import MAX_BYTES
from .batch import outcome_of_receipt
from .batch import problem
from .batch import refusals
from .batch import SQS_BATCH
from .batch import storable
from .client import error_code
from .client import is_transient
from .client import LONGEST_POLL
from .client import MISSING
from .client import SQSClient
from .dead_letters import SQSDeadLetters
from .groups import fifo_fields
from .groups import in_rounds
from .options import Queues
from .options import SQSAddress
from .owners import QueueOwners
from .queues import SQSQueues


class SQSTransport:
    """Queues on SQS.

    :param address: The place of the queues, and the options for making missing ones.
    :param namespace: The prefix of their names, unless *address* has one.
    :param options: The options in ``DURABLE_QUEUES``, by logical name.
    :param visibility: Seconds that a received message is hidden, rounded up, unless a
        queue has its own.
    :param max_receives: The number of receives after which SQS dead-letters a message;
        written into queues that are made, never into those that exist.
    :param answer_within: Seconds that a send waits for a connection, and for an answer.
    :param home: The installation that this process is of, which queues are tagged with.
    """

    longest_wait = float(LONGEST_POLL)
    waiting_limit = SQS_BATCH
    send_limits = LIMITS
    prefetch = 1.0

    def __init__(
        self,
        address: SQSAddress,
        *,
        namespace: str,
        visibility: float,
        options: Queues | None = None,
        max_receives: int = MAX_RECEIVES,
        answer_within: float = SEND_ANSWER_SECONDS,
        home: Home | None = None,
    ) -> None:
        self.answer_within = answer_within
        self._client = SQSClient(address)
        self._owners = QueueOwners(home)
        # For all calls but long polls and the making of queues: the callers repeat
        # failed calls, and know for how long.
        self._sender = SQSClient(address, answer_within=answer_within)
        self.queues = SQSQueues(
            self._client,
            address,
            namespace=namespace,
            options=options or {},
            visibility=visibility,
            max_receives=max_receives,
            owners=self._owners,
        )
        self._sending = self.queues.asking(self._sender)
        #: Receipts of messages in hand that are dead letters and not deleted yet.
        self._half_moved: set[str] = set()
        self.dead_letters = SQSDeadLetters(self.queues)

    def declare(self, queue: str) -> None:
        try:
            self.queues.declare(queue)
        except Exception as error:
            self._forget_missing(queue, error)
            raise

    def owner_problem(self, queue: str) -> str | None:
        url = self._sending.find(queue)
        return None if url is None else self._owners.problem(self._sender, url)

    def name(self, queue: str) -> str:
        return self.queues.name_of(queue)

    def visibility(self, queue: str) -> float:
        return float(self.queues.visibility(queue))

    def max_receives(self, queue: str) -> int:
        return self.queues.max_receives(queue)

    def is_ordered(self, queue: str) -> bool:
        return self.queues.is_fifo(queue)

    def send(
        self, queue: str, bodies: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        ordered = self.is_ordered(queue)
        if error := _bad_delay(queue, delay, ordered):
            return [error] * len(bodies)
        outcomes: list[Outcome] = [problem(body) for body in bodies]
        more = {"DelaySeconds": math.ceil(delay)} if delay else {}
        entries: dict[int, Entry] = {
            number: {
                "Id": str(number),
                "MessageBody": body,
                **(fifo_fields(body) if ordered else more),
            }
            for number, body in enumerate(bodies)
            if outcomes[number] is None
        }
        rounds = in_rounds(entries, outcomes) if ordered else [list(entries)]
        sizes = [len(body.encode()) for body in bodies]
        for numbers in rounds:
            for batch in LIMITS.divide(numbers, sizes):
                failed = self._send_batch(queue, [entries[number] for number in batch])
                for id, refused in failed.items():
                    outcomes[int(id)] = refused
        return outcomes

    def _send_batch(self, queue: str, entries: list[Entry]) -> dict[str, Exception]:
        """Send one batch; return the errors of entries not taken, by their ids.

        An entry that the queue never takes has the whole batch refused. So each entry
        is then sent alone.
        """
        failed = self._call_batch(self._sending, queue, "send_message_batch", entries)
        about = [id for id, error in failed.items() if is_about_message(error)]
        if len(about) == len(entries) > 1:
            alone = [self._send_batch(queue, [entry]) for entry in entries]
            return {id: error for one in alone for id, error in one.items()}
        return failed | {id: MessageRefused(str(failed[id])) for id in about}

    def problem(self, body: str) -> Exception | None:
        return problem(body)

    def is_transient(self, error: Exception) -> bool:
        # The next call makes a missing queue.
        missing = error_code(error) in MISSING
        return missing or is_repeatable(error) or is_transient(error)

    def receive(self, queue: str, limit: int, wait: float) -> list[Received]:
        try:
            reply = self._client.call(
                "receive_message",
                QueueUrl=self.queues.url(queue),
                # One by one from a FIFO queue: see sqs_groups.
                MaxNumberOfMessages=1 if self.is_ordered(queue) else _batch(limit),
                WaitTimeSeconds=math.ceil(min(wait, self.longest_wait)),
                VisibilityTimeout=self.queues.visibility(queue),
                MessageSystemAttributeNames=[
                    "ApproximateReceiveCount",
                    "SentTimestamp",
                ],
            )
        except ConfigurationError:
            raise
        except Exception as error:
            self._forget_missing(queue, error)
            if is_transient(error):
                raise QueueAway(str(error)) from error
            raise
        return [
            Received(
                body=message["Body"],
                receipt=message["ReceiptHandle"],
                receive_count=int(message["Attributes"]["ApproximateReceiveCount"]),
                sent=int(message["Attributes"]["SentTimestamp"]),
            )
            for message in reply.get("Messages", ())
        ]

    def delete(self, queue: str, receipts: t.Sequence[str]) -> list[Outcome]:
        return self._for_each(queue, "delete_message_batch", receipts)

    def extend(
        self, queue: str, receipts: t.Sequence[str], seconds: float
    ) -> list[Outcome]:
        return self._for_each(
            queue,
            "change_message_visibility_batch",
            receipts,
            VisibilityTimeout=math.ceil(seconds),
        )

    def release(
        self, queue: str, receipts: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        return self.extend(queue, receipts, min(delay, MAX_DELAY))

    def dead_letter(self, queue: str, received: Received, reason: str) -> None:
        # A death between the two leaves a second dead letter, never none. While this
        # process lives there is only one, however often the delete fails.
        if received.receipt not in self._half_moved:
            self._send_dead(
                queue, received.body, reason, received.receive_count, received.sent
            )
        self._half_moved.add(received.receipt)
        [error] = self.delete(queue, [received.receipt])
        if error is None or isinstance(error, ReceiptLost):
            self._half_moved.discard(received.receipt)
        if error is not None:
            raise error

    def send_dead(
        self, queue: str, body: str | bytes, reason: str, *, receives: int = 0
    ) -> None:
        self._send_dead(queue, body, reason, receives, now_milliseconds())

    def _send_dead(
        self, queue: str, body: str | bytes, reason: str, receives: int, sent: int
    ) -> None:
        attributes = {
            "reason": legal(reason) or "unknown",
            "receives": str(receives),
            "sent": str(sent),
        }
        # Attributes count: next to the largest body there is no room for them. A body
        # that is cut anyway is cut for them, too.
        room = MAX_BYTES - attributes_size(attributes)
        text = storable(body, room)
        entry: Entry = {"MessageBody": text}
        if len(text.encode()) <= room:
            entry["MessageAttributes"] = {
                name: {"DataType": "String", "StringValue": value}
                for name, value in attributes.items()
            }
        if self.is_ordered(queue):
            # Not under the event's id: a second letter is better than none.
            entry |= fifo_fields(text) | {"MessageDeduplicationId": uuid.uuid4().hex}
        try:
            url = self._sending.dead_url(queue)
            self._sender.call("send_message", QueueUrl=url, **entry)
        except Exception as error:
            self._forget_missing(queue, error)
            if is_about_message(error):
                raise MessageRefused(str(error)) from error
            raise

    def counts(self, queue: str) -> QueueCounts:
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        # The client with a short timeout: requests ask for this, too.
        waiting, in_flight, delayed = self._numbers(self._sending.url(queue), names)
        letters = self._sending.find_dead(queue)
        # Letters that are being looked at are in flight.
        dead = sum(self._numbers(letters, names)) if letters else 0
        return QueueCounts(waiting, in_flight, delayed, dead)

    def check(self, queue: str) -> QueueCounts:
        return self.counts(queue)

    def close(self) -> None:
        self._client.close()
        self._sender.close()

    def _numbers(self, url: str, names: list[str]) -> list[int]:
        reply = self._sender.call(
            "get_queue_attributes", QueueUrl=url, AttributeNames=names
        )
        return [int(reply["Attributes"][name]) for name in names]

    def _for_each(
        self, queue: str, operation: str, receipts: t.Sequence[str], **values: int
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(receipts), SQS_BATCH):
            entries: list[Entry] = [
                {"Id": str(number), "ReceiptHandle": receipt, **values}
                for number, receipt in enumerate(receipts[start : start + SQS_BATCH])
            ]
            # The client with a short timeout: callers repeat failed calls, and a call
            # that hangs would delay the next one.
            failed = self._call_batch(self._sending, queue, operation, entries)
            outcomes += [
                outcome_of_receipt(failed.get(entry["Id"])) for entry in entries
            ]
        return outcomes

    def _call_batch(
        self,
        queues: SQSQueues,
        queue: str,
        operation: str,
        entries: list[Entry],
    ) -> dict[str, Exception]:
        """Return the errors by entry id; a batch call answers 200 with both in it."""
        try:
            url = queues.url(queue)
            reply = queues.client.call(operation, QueueUrl=url, Entries=entries)
        except Exception as error:
            self._forget_missing(queue, error)
            return {entry["Id"]: error for entry in entries}
        return refusals(entries, reply)

    def _forget_missing(self, queue: str, error: Exception) -> None:
        if error_code(error) in MISSING:
            self.queues.forget(queue)


def _bad_delay(queue: str, delay: float, ordered: bool) -> ValueError | None:
    if delay and ordered:
        return ValueError(f"the queue {queue!r} is FIFO and delays no single message")
    return bad_delay(delay)


def _batch(limit: int) -> int:
    return max(1, min(limit, SQS_BATCH))
