"""Carries out the settlements of one queue's messages.

Each queue has a thread for it: a delete that is not answered delays those of no other
queue.
"""

from __future__ import annotations

import functools
import threading
import time
import typing as t
from collections import defaultdict
from dataclasses import dataclass
from dataclasses import field

from ..common.loops import Loop
from ..common.loops import moved
from ..common.safe_logging import get_logger
from ..messages import MessageRefused
from .delivery import InFlightMessage
from .heartbeat import InFlight
from .transport import Outcome
from .transport import ReceiptLost
from .transport import Transport

logger = get_logger(__name__)

#: Seconds that the thread waits for a batch before it shows that it is alive.
SETTLER_IDLE_SECONDS = 5.0

#: Messages of one step. If a whole step fails, the rest waits for the next batch.
SETTLED_TOGETHER = 100

#: Seconds before the first repetition of a failed call, and the longest such pause.
FIRST_SETTLE_PAUSE_SECONDS = 0.1
MAX_SETTLE_PAUSE_SECONDS = 5.0


@dataclass
class Batch:
    """Settled messages of one queue, by their settlement.

    :param released: Messages to be handed back, by the seconds until the next receive.
    :param dead: Messages to be dead-lettered, with their reasons.
    :param deleted: Messages to be deleted: the state that they led to is durable.
    """

    released: dict[float, list[InFlightMessage]] = field(
        default_factory=lambda: defaultdict(list)
    )
    dead: list[tuple[InFlightMessage, str]] = field(default_factory=list)
    deleted: list[InFlightMessage] = field(default_factory=list)

    @property
    def messages(self) -> list[InFlightMessage]:
        """All messages of the batch."""
        released = [message for group in self.released.values() for message in group]
        return [*released, *(message for message, _ in self.dead), *self.deleted]


class BatchGiver(t.Protocol):
    """The one thread that gives batches to those of the queues: the acknowledger."""

    #: The lock of the batches that were given and are not ended.
    lock: threading.RLock
    #: A condition of :attr:`lock`, notified when a queue's thread is free again.
    takable: threading.Condition

    def ended(
        self, messages: list[InFlightMessage], left: list[InFlightMessage]
    ) -> None:
        """Note that *messages* are carried out, except those in *left*."""


class QueueSettler:
    """The thread that carries out batches of one queue, one after the other.

    :param queue: The queue's name.
    :param transport: The transport of the queue.
    :param in_flight: The messages in flight.
    :param giver: The thread that gives it batches.
    """

    def __init__(
        self,
        queue: str,
        transport: Transport,
        in_flight: InFlight,
        giver: BatchGiver,
    ) -> None:
        self._queue = queue
        self._transport = transport
        self._in_flight = in_flight
        self._giver = giver
        self._given = threading.Condition(giver.lock)
        self._batch: Batch | None = None
        self._rests_until = 0.0
        self._backoff = FIRST_SETTLE_PAUSE_SECONDS
        self.loop = Loop(f"durable-acknowledger-{queue}", self._turn, self._failed)

    @property
    def busy_for(self) -> float:
        """Seconds until a batch is taken; more than 0 while one is carried out."""
        if self._batch is not None:
            return SETTLER_IDLE_SECONDS
        return max(self._rests_until - time.monotonic(), 0.0)

    def begin(self, batch: Batch) -> None:
        """Have *batch* carried out."""
        with self._given:
            if not self.loop.started:
                self.loop.start()
            self._batch = batch
            self._given.notify()

    def wait(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for the end of the batch."""
        with self._giver.takable:
            self._giver.takable.wait_for(lambda: self._batch is None, timeout)

    def close(self) -> None:
        """Take no further batch."""
        self.loop.stopping.set()
        with self._given:
            self._given.notify()

    def _turn(self) -> float:
        with self._given:
            self._given.wait_for(
                lambda: self._batch is not None or self.loop.stopping.is_set(),
                SETTLER_IDLE_SECONDS,
            )
            batch = self._batch
        if batch is not None:
            self._end(batch, self._carry_out(batch))
        return 0

    def _failed(self, error: BaseException) -> float:
        batch = self._batch
        messages = [] if batch is None else batch.messages
        logger.error(
            "%d messages were not settled",
            len(messages),
            exc_info=error,
            extra={"action": "message_not_settled"},
        )
        if batch is not None:
            self._end(batch, messages)
        return 0

    def _end(self, batch: Batch, left: list[InFlightMessage]) -> None:
        if left:
            self._rests_until = time.monotonic() + self._backoff
            self._backoff = min(self._backoff * 2, MAX_SETTLE_PAUSE_SECONDS)
        else:
            self._backoff = FIRST_SETTLE_PAUSE_SECONDS
        self._giver.ended(batch.messages, left)
        with self._giver.takable:
            self._batch = None
            self._giver.takable.notify()

    def _carry_out(self, batch: Batch) -> list[InFlightMessage]:
        """Carry out *batch*; return the messages to be settled again."""
        left: list[InFlightMessage] = []
        for delay, released in batch.released.items():
            release = functools.partial(self._release, delay)
            left += self._in_steps(released, release)
        for message, reason in batch.dead:
            moved()
            left += [] if self._dead_letter(message, reason) else [message]
        return left + self._in_steps(batch.deleted, self._delete)

    def _in_steps(
        self,
        messages: list[InFlightMessage],
        call: t.Callable[[list[str]], list[Outcome]],
    ) -> list[InFlightMessage]:
        left: list[InFlightMessage] = []
        for start in range(0, len(messages), SETTLED_TOGETHER):
            moved()
            group = messages[start : start + SETTLED_TOGETHER]
            failed = _failed(
                group, call([message.received.receipt for message in group])
            )
            left += failed
            if len(failed) == len(group):
                return left + messages[start + SETTLED_TOGETHER :]
        return left

    def _release(self, delay: float, receipts: list[str]) -> list[Outcome]:
        with self._in_flight.changing(self._queue):
            return self._transport.release(self._queue, receipts, delay)

    def _delete(self, receipts: list[str]) -> list[Outcome]:
        return self._transport.delete(self._queue, receipts)

    def _dead_letter(self, message: InFlightMessage, reason: str) -> bool:
        try:
            self._transport.dead_letter(message.queue, message.received, reason)
        except MessageRefused as error:
            logger.error(
                "A message of %s is left to its queue, since the dead letters never "
                "take it (%s): %s",
                message.queue,
                error,
                reason,
                extra={"action": "message_not_settled"},
            )
            return True
        except Exception as error:
            return not _failed([message], [error])
        logger.warning(
            "A message of %s was dead-lettered: %s",
            message.queue,
            reason,
            extra={"action": "message_dead"},
        )
        return True


def _failed(
    messages: list[InFlightMessage], outcomes: list[Outcome]
) -> list[InFlightMessage]:
    """Return the messages to be settled again, by the outcomes of a call."""
    left: list[InFlightMessage] = []
    why: Outcome = None
    for message, error in zip(messages, outcomes, strict=True):
        # A message that another consumer has is for that one to settle.
        if error is not None and not isinstance(error, ReceiptLost):
            why = error
            left.append(message)
    if left:
        logger.warning(
            "%d message(s) of %s were not settled: %s",
            len(left),
            left[0].queue,
            why,
            extra={"action": "message_not_settled"},
        )
    return left
