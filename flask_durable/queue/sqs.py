"""Queues on Amazon SQS, by a boto3 client.

Sends, deletes and visibility changes travel in batches of ten. The visibility timeout
is asked for at each receive, so queues made by others keep their own. A message that
was received too often is moved by SQS itself, by the queue's redrive policy.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
import typing as t
import zlib

from ..errors import ConfigurationError
from .process import PerProcess
from .sqs_batch import BATCH
from .sqs_batch import Entry
from .sqs_batch import is_repeatable
from .sqs_batch import legal
from .sqs_batch import LIMITS
from .sqs_batch import MAX_BYTES
from .sqs_batch import outcome_of_receipt
from .sqs_batch import problem
from .sqs_batch import refusal
from .sqs_client import error_code
from .sqs_client import EXISTS
from .sqs_client import is_transient
from .sqs_client import LONGEST_POLL
from .sqs_client import make_client
from .sqs_client import MISSING
from .sqs_client import SQSAddress
from .sqs_dead_letters import SQSDeadLetters
from .transport import ANSWER_WITHIN
from .transport import bad_delay
from .transport import connection_closed
from .transport import MAX_DELAY
from .transport import MAX_RECEIVES
from .transport import Outcome
from .transport import QueueCounts
from .transport import Received

logger = logging.getLogger(__name__)

#: Characters of a queue's name, "-dlq" included.
MAX_NAME = 80

#: Seconds that messages and dead letters are kept.
RETENTION = 7 * 86400
DEAD_LETTERS_KEPT = 14 * 86400

#: Bytes that a dead letter's attributes have at most.
ATTRIBUTES_SIZE = 4096


class SQSTransport:
    """Queues on SQS.

    :param address: Where they are.
    :param namespace: Prefix of their names, unless *address* has one.
    :param visibility: Seconds that a received message is hidden, rounded up.
    :param max_receives: How often a message is received before SQS dead-letters it;
        written into queues that are made, never into those that exist.
    :param answer_within: Seconds that a send waits for a connection, and for an answer.
    """

    longest_wait = float(LONGEST_POLL)
    waiting_limit = BATCH
    send_limits = LIMITS

    def __init__(
        self,
        address: SQSAddress,
        *,
        namespace: str,
        visibility: float,
        max_receives: int = MAX_RECEIVES,
        answer_within: float = ANSWER_WITHIN,
    ) -> None:
        self._prefix = address.prefix or namespace
        self._visibility = max(1, math.ceil(visibility))
        self.max_receives = max_receives
        self.answer_within = answer_within
        self._client = PerProcess(lambda: make_client(address))
        # Nobody waits for a send as long as for a long poll, and what failed is sent
        # again by those who know for how long.
        self._sender = PerProcess(
            lambda: make_client(address, answer_within=answer_within)
        )
        self._urls: dict[str, str] = {}
        self.dead_letters = SQSDeadLetters(
            self._client.get, self._url, lambda queue: self._find(self._dead(queue))
        )

    def declare(self, queue: str) -> None:
        client, dead = self._client.get(), self._dead_url(queue)
        found = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
        policy = {
            "deadLetterTargetArn": found["Attributes"]["QueueArn"],
            "maxReceiveCount": self.max_receives,
        }
        attributes = {
            "MessageRetentionPeriod": str(RETENTION),
            "ReceiveMessageWaitTimeSeconds": str(LONGEST_POLL),
            "RedrivePolicy": json.dumps(policy),
            "VisibilityTimeout": str(self._visibility),
        }
        url = self._urls[queue] = self._make(self.name(queue), attributes)
        found = client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["RedrivePolicy"]
        )
        if "RedrivePolicy" not in found.get("Attributes", {}):
            logger.warning(
                "The queue %s exists without a redrive policy: a message that cannot "
                "be processed is received again until it expires",
                self.name(queue),
            )

    def name(self, queue: str, suffix: str = "") -> str:
        """Return the name in SQS of *queue*.

        Characters that SQS does not take become ``_``; a short digest then keeps names
        apart that would look the same.
        """
        whole = f"{self._prefix}-{queue}"
        name = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
        if name != whole or len(name) > MAX_NAME - len("-dlq"):
            name = f"{name[: MAX_NAME - 13]}-{zlib.crc32(whole.encode()):08x}"
        return name + suffix

    def send(
        self, queue: str, bodies: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        if error := bad_delay(delay):
            return [error] * len(bodies)
        outcomes: list[Outcome] = [problem(body) for body in bodies]
        good = [number for number, outcome in enumerate(outcomes) if outcome is None]
        for batch in LIMITS.divide(good, [len(body.encode()) for body in bodies]):
            more = {"DelaySeconds": math.ceil(delay)} if delay else {}
            entries: list[Entry] = [
                {"Id": str(number), "MessageBody": bodies[number], **more}
                for number in batch
            ]
            client, operation = self._sender, "send_message_batch"
            for id, refused in self._call_batch(client, queue, operation, entries):
                outcomes[int(id)] = refused
        return outcomes

    def is_transient(self, error: Exception) -> bool:
        # A queue that is missing is made by the next call.
        missing = error_code(error) in MISSING
        return missing or is_repeatable(error) or is_transient(error)

    def receive(self, queue: str, limit: int, wait: float) -> list[Received]:
        try:
            reply = self._client.get().receive_message(
                QueueUrl=self._url(queue),
                MaxNumberOfMessages=max(1, min(limit, BATCH)),
                WaitTimeSeconds=math.ceil(min(wait, self.longest_wait)),
                VisibilityTimeout=self._visibility,
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
                raise connection_closed(error) from error
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
        self._send_dead(
            queue, received.body, reason, received.receive_count, received.sent
        )
        # A death between the two leaves a second dead letter, never none.
        [error] = self.delete(queue, [received.receipt])
        if error is not None:
            raise error

    def send_dead(
        self, queue: str, body: str | bytes, reason: str, *, receives: int = 0
    ) -> None:
        self._send_dead(queue, body, reason, receives, round(time.time() * 1000))

    def _send_dead(
        self, queue: str, body: str | bytes, reason: str, receives: int, sent: int
    ) -> None:
        attributes = {
            "reason": legal(reason) or "unknown",
            "receives": str(receives),
            "sent": str(sent),
        }
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        entry: Entry = {"MessageBody": text}
        # Attributes count: next to the largest body there is no room for them.
        if len(text.encode()) < MAX_BYTES - ATTRIBUTES_SIZE:
            entry["MessageAttributes"] = {
                name: {"DataType": "String", "StringValue": value}
                for name, value in attributes.items()
            }
        self._client.get().send_message(QueueUrl=self._dead_url(queue), **entry)

    def counts(self, queue: str) -> QueueCounts:
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        client = self._client.get()
        found = client.get_queue_attributes(
            QueueUrl=self._url(queue), AttributeNames=names
        )["Attributes"]
        letters = client.get_queue_attributes(
            QueueUrl=self._dead_url(queue), AttributeNames=names[:1]
        )
        waiting, in_flight, delayed = (int(found[name]) for name in names)
        return QueueCounts(
            waiting, in_flight, delayed, dead=int(letters["Attributes"][names[0]])
        )

    def close(self) -> None:
        for holder in (self._client, self._sender):
            client = holder.pop()
            if client is not None:
                client.close()

    def _for_each(
        self, queue: str, operation: str, receipts: t.Sequence[str], **values: int
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(receipts), BATCH):
            entries: list[Entry] = [
                {"Id": str(number), "ReceiptHandle": receipt, **values}
                for number, receipt in enumerate(receipts[start : start + BATCH])
            ]
            failed = dict(self._call_batch(self._client, queue, operation, entries))
            outcomes += [
                outcome_of_receipt(failed.get(entry["Id"])) for entry in entries
            ]
        return outcomes

    def _call_batch(
        self,
        holder: PerProcess[t.Any],
        queue: str,
        operation: str,
        entries: list[Entry],
    ) -> list[tuple[str, Exception]]:
        """Return the errors by entry id; a batch call answers 200 with both in it."""
        try:
            client = holder.get()
            call = getattr(client, operation)
            reply = call(QueueUrl=self._url(queue, client), Entries=entries)
        except Exception as error:
            self._forget_missing(queue, error)
            return [(entry["Id"], error) for entry in entries]
        return [(failed["Id"], refusal(failed)) for failed in reply.get("Failed", ())]

    def _url(self, queue: str, client: t.Any = None) -> str:
        url = self._urls.get(queue) or self._find(self.name(queue), client)
        if url is None:
            self.declare(queue)
            return self._url(queue, client)
        self._urls[queue] = url
        return url

    def _dead_url(self, queue: str) -> str:
        attributes = {"MessageRetentionPeriod": str(DEAD_LETTERS_KEPT)}
        return self._make(self._dead(queue), attributes)

    def _dead(self, queue: str) -> str:
        return self.name(queue, "-dlq")

    def _find(self, name: str, client: t.Any = None) -> str | None:
        client = client or self._client.get()
        try:
            return str(client.get_queue_url(QueueName=name)["QueueUrl"])
        except Exception as error:
            if error_code(error) in MISSING:
                return None
            raise

    def _make(self, name: str, attributes: dict[str, str]) -> str:
        # Looked for first: a worker may lack the permission to make queues.
        if url := self._find(name):
            return url
        client = self._client.get()
        try:
            reply = client.create_queue(QueueName=name, Attributes=attributes)
        except Exception as error:
            if error_code(error) not in EXISTS:
                raise
            # Another process made it meanwhile, with other attributes.
            reply = client.get_queue_url(QueueName=name)
        return str(reply["QueueUrl"])

    def _forget_missing(self, queue: str, error: Exception) -> None:
        if error_code(error) in MISSING:
            self._urls.pop(queue, None)
