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
from .delivery import InFlightMessage
from .delivery import kept
from .delivery import Release
from .delivery import Repeat
from .delivery import Settlement
from .heartbeat import InFlight
from .receiver import Intake
from .settling import Batch
from .settling import FIRST_SETTLE_PAUSE_SECONDS
from .settling import MAX_SETTLE_PAUSE_SECONDS
from .settling import QueueSettler
from .settling import SETTLER_IDLE_SECONDS
from .transport import Transport

logger = get_logger(__name__)

#: Seconds that a settled message waits for others that share its call.
SHARED_CALL_WAIT_SECONDS = 0.02

#: Seconds of waiting for the calls about one queue, before the turn of the next.
QUEUE_TURN_SECONDS = 0.1


class MessageState(t.Protocol):
    """The state that messages lead to, as far as the queues depend on it."""

    @property
    def reachable(self) -> bool:
        """True while the state server answers; nothing is received otherwise."""

    def wait_durable(self) -> bool:
        """Return once all state written so far is durable.

        :returns: False if some that was written since the last call may be lost.
        :raises Exception: It is not known yet.
        """

    def note_failures(self, failed: t.Mapping[str, str]) -> None:
        """Keep the errors of messages that were handed back or dead-lettered for them.

        :param failed: The errors by the subjects of the messages.
        """


class Acknowledger:
    """A buffer of settled messages, and the thread that empties it.

    A message is deleted only after a barrier that began when the message was already
    settled, so the state it led to is durable. Where that state may be lost, the
    message is processed once more without being received again: a receive would bring
    it closer to the dead letters. Calls that failed are kept and repeated.

    :param transport: The queues of the messages.
    :param in_flight: The messages in flight; one leaves once it is carried out.
    :param state: The state that messages lead to.
    :param intake: The way of messages that are processed once more.
    """

    def __init__(
        self,
        transport: Transport,
        in_flight: InFlight,
        state: MessageState,
        intake: Intake,
    ) -> None:
        self._transport = transport
        self._in_flight = in_flight
        self._state = state
        self._intake = intake
        self.lock = threading.RLock()
        #: Notified when there may be something to take, and when all is carried out.
        #: A run settles a message each time, so the thread is woken only if it can act.
        self.takable = threading.Condition(self.lock)
        self._empty = threading.Condition(self.lock)
        #: By queue: the settled messages that are not carried out, nor being so.
        self._settled: dict[str, list[InFlightMessage]] = defaultdict(list)
        self._settlers: dict[str, QueueSettler] = {}
        #: Messages taken from there that no queue's thread has yet.
        self._taken: list[InFlightMessage] = []
        self._count = 0
        self._size = 0
        self._backoff = FIRST_SETTLE_PAUSE_SECONDS
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

    def put(self, message: InFlightMessage) -> None:
        """Take over *message*, whose settlement is set."""
        with self.lock:
            settled = self._settled[message.queue]
            settled.append(message)
            self._count += 1
            self._size += len(message.received.body)
            if len(settled) == 1:
                self.takable.notify()
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
        with self.takable:
            self.takable.notify()

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
        with self.takable:
            wait = self._soonest()
            if wait > 0:
                self.takable.wait_for(
                    lambda: not self._soonest() or self._closing.is_set(), wait
                )
            if self._soonest():
                return
        self._closing.wait(SHARED_CALL_WAIT_SECONDS)
        with self.lock:
            for queue in [*self._settled]:
                if not self._busy_for(queue):
                    self._taken += self._settled.pop(queue)

    def _soonest(self) -> float:
        """Return the seconds until there may be something to take; 0 if there is."""
        return min(
            (self._busy_for(queue) for queue, waits in self._settled.items() if waits),
            default=SETTLER_IDLE_SECONDS,
        )

    def _busy_for(self, queue: str) -> float:
        settler = self._settlers.get(queue)
        return 0.0 if settler is None else settler.busy_for

    def _begin(self) -> None:
        """Give the messages that were taken to their queues' threads."""
        refused = self._pass_barrier(
            [message for message in self._taken if _is_delete(message)]
        )
        again = [
            message for message in self._taken if isinstance(message.settlement, Repeat)
        ]
        # A lost message is for another consumer to process.
        unrepeated = set(
            self._intake.repeat([message for message in again if not message.lost])
        )
        batches: dict[str, Batch] = defaultdict(Batch)
        over: list[InFlightMessage] = []
        kept = set(refused)
        for message in self._taken:
            if message in kept:
                continue
            batch, due = batches[message.queue], self._due(message)
            if isinstance(due, Release) or message in unrepeated:
                delay = due.delay if isinstance(due, Release) else 0.0
                batch.released[delay].append(message)
            elif isinstance(due, DeadLetter):
                batch.dead.append((message, due.reason))
            elif isinstance(due, Delete):
                batch.deleted.append(message)
            else:
                over.append(message)
        self.ended(over, [])
        self._put_back(refused)
        self._taken = [
            message for each in batches.values() for message in each.messages
        ]
        for queue, batch in batches.items():
            self._begin_settling(queue, batch)
        if refused:
            self._pause()
        else:
            self._backoff = FIRST_SETTLE_PAUSE_SECONDS

    def _begin_settling(self, queue: str, batch: Batch) -> None:
        messages = set(batch.messages)
        if not messages:
            return
        settler = self._settlers.get(queue)
        if settler is None:
            settler = self._settlers[queue] = QueueSettler(
                queue,
                self._transport,
                self._in_flight,
                self,
            )
        settler.begin(batch)
        self._taken = [message for message in self._taken if message not in messages]
        settler.wait(QUEUE_TURN_SECONDS)

    def _pass_barrier(self, deletes: list[InFlightMessage]) -> list[InFlightMessage]:
        """Pass the barrier for *deletes*; return them if its result is not known.

        Where state may be lost no message in flight is deleted; these are to be
        processed once more instead.
        """
        if not deletes:
            return []
        try:
            durable = self._state.wait_durable()
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
            self._in_flight.doubt()
            for message in deletes:
                message.doubt()
        return []

    def ended(
        self, messages: list[InFlightMessage], left: list[InFlightMessage]
    ) -> None:
        """Note that *messages* are carried out, except those in *left*."""
        done = set(messages).difference(left)
        self._in_flight.remove(done)
        self._note(done)
        with self.lock:
            self._count -= len(done)
            self._size -= sum(len(message.received.body) for message in done)
            self._put_back(left)
            if not self._count:
                self._empty.notify_all()

    def _put_back(self, left: list[InFlightMessage]) -> None:
        with self.lock:
            for message in reversed(left):
                self._settled[message.queue].insert(0, message)

    def _end_loops(self) -> None:
        for settler in self._settlers.values():
            settler.close()
        self.loop.stopping.set()

    def _pause(self) -> None:
        if self._closing.wait(self._backoff):
            self._end_loops()
        self._backoff = min(self._backoff * 2, MAX_SETTLE_PAUSE_SECONDS)

    def _due(self, message: InFlightMessage) -> Settlement | None:
        """Return the settlement of *message* that is to be carried out now."""
        settlement = message.settlement
        if not isinstance(settlement, Failed):
            return settlement
        if message.receive_count < self._transport.max_receives(message.queue):
            return Release(settlement.delay)
        reason = f"received {message.receive_count} times, at last {settlement.error}"
        return DeadLetter(kept(reason))

    def _note(self, messages: t.Iterable[InFlightMessage]) -> None:
        """Report the errors of messages; nothing depends on it, or waits for it."""
        failed = {}
        for message in messages:
            settlement = message.settlement
            if isinstance(settlement, Failed) and settlement.about:
                due = self._due(message)
                why = due.reason if isinstance(due, DeadLetter) else settlement.error
                failed[settlement.about] = why
        if not failed:
            return
        try:
            self._state.note_failures(failed)
        except Exception as error:
            logger.warning(
                "Why %d messages failed is not noted: %s",
                len(failed),
                error,
                extra={"action": "failure_not_noted"},
            )


def _is_delete(message: InFlightMessage) -> bool:
    return isinstance(message.settlement, Delete)
