"""Carries out what was decided about messages: one thread, in batches."""

from __future__ import annotations

import threading
import time
import typing as t
from collections import defaultdict

from ..loops import Loop
from ..safe_logging import get_logger
from .delivery import DeadLetter
from .delivery import Delete
from .delivery import Failed
from .delivery import Held
from .delivery import kept
from .delivery import Release
from .delivery import Repeat
from .delivery import Settlement
from .heartbeat import Hand
from .transport import Outcome
from .transport import ReceiptLost
from .transport import Transport

logger = get_logger(__name__)

#: Seconds that a settled message waits for others to share a call with.
LINGER = 0.02

#: Seconds that the thread waits for a message before it shows that it is there.
IDLE = 5.0

#: Seconds before the first repetition of what failed, and at most.
FIRST_BACKOFF = 0.1
MAX_BACKOFF = 5.0


class Acknowledger:
    """A buffer of settled messages, and the thread that empties it.

    A message is deleted only after a barrier that began when the message was settled
    already, so the state it led to is durable. Where that may be lost the message leads
    there again, without being received again: an outage of the state server would else
    bring it closer to its dead letters. What fails is kept and repeated.

    :param transport: Where the messages are from.
    :param hand: Which a message leaves when it is carried out.
    :param barrier: Returns once all state written so far is durable: ``True``, or
        ``False`` if some that was written since its last call may be lost. Raises if it
        is not known yet.
    :param repeat: Takes messages to be processed once more, and returns those it does
        not take, which are released.
    :param on_failed: Called with why messages failed, by what they are about, once they
        are given back or dead-lettered for it.
    """

    def __init__(
        self,
        transport: Transport,
        hand: Hand,
        barrier: t.Callable[[], bool],
        repeat: t.Callable[[list[Held]], list[Held]],
        on_failed: t.Callable[[t.Mapping[str, str]], None],
    ) -> None:
        self._transport = transport
        self._hand = hand
        self._barrier = barrier
        self._repeat = repeat
        self._on_failed = on_failed
        self._condition = threading.Condition()
        self._settled: list[Held] = []
        #: What is being carried out; left for the next turn if that is cut off.
        self._taken: list[Held] = []
        self._size = 0
        self._backoff = FIRST_BACKOFF
        self._closing = threading.Event()
        self.loop = Loop("durable-acknowledger", self._turn, self._failed)

    @property
    def backlog(self) -> int:
        """How many settled messages were not carried out yet."""
        return len(self._settled) + len(self._taken)

    @property
    def backlog_size(self) -> int:
        """How many bytes their bodies have."""
        return self._size

    def put(self, held: Held) -> None:
        """Take over *held*, whose settlement is set."""
        with self._condition:
            self._settled.append(held)
            self._size += len(held.received.body)
            self._condition.notify_all()
            if not self.loop.started and not self._closing.is_set():
                self.loop.start()

    def flush(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until all is carried out; return whether."""
        with self._condition:
            return self._condition.wait_for(lambda: not self.backlog, timeout)

    def close(self, timeout: float) -> None:
        """Carry out what can be within *timeout* seconds, then end the thread."""
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        self._closing.set()
        with self._condition:
            self._condition.notify_all()
        self.loop.join(max(0.1, deadline - time.monotonic()))

    def _turn(self) -> float:
        if not self._taken:
            self._take()
        if self._taken:
            self._put_back(self._carry_out(self._taken))
        elif self._closing.is_set():
            self.loop.stopping.set()
        return 0

    def _failed(self, error: BaseException) -> float:
        logger.error(
            "%d messages were not settled",
            len(self._taken),
            exc_info=error,
            extra={"action": "message_not_settled"},
        )
        self._put_back(self._taken)
        return 0

    def _take(self) -> None:
        """Take all that is settled, once there is something."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._settled or self._closing.is_set(), IDLE
            )
            if not self._settled:
                return
        self._closing.wait(LINGER)
        with self._condition:
            self._taken, self._settled = self._settled, []

    def _put_back(self, left: list[Held]) -> None:
        """Keep *left* of what was taken, to be carried out after a pause."""
        with self._condition:
            self._settled[:0] = left
            self._size -= _size(self._taken) - _size(left)
            self._taken = []
            self._condition.notify_all()
        if not left:
            self._backoff = FIRST_BACKOFF
        elif self._closing.wait(self._backoff):
            self.loop.stopping.set()
        else:
            self._backoff = min(self._backoff * 2, MAX_BACKOFF)

    def _carry_out(self, batch: list[Held]) -> list[Held]:
        """Do what was decided about *batch*; return what is to be repeated."""
        groups: dict[t.Any, list[Held]] = defaultdict(list)
        for held in batch:
            groups[type(self._due(held))].append(held)
        left = self._release(groups[Release])
        left += self._process_again(groups[Repeat])
        left += [held for held in groups[DeadLetter] if not self._dead_letter(held)]
        if deletes := groups[Delete]:
            left += self._delete(deletes)
        done = set(batch).difference(left)
        self._hand.remove(done)
        self._note(done)
        return left

    def _due(self, held: Held) -> Settlement | None:
        """Return what is to be done about *held*."""
        settlement = held.settlement
        if not isinstance(settlement, Failed):
            return settlement
        if held.receive_count < self._transport.max_receives(held.queue):
            return Release(settlement.delay)
        reason = f"received {held.receive_count} times, at last {settlement.error}"
        return DeadLetter(kept(reason))

    def _note(self, messages: t.Iterable[Held]) -> None:
        """Tell why messages failed; nothing depends on it, so nothing waits for it."""
        failed = {}
        for held in messages:
            settlement = held.settlement
            if isinstance(settlement, Failed) and settlement.about:
                due = self._due(held)
                why = due.reason if isinstance(due, DeadLetter) else settlement.error
                failed[settlement.about] = why
        if not failed:
            return
        try:
            self._on_failed(failed)
        except Exception as error:
            logger.warning(
                "Why %d messages failed is not noted: %s",
                len(failed),
                error,
                extra={"action": "failure_not_noted"},
            )

    def _delete(self, messages: list[Held]) -> list[Held]:
        try:
            durable = self._barrier()
        except Exception as error:
            logger.warning(
                "%d messages are kept: %s",
                len(messages),
                error,
                extra={"action": "messages_kept"},
            )
            return messages
        if not durable:
            return self._doubt(messages)
        left = []
        for queue, group in _by(messages, lambda held: held.queue):
            receipts = [held.received.receipt for held in group]
            left += _failed(group, self._transport.delete(queue, receipts))
        return left

    def _doubt(self, messages: list[Held]) -> list[Held]:
        """Delete nothing that is in hand: the state that it led to may be lost."""
        logger.warning(
            "State may be lost: %d messages are repeated",
            len(messages),
            extra={"action": "state_may_be_lost"},
        )
        # Also what is not settled yet: its state may have been written before the
        # loss, and the next barrier passes.
        self._hand.doubt()
        for held in messages:
            held.doubt()
        return self._process_again(messages)

    def _process_again(self, messages: list[Held]) -> list[Held]:
        return self._release(self._repeat([held for held in messages if not held.lost]))

    def _release(self, messages: list[Held]) -> list[Held]:
        left = []
        for (queue, delay), group in _by(messages, self._release_key):
            receipts = [held.received.receipt for held in group]
            with self._hand.changing(queue):
                outcomes = self._transport.release(queue, receipts, delay)
            left += _failed(group, outcomes)
        return left

    def _dead_letter(self, held: Held) -> bool:
        reason = t.cast(DeadLetter, self._due(held)).reason
        try:
            self._transport.dead_letter(held.queue, held.received, reason)
        except Exception as error:
            return not _failed([held], [error])
        logger.warning(
            "A message of %s was dead-lettered: %s",
            held.queue,
            reason,
            extra={"action": "message_dead"},
        )
        return True

    def _release_key(self, held: Held) -> tuple[str, float]:
        due = self._due(held)
        return held.queue, due.delay if isinstance(due, Release) else 0.0


def _size(messages: list[Held]) -> int:
    return sum(len(held.received.body) for held in messages)


def _by(
    messages: list[Held], key: t.Callable[[Held], t.Any]
) -> list[tuple[t.Any, list[Held]]]:
    groups: dict[t.Any, list[Held]] = defaultdict(list)
    for held in messages:
        groups[key(held)].append(held)
    return list(groups.items())


def _failed(messages: list[Held], outcomes: list[Outcome]) -> list[Held]:
    left = []
    for held, error in zip(messages, outcomes, strict=True):
        # A message that another consumer has is that one's to settle.
        if error is not None and not isinstance(error, ReceiptLost):
            logger.warning(
                "A message of %s was not settled: %s",
                held.queue,
                error,
                extra={"action": "message_not_settled"},
            )
            left.append(held)
    return left
