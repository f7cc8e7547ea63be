"""Carries out the settlements of messages: passes the barrier, then makes the calls.

::

    settled ─► one thread: barrier for all deletes ─► for each queue a thread: its calls
       ▲                                                        │
       └──────────────── what failed, after a pause ◄───────────┘

One barrier serves the deletes of all queues. The calls about one queue delay those of
no other (``settling.py``): the queues are waited for one after the other, but only for
a moment each.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import defaultdict

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from .delivery import DeadLetter
from .delivery import Delete
from .delivery import Failed
from .delivery import Held
from .delivery import kept
from .delivery import Release
from .delivery import Repeat
from .delivery import Settlement
from .heartbeat import Hand
from .settling import Batch
from .settling import FIRST_BACKOFF
from .settling import IDLE
from .settling import MAX_BACKOFF
from .settling import QueueSettler
from .transport import Transport

logger = get_logger(__name__)

#: Seconds that a settled message waits for others that share its call.
LINGER = 0.02

#: Seconds of waiting for the calls about one queue, before the turn of the next.
TURN = 0.1


class Acknowledger:
    """A buffer of settled messages, and the thread that empties it.

    A message is deleted only after a barrier that began when the message was already
    settled, so the state it led to is durable. Where that state may be lost, the
    message is processed once more without being received again: a receive would bring
    it closer to the dead letters. Calls that failed are kept and repeated.

    :param transport: The queues of the messages.
    :param hand: The messages in hand; a message leaves once it is carried out.
    :param barrier: Returns once all state written so far is durable: ``True``, or
        ``False`` if some that was written since its last call may be lost. Raises if it
        is not known yet.
    :param repeat: Takes messages to be processed once more, and returns those it does
        not take, which are released.
    :param on_failed: Called with the errors of messages, by what the messages are
        about, once they are handed back or dead-lettered for them.
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
        self._lock = threading.RLock()
        #: Notified when there may be something to take, and when all is carried out.
        #: A run settles a message each time, so the thread is woken only if it can act.
        self._takable = threading.Condition(self._lock)
        self._empty = threading.Condition(self._lock)
        #: By queue: the settled messages that are not carried out, nor being so.
        self._settled: dict[str, list[Held]] = defaultdict(list)
        self._settlers: dict[str, QueueSettler] = {}
        #: Messages taken from there that no queue's thread has yet.
        self._taken: list[Held] = []
        self._count = 0
        self._size = 0
        self._backoff = FIRST_BACKOFF
        self._closing = threading.Event()
        self.loop = Loop("durable-acknowledger", self._turn, self._failed)

    @property
    def loops(self) -> list[Loop]:
        """The threads: this one's, and those of the queues."""
        return [self.loop, *(each.loop for each in [*self._settlers.values()])]

    @property
    def backlog(self) -> int:
        """The number of settled messages that were not carried out yet."""
        return self._count

    @property
    def backlog_size(self) -> int:
        """The bytes of their bodies."""
        return self._size

    def put(self, held: Held) -> None:
        """Take over *held*, whose settlement is set."""
        with self._lock:
            settled = self._settled[held.queue]
            settled.append(held)
            self._count += 1
            self._size += len(held.received.body)
            if len(settled) == 1:
                self._takable.notify()
            if not self.loop.started and not self._closing.is_set():
                self.loop.start()

    def flush(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds; return whether all is carried out."""
        with self._empty:
            return self._empty.wait_for(lambda: not self._count, timeout)

    def close(self, timeout: float) -> None:
        """Carry out as much as *timeout* seconds allow, then end the threads."""
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        self.stop()
        for loop in self.loops:
            loop.join(max(0.1, deadline - time.monotonic()))

    def stop(self) -> None:
        """Carry out the batches that were begun, and end the threads."""
        self._closing.set()
        with self._takable:
            self._takable.notify()

    def _turn(self) -> float:
        self._take()
        if self._taken:
            self._begin()
        elif self._closing.is_set():
            self._end_loops()
        return 0

    def _failed(self, error: BaseException) -> float:
        taken, self._taken = self._taken, []
        logger.error(
            "%d messages were not settled",
            len(taken),
            exc_info=error,
            extra={"action": "message_not_settled"},
        )
        self._put_back(taken)
        self._pause()
        return 0

    def _take(self) -> None:
        """Take all that is settled about queues that are not busy."""
        with self._takable:
            wait = self._soonest()
            if wait > 0:
                self._takable.wait_for(
                    lambda: not self._soonest() or self._closing.is_set(), wait
                )
            if self._soonest():
                return
        self._closing.wait(LINGER)
        with self._lock:
            for queue in [*self._settled]:
                if not self._busy_for(queue):
                    self._taken += self._settled.pop(queue)

    def _soonest(self) -> float:
        """Return the seconds until there may be something to take; 0 if there is."""
        return min(
            (self._busy_for(queue) for queue, held in self._settled.items() if held),
            default=IDLE,
        )

    def _busy_for(self, queue: str) -> float:
        settler = self._settlers.get(queue)
        return 0.0 if settler is None else settler.busy_for

    def _begin(self) -> None:
        """Give the messages that were taken to their queues' threads."""
        refused = self._pass_barrier([h for h in self._taken if _is_delete(h)])
        again = [held for held in self._taken if isinstance(held.settlement, Repeat)]
        # A lost message is for another consumer to process.
        unrepeated = set(self._repeat([held for held in again if not held.lost]))
        batches: dict[str, Batch] = defaultdict(Batch)
        over: list[Held] = []
        kept = set(refused)
        for held in self._taken:
            if held in kept:
                continue
            batch, due = batches[held.queue], self._due(held)
            if isinstance(due, Release) or held in unrepeated:
                delay = due.delay if isinstance(due, Release) else 0.0
                batch.released[delay].append(held)
            elif isinstance(due, DeadLetter):
                batch.dead.append((held, due.reason))
            elif isinstance(due, Delete):
                batch.deleted.append(held)
            else:
                over.append(held)
        self._ended(over, [])
        self._put_back(refused)
        self._taken = [h for each in batches.values() for h in each.messages]
        for queue, batch in batches.items():
            self._hand_over(queue, batch)
        if refused:
            self._pause()
        else:
            self._backoff = FIRST_BACKOFF

    def _hand_over(self, queue: str, batch: Batch) -> None:
        messages = set(batch.messages)
        if not messages:
            return
        settler = self._settlers.get(queue)
        if settler is None:
            settler = self._settlers[queue] = QueueSettler(
                queue,
                self._transport,
                self._hand,
                self._ended,
                self._takable,
                self._lock,
            )
        settler.begin(batch)
        self._taken = [held for held in self._taken if held not in messages]
        settler.wait(TURN)

    def _pass_barrier(self, deletes: list[Held]) -> list[Held]:
        """Pass the barrier for *deletes*; return them if its result is not known.

        Where state may be lost no message in hand is deleted; these are to be processed
        once more instead.
        """
        if not deletes:
            return []
        try:
            durable = self._barrier()
        except Exception as error:
            logger.warning(
                "%d messages are kept: %s",
                len(deletes),
                error,
                extra={"action": "messages_kept"},
            )
            return deletes
        if not durable:
            logger.warning(
                "State may be lost: %d messages are repeated",
                len(deletes),
                extra={"action": "state_may_be_lost"},
            )
            # Also messages not settled yet: their state may have been written before
            # the loss, and the next barrier would pass.
            self._hand.doubt()
            for held in deletes:
                held.doubt()
        return []

    def _ended(self, messages: list[Held], left: list[Held]) -> None:
        """Note that *messages* are carried out, except those in *left*."""
        done = set(messages).difference(left)
        self._hand.remove(done)
        self._note(done)
        with self._lock:
            self._count -= len(done)
            self._size -= sum(len(held.received.body) for held in done)
            self._put_back(left)
            if not self._count:
                self._empty.notify_all()

    def _put_back(self, left: list[Held]) -> None:
        with self._lock:
            for held in reversed(left):
                self._settled[held.queue].insert(0, held)

    def _end_loops(self) -> None:
        for settler in self._settlers.values():
            settler.close()
        self.loop.stopping.set()

    def _pause(self) -> None:
        if self._closing.wait(self._backoff):
            self._end_loops()
        self._backoff = min(self._backoff * 2, MAX_BACKOFF)

    def _due(self, held: Held) -> Settlement | None:
        """Return the settlement of *held* that is to be carried out now."""
        settlement = held.settlement
        if not isinstance(settlement, Failed):
            return settlement
        if held.receive_count < self._transport.max_receives(held.queue):
            return Release(settlement.delay)
        reason = f"received {held.receive_count} times, at last {settlement.error}"
        return DeadLetter(kept(reason))

    def _note(self, messages: t.Iterable[Held]) -> None:
        """Report the errors of messages; nothing depends on it, or waits for it."""
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


def _is_delete(held: Held) -> bool:
    return isinstance(held.settlement, Delete)
