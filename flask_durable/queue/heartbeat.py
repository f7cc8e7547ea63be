"""The messages in flight, and the threads that keep them hidden from others.

Each queue has a thread of its own. An unanswered call about one queue therefore delays
no other queue.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from .delivery import Delete
from .delivery import InFlightMessage
from .transport import ReceiptLost
from .transport import Transport

logger = get_logger(__name__)

#: Seconds between two beats, at most.
MAX_BEAT_SECONDS = 0.5


class WaitingMessages(t.Protocol):
    """The messages in flight that no run thread has begun: those of the broker."""

    def give_back_overdue(self) -> None:
        """Hand back messages that wait for too long. Called about twice a second."""


class InFlight:
    """The messages that this process received and has not deleted or handed back yet.

    A message is extended after a third of its visibility, also while it waits to be
    deleted. One whose visibility has run out by then is marked lost.

    :param transport: The queues of the messages.
    :param waiting: The messages in flight that no run thread has begun.
    """

    def __init__(self, transport: Transport, waiting: WaitingMessages) -> None:
        self._transport = transport
        self._waiting = waiting
        self._lock = threading.Lock()
        self._queues: dict[str, _QueueInFlight] = {}
        self._closed = False

    def __len__(self) -> int:
        return sum(len(each.messages) for each in [*self._queues.values()])

    def changing(self, queue: str) -> threading.Lock:
        """Return the lock that is held while visibilities of *queue* change.

        Under it no extension is on its way that could hide a message just released.
        """
        return self._of(queue).changing

    def add(self, messages: t.Iterable[InFlightMessage]) -> None:
        """Answer for *messages* from now on."""
        for message in messages:
            self._of(message.queue).add(message)

    def remove(self, messages: t.Iterable[InFlightMessage]) -> None:
        """Stop answering for *messages*."""
        for message in messages:
            self._of(message.queue).remove(message)

    def doubt(self) -> None:
        """Doubt all messages in flight: none is deleted, each is processed again."""
        for each in [*self._queues.values()]:
            for message in each.snapshot():
                message.doubt()

    def extend(self) -> None:
        """Extend messages received or extended a third of their visibility ago."""
        for each in [*self._queues.values()]:
            each.extend()

    def close(self) -> None:
        """Stop extending."""
        with self._lock:
            self._closed = True
            loops = [each.loop for each in self._queues.values()]
        for loop in loops:
            loop.stopping.set()
        deadline = time.monotonic() + 1
        for loop in loops:
            loop.join(max(deadline - time.monotonic(), 0))

    def _of(self, queue: str) -> _QueueInFlight:
        # Read without the lock: an entry is never removed.
        found = self._queues.get(queue)
        if found is None:
            with self._lock:
                found = self._queues.get(queue)
                if found is None:
                    found = _QueueInFlight(queue, self._transport, self._waiting)
                    if self._closed:
                        found.loop.stopping.set()
                    self._queues[queue] = found
        return found


class _QueueInFlight:
    """The messages of one queue."""

    def __init__(
        self, queue: str, transport: Transport, waiting: WaitingMessages
    ) -> None:
        self.changing = threading.Lock()
        self.messages: set[InFlightMessage] = set()
        self._queue = queue
        self._transport = transport
        self._waiting = waiting
        self._lock = threading.Lock()
        # Half of the age at which a message is due: a message that just missed a beat
        # is extended at half of its visibility, and twice more before it runs out.
        self._pause = min(MAX_BEAT_SECONDS, transport.visibility(queue) / 6)
        self.loop = Loop(f"durable-heartbeat-{queue}", self._turn, self._failed)

    def add(self, message: InFlightMessage) -> None:
        with self._lock:
            self.messages.add(message)
            if not self.loop.started:
                self.loop.start(self._pause)

    def remove(self, message: InFlightMessage) -> None:
        with self._lock:
            self.messages.discard(message)

    def snapshot(self) -> list[InFlightMessage]:
        with self._lock:
            return list(self.messages)

    def extend(self) -> None:
        visibility = self._transport.visibility(self._queue)
        with self.changing:
            before = time.monotonic() - visibility / 3
            due = [
                message
                for message in self.snapshot()
                if message.renewed <= before and message.settlement in (None, Delete())
            ]
            if due:
                self._extend(due, visibility)

    def _extend(self, messages: list[InFlightMessage], visibility: float) -> None:
        now = time.monotonic()
        receipts = [message.received.receipt for message in messages]
        outcomes = self._transport.extend(self._queue, receipts, visibility)
        for message, error in zip(messages, outcomes, strict=True):
            if error is None:
                message.renewed = now
            elif isinstance(error, ReceiptLost):
                # A message deleted since then is not there, which is no loss.
                message.lost = message.settlement is None
                self.remove(message)
            else:
                logger.warning(
                    "A message of %s was not extended: %s",
                    self._queue,
                    error,
                    extra={"action": "message_not_extended"},
                )

    def _turn(self) -> float:
        try:
            self.extend()
        finally:
            self._waiting.give_back_overdue()
        return self._pause

    def _failed(self, error: BaseException) -> float:
        logger.error(
            "A beat over the messages in flight failed",
            exc_info=error,
            extra={"action": "heartbeat_failed"},
        )
        return self._pause
