"""The messages in hand, and the threads that keep them hidden from others.

Each queue has a thread of its own: a call about one queue that is not answered delays
the extensions of no other.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from .delivery import Delete
from .delivery import Held
from .transport import ReceiptLost
from .transport import Transport

logger = get_logger(__name__)

#: Seconds between two beats, at most.
MAX_PAUSE = 0.5


class Hand:
    """The messages that this process received and has not deleted or handed back yet.

    A message is extended after a third of its visibility, also while it waits to be
    deleted. One whose visibility has run out by then is marked lost.

    :param transport: The queues of the messages.
    :param each_beat: Called about once a second while any message is held.
    """

    def __init__(
        self, transport: Transport, each_beat: t.Callable[[], None] = lambda: None
    ) -> None:
        self._transport = transport
        self._each_beat = each_beat
        self._lock = threading.Lock()
        self._queues: dict[str, _QueueHand] = {}
        self._closed = False

    def __len__(self) -> int:
        return sum(len(each.held) for each in [*self._queues.values()])

    def changing(self, queue: str) -> threading.Lock:
        """Return the lock that is held while visibilities of *queue* change.

        Under it no extension is on its way that could hide a message just released.
        """
        return self._of(queue).changing

    def add(self, held: t.Iterable[Held]) -> None:
        """Answer for *held* from now on."""
        for one in held:
            self._of(one.queue).add(one)

    def remove(self, held: t.Iterable[Held]) -> None:
        """Stop answering for *held*."""
        for one in held:
            self._of(one.queue).remove(one)

    def doubt(self) -> None:
        """Doubt all messages held now: none is deleted, each is processed once more."""
        for each in [*self._queues.values()]:
            for one in each.snapshot():
                one.doubt()

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

    def _of(self, queue: str) -> _QueueHand:
        # Read without the lock: an entry is never removed.
        found = self._queues.get(queue)
        if found is None:
            with self._lock:
                found = self._queues.get(queue)
                if found is None:
                    found = _QueueHand(queue, self._transport, self._each_beat)
                    if self._closed:
                        found.loop.stopping.set()
                    self._queues[queue] = found
        return found


class _QueueHand:
    """The messages of one queue."""

    def __init__(
        self, queue: str, transport: Transport, each_beat: t.Callable[[], None]
    ) -> None:
        self.changing = threading.Lock()
        self.held: set[Held] = set()
        self._queue = queue
        self._transport = transport
        self._each_beat = each_beat
        self._lock = threading.Lock()
        # Half of the age at which a message is due: a message that just missed a beat
        # is extended at half of its visibility, and twice more before it runs out.
        self._pause = min(MAX_PAUSE, transport.visibility(queue) / 6)
        self.loop = Loop(f"durable-heartbeat-{queue}", self._turn, self._failed)

    def add(self, held: Held) -> None:
        with self._lock:
            self.held.add(held)
            if not self.loop.started:
                self.loop.start(self._pause)

    def remove(self, held: Held) -> None:
        with self._lock:
            self.held.discard(held)

    def snapshot(self) -> list[Held]:
        with self._lock:
            return list(self.held)

    def extend(self) -> None:
        visibility = self._transport.visibility(self._queue)
        with self.changing:
            before = time.monotonic() - visibility / 3
            due = [
                held
                for held in self.snapshot()
                if held.renewed <= before and held.settlement in (None, Delete())
            ]
            if due:
                self._extend(due, visibility)

    def _extend(self, messages: list[Held], visibility: float) -> None:
        now = time.monotonic()
        receipts = [held.received.receipt for held in messages]
        outcomes = self._transport.extend(self._queue, receipts, visibility)
        for held, error in zip(messages, outcomes, strict=True):
            if error is None:
                held.renewed = now
            elif isinstance(error, ReceiptLost):
                # A message deleted since then is not there, which is no loss.
                held.lost = held.settlement is None
                self.remove(held)
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
            self._each_beat()
        return self._pause

    def _failed(self, error: BaseException) -> float:
        logger.error(
            "A beat over the messages in hand failed",
            exc_info=error,
            extra={"action": "heartbeat_failed"},
        )
        return self._pause
