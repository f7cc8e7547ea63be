"""Dead letters of queues on Amazon SQS, without ``StartMessageMoveTask``.

The only way to read a message on SQS is to receive it, which hides it. So a cursor
holds the letters that it received and extends their hiding while it goes on. At its end
it hands back those that were neither moved nor deleted. If its process dies, they come
back by themselves. A letter is moved by being sent to its queue and then deleted: a
death between the two leaves both, which is harmless.
"""

from __future__ import annotations

import json
import math
import time
import typing as t
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from ...common.safe_logging import get_logger
from ..transport import Outcome
from ..transport import reaching
from ..transport import StoredLetter
from .batch import Entry
from .batch import LIMITS
from .batch import MAX_BYTES
from .batch import refusals
from .batch import SQS_BATCH
from .client import DENIED
from .client import error_code
from .queues import SQSQueues

#: The most letters that one cursor holds; it ends there.
MAX_HELD = 10_000

#: The number of receives in a row without a new letter, after which a cursor ends.
EMPTY_RECEIVES = 20

#: Bytes of a letter from which on there may have been no room for a reason beside it.
LARGEST_WITH_REASON = MAX_BYTES - 4096

#: Codes of SQS for "not within 60 seconds of the last one".
NOT_NOW = {"AWS.SimpleQueueService.PurgeQueueInProgress", "PurgeQueueInProgress"}

HINT = "What an operator needs is in the documentation, under permissions on SQS."

_COUNTS = [
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
]

logger = get_logger(__name__)


class SQSDeadLetters:
    """The dead letters of all queues of one transport.

    :param queues: The queues, and the client that calls them.
    """

    def __init__(self, queues: SQSQueues) -> None:
        self._queues = queues

    def count(self, queue: str) -> int:
        with reaching(queue, Exception, HINT):
            url = self._queues.find_dead(queue)
            if url is None:
                return 0
            found = self._queues.client.get().get_queue_attributes(
                QueueUrl=url, AttributeNames=_COUNTS
            )
            return sum(int(found["Attributes"][name]) for name in _COUNTS)

    def open_cursor(self, queue: str, hold: float) -> SQSDeadLetterCursor:
        with reaching(queue, Exception, HINT):
            return SQSDeadLetterCursor(self._queues, queue, hold)

    def purge(self, queue: str) -> bool:
        with reaching(queue, Exception, HINT):
            url = self._queues.find_dead(queue)
            if url is None:
                return False
            try:
                self._queues.client.get().purge_queue(QueueUrl=url)
            except Exception as error:
                if error_code(error) in NOT_NOW | DENIED:
                    return False
                raise
            return True


@dataclass
class _Hold:
    """A letter in hand: its receipt, and its group in a FIFO queue."""

    receipt: str
    group: str | None


class SQSDeadLetterCursor:
    """One pass through the letters of one queue, in the order of SQS."""

    def __init__(self, queues: SQSQueues, queue: str, hold: float) -> None:
        self.complete = False
        self._client = queues.client.get()
        self._queues = queues
        self._queue = queue
        self._dead_url = queues.find_dead(queue)
        self._hold = max(1, math.ceil(hold))
        self._held: dict[str, _Hold] = {}
        self._renewed = time.monotonic()
        if self._dead_url is not None:
            self._max_receives, self._begun = self._ask()

    def next(self, limit: int) -> list[StoredLetter]:
        if self._dead_url is None:
            self.complete = True
            return []
        with reaching(self._queue, Exception, HINT):
            for _ in range(EMPTY_RECEIVES):
                if len(self._held) >= MAX_HELD:
                    return []
                self._hide_for_longer()
                messages = self._receive(limit)
                if not messages:
                    self.complete = not self._holds_up()
                    return []
                if letters := self._take(messages):
                    return letters
        return []

    def move_back(self, letters: t.Sequence[StoredLetter]) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(letters)
        sizes = [len(str(letter.body).encode()) for letter in letters]
        for batch in LIMITS.divide(range(len(letters)), sizes):
            for number, error in self._move(letters, batch).items():
                outcomes[number] = error
        return outcomes

    def delete(self, letters: t.Sequence[StoredLetter]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(letters), SQS_BATCH):
            batch = letters[start : start + SQS_BATCH]
            failed = self._delete([letter.id for letter in batch])
            outcomes += [failed.get(letter.id) for letter in batch]
        return outcomes

    def close(self) -> None:
        """Hand back the letters in hand; one that fails comes back by itself."""
        self._change_visibility(0)
        self._held.clear()

    def _ask(self) -> tuple[int | None, float]:
        """Return the number of receives that SQS allows a message, and SQS's time."""
        found = self._client.get_queue_attributes(
            QueueUrl=self._queues.url(self._queue), AttributeNames=["RedrivePolicy"]
        )
        policy = json.loads(found.get("Attributes", {}).get("RedrivePolicy", "{}"))
        # The clock that stamps the letters, to the end of its second.
        date = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date).timestamp() + 1 if date else time.time()
        allowed = policy.get("maxReceiveCount")  # a number, or a text with one
        return int(allowed) if allowed else None, now * 1000

    def _receive(self, limit: int) -> list[dict[str, t.Any]]:
        reply = self._client.receive_message(
            QueueUrl=self._dead_url,
            MaxNumberOfMessages=max(1, min(limit, SQS_BATCH)),
            # A wait asks all of SQS's servers; without it a few are asked.
            WaitTimeSeconds=1,
            VisibilityTimeout=self._hold,
            MessageAttributeNames=["reason", "receives", "sent"],
            MessageSystemAttributeNames=["All"],
        )
        return list(reply.get("Messages", ()))

    def _holds_up(self) -> bool:
        """Return whether letters may wait behind those in hand.

        A FIFO queue gives nothing more of a group until the letters received of it are
        deleted or handed back: one cursor sees ten letters of each group.
        """
        if not self._held or not str(self._dead_url).endswith(".fifo"):
            return False
        found = self._client.get_queue_attributes(
            QueueUrl=self._dead_url, AttributeNames=_COUNTS[:1]
        )
        return int(found["Attributes"][_COUNTS[0]]) > 0

    def _take(self, messages: list[dict[str, t.Any]]) -> list[StoredLetter]:
        letters = []
        for message in messages:
            id = message["MessageId"]
            known = id in self._held
            self._held[id] = _Hold(
                message["ReceiptHandle"], message["Attributes"].get("MessageGroupId")
            )
            letter = _letter(message, self._max_receives)
            if not known and (letter.dead or letter.sent) < self._begun:
                letters.append(letter)
        return letters

    def _move(
        self, letters: t.Sequence[StoredLetter], batch: list[int]
    ) -> dict[int, Exception]:
        entries: list[Entry] = [
            {
                "Id": str(number),
                "MessageBody": letters[number].body,
                **self._fifo(letters[number].id),
            }
            for number in batch
        ]
        refused = self._call(
            "send_message_batch", self._queues.url(self._queue), entries
        )
        failed = {int(id): error for id, error in refused.items()}
        sent = [number for number in batch if number not in failed]
        kept = self._delete([letters[number].id for number in sent])
        for number in sent:
            if error := kept.get(letters[number].id):
                # It is in both places now. Moved again, it is dropped as a duplicate.
                failed[number] = error
        return failed

    def _fifo(self, id: str) -> Entry:
        group = self._held[id].group
        if group is None or not str(self._dead_url).endswith(".fifo"):
            return {}
        # Under the event's id SQS would drop it as a duplicate within five minutes, and
        # report it as taken. Under the letter's id only a repeated move is a duplicate.
        return {"MessageGroupId": group, "MessageDeduplicationId": id}

    def _delete(self, ids: list[str]) -> dict[str, Exception]:
        entries: list[Entry] = [
            {"Id": str(number), "ReceiptHandle": self._held[id].receipt}
            for number, id in enumerate(ids)
        ]
        if not entries:
            return {}
        failed = self._call("delete_message_batch", str(self._dead_url), entries)
        for number, id in enumerate(ids):
            if str(number) not in failed:
                del self._held[id]
        return {ids[int(number)]: error for number, error in failed.items()}

    def _hide_for_longer(self) -> None:
        if self._held and time.monotonic() - self._renewed > self._hold / 3:
            self._change_visibility(self._hold)
            self._renewed = time.monotonic()

    def _change_visibility(self, seconds: int) -> None:
        receipts = [held.receipt for held in self._held.values()]
        for start in range(0, len(receipts), SQS_BATCH):
            entries: list[Entry] = [
                {
                    "Id": str(number),
                    "ReceiptHandle": receipt,
                    "VisibilityTimeout": seconds,
                }
                for number, receipt in enumerate(receipts[start : start + SQS_BATCH])
            ]
            failed = self._call(
                "change_message_visibility_batch", str(self._dead_url), entries
            )
            if failed:
                logger.debug(
                    "%d letters stay hidden for a while",
                    len(failed),
                    extra={"action": "dead_letters_hidden"},
                )

    def _call(
        self, operation: str, url: str, entries: list[Entry]
    ) -> dict[str, Exception]:
        """Return the errors by entry id; a batch call answers 200 with both in it."""
        try:
            reply = getattr(self._client, operation)(QueueUrl=url, Entries=entries)
        except Exception as error:
            return {entry["Id"]: error for entry in entries}
        return refusals(entries, reply)


def _letter(message: dict[str, t.Any], max_receives: int | None) -> StoredLetter:
    system = message["Attributes"]
    sent = int(system["SentTimestamp"])
    ours = {
        name: value.get("StringValue", "")
        for name, value in message.get("MessageAttributes", {}).items()
    }
    if "reason" in ours:
        return StoredLetter(
            id=message["MessageId"],
            body=message["Body"],
            reason=ours["reason"],
            receives=_number(ours.get("receives"), 0),
            sent=_number(ours.get("sent"), sent),
            dead=sent,
        )
    # SQS moved it: it keeps its first time of sending, and its count goes on.
    receives = max_receives or int(system["ApproximateReceiveCount"]) - 1
    reason = f"received {receives} times without being deleted"
    if len(message["Body"].encode()) > LARGEST_WITH_REASON:
        receives, reason = 0, "not known: next to this message is no room for a reason"
    first = system.get("ApproximateFirstReceiveTimestamp")
    return StoredLetter(
        id=message["MessageId"],
        body=message["Body"],
        reason=reason,
        receives=receives,
        sent=sent,
        first_received=_number(first, 0) or None,
    )


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else otherwise
