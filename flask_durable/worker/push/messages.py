"""The handling of messages that another program received for this process.

::

    not understood at all ─────────────────────────► dead letter, done
    of a kind or version that a newer release knows ► comes again; a dead letter at its
    of another installation                           last receive
    failed ─────────────────────────────────────────► the same
    a server is away ───────────────────────────────► all of them come again; after many
                                                      receives a copy of each is sent
    late in its batch ──────────────────────────────► a copy is sent

However often a message comes, it leads to the same run, and the run to one owner.

A FIFO queue keeps its order only while each message stays where it is. So no copy of
its messages is sent: it would be behind its group, and SQS drops the copy of an event
as a duplicate. The message comes again instead, and so do those behind it in its group;
other groups go on. A run whose queue is FIFO is never executed in place, past the runs
that wait there.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ...app.state import AppState
from ...common.safe_logging import get_logger
from ...engine.claimed_run import ClaimedRun
from ...engine.executor import Executor
from ...engine.router import Router
from ...errors import UnavailableError
from ...messages import decode
from ...messages import EVENT_QUEUE
from ...messages import EventMessage
from ...messages import Message
from ...messages import RunMessage
from ...messages import UndecodableMessage
from ...messages import UnknownForm
from ...queue.transport import MAX_RECEIVES
from ...queue.transport import Transport
from ...redis.errors import is_transient

#: Receives from which on a copy of a message is sent while a server is away.
RENEWED_FROM = MAX_RECEIVES // 2

#: The ending of the names of queues that keep an order.
FIFO_SUFFIX = ".fifo"

logger = get_logger(__name__)


@dataclass(frozen=True)
class PushedMessage:
    """A message of a queue, as it was passed to this process.

    :param id: The queue's id of the message.
    :param body: The text of the message.
    :param receive_count: The number of times it was received, this time included.
    :param source: The name of its queue, if that is known.
    :param group: Its message group, if its queue is a FIFO queue and the caller has it.
    """

    id: str
    body: str | bytes = field(repr=False)
    receive_count: int = 1
    source: str = ""
    group: str = ""

    @property
    def text(self) -> str:
        """The body of a message that could be decoded, as text."""
        return self.body if isinstance(self.body, str) else self.body.decode()


class PushedMessages:
    """Serves messages, one after the other."""

    def __init__(self, state: AppState, executor: Executor) -> None:
        self._state = state
        self._executor = executor

    def serve(self, messages: t.Sequence[PushedMessage], until: float) -> list[str]:
        """Serve *messages*; return the ids of those that are to be delivered again.

        :param until: The time until which a step may begin, on the monotonic clock.
        :raises Exception: A server is away, as :func:`is_away` tells; all messages are
            to be delivered again.
        """
        again: list[str] = []
        held_up: set[str] = set()
        for number, message in enumerate(messages):
            read = self._read(message)
            if read.group in held_up:
                again.append(message.id)
                continue
            now = time.monotonic()
            share = max(until - now, 0) / (len(messages) - number)
            # The first one is served in any case: each call makes progress.
            late = number > 0 and now >= until
            if not self._is_done(read, now + share, late=late):
                again.append(message.id)
                if read.group:
                    held_up.add(read.group)
        return again

    def put_off(self, messages: t.Sequence[PushedMessage]) -> list[str]:
        """Return the ids of *messages* that come again because a server is away.

        Each delivery counts as a receive, and an outage of minutes would use up all
        that a message has. So once one of them was received often, a copy of each is
        sent and they are done. All or none: where each message of a batch comes again,
        the call can fail as a whole, which every mapping of the queue understands.
        """
        if any(message.receive_count >= RENEWED_FROM for message in messages):
            reads = [self._read(each) for each in messages]
            # Asked first: otherwise each call would add a copy of one that comes again.
            if all(_may_be_renewed(read) for read in reads) and all(
                [self._is_renewed(read) for read in reads]
            ):
                return []
        return [message.id for message in messages]

    def _read(self, message: PushedMessage) -> _Read:
        decoded: Message | None = None
        error: UndecodableMessage | None = None
        try:
            decoded = decode(message.body)
        except UndecodableMessage as problem:
            error = problem
        queue = self._queue_of(message, decoded)
        ordered = message.source.endswith(FIFO_SUFFIX)
        group = ""
        if ordered or self._state.transport.is_ordered(queue):
            # One without a group is a group of its own.
            group = message.group or getattr(decoded, "group", "") or message.id
        return _Read(message, decoded, error, queue, group)

    def _is_renewed(self, read: _Read) -> bool:
        """Send a copy of a message; return True if it was taken: this one is done."""
        [error] = self._state.message_sender.send(
            read.queue, [read.message.text], patience=0
        )
        return error is None

    def _is_done(self, read: _Read, until: float, *, late: bool) -> bool:
        """Serve a message; return whether it is done. Otherwise it comes again.

        :raises Exception: A server is away.
        """
        try:
            if isinstance(read.error, UnknownForm):
                raise read.error
            if read.decoded is not None:
                self._state.message_sender.marks.check(read.queue, read.decoded)
            return self._serve(read, until, late=late)
        except _FailedAlone as failed:
            return self._is_dead(read, failed.error)
        except Exception as error:
            if is_away(error):
                raise
            return self._is_dead(read, error)

    def _serve(self, read: _Read, until: float, *, late: bool) -> bool:
        message, decoded = read.message, read.decoded
        if decoded is None:
            return self._dead_letter(read, str(read.error))
        if message.receive_count > self._max_receives(read.queue):
            # Its process ended each time, or the caller never got the answer.
            return self._dead_letter(read, f"received {message.receive_count} times")
        if isinstance(decoded, EventMessage):
            return self._route(read, decoded, until, late=late)
        if late and read.queue != EVENT_QUEUE:
            return self._is_left(read)
        run = self._executor.claim(decoded, until=until)
        if run is not None:
            self._executor.execute(run, until=until)
        return True

    def _route(
        self, read: _Read, event: EventMessage, until: float, *, late: bool
    ) -> bool:
        place = _Place(self._state.transport, free=0 if late else 1)
        message = read.message
        delivery = _Delivery(event, message.text, message.receive_count)
        try:
            router = Router(self._state.services, self._state.outbox, place)
            router.route([delivery], until=until)
        finally:
            for run in place.runs:
                self._executor.execute(run, until=until)
        if delivery.reason is not None:
            return self._dead_letter(read, delivery.reason)
        if delivery.error is not None:
            # The error concerns this event alone: others may succeed.
            raise _FailedAlone(delivery.error)
        return True

    def _is_left(self, read: _Read) -> bool:
        """Leave a run to the next call, as if its message had never been received.

        If it failed instead, it would count a receive: behind long steps of others a
        run's message would end among the dead letters. On a FIFO queue it has to fail:
        a copy would begin behind the rest of its group.
        """
        if read.group:
            return False
        [error] = self._state.message_sender.send(read.queue, [read.message.text])
        if error is not None:
            raise error
        return True

    def _is_dead(self, read: _Read, error: Exception) -> bool:
        """Note the error of a message; return whether it was its last receive."""
        message = read.message
        logger.error(
            "The message %s could not be served.",
            message.id,
            exc_info=error,
            extra={"action": "push_failed"},
        )
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, UndecodableMessage):
            why = str(error)
        dead = message.receive_count >= self._max_receives(read.queue)
        try:
            if dead:
                why = f"received {message.receive_count} times, at last {why}"
                self._dead_letter(read, why)
            if read.decoded is not None:
                self._state.failures.note({read.decoded.key: why})
        except Exception as problem:
            # It comes again, and is dead-lettered then.
            logger.warning(
                "Why %s failed is not noted: %s",
                message.id,
                problem,
                extra={"action": "failure_not_noted"},
            )
            return False
        return dead

    def _dead_letter(self, read: _Read, reason: str) -> bool:
        message = read.message
        self._state.message_sender.send_dead(
            read.queue, message.body, reason, receives=message.receive_count
        )
        logger.warning(
            "The message %s of %s was dead-lettered: %s",
            message.id,
            read.queue,
            reason,
            extra={"action": "message_dead"},
        )
        return True

    def _max_receives(self, queue: str) -> int:
        return self._state.transport.max_receives(queue)

    def _queue_of(self, message: PushedMessage, decoded: Message | None) -> str:
        """Return the queue that a message came from, as far as it is known."""
        if message.source:
            name = self._state.transport.name
            for queue in (EVENT_QUEUE, *self._state.functions.queues()):
                if name(queue) == message.source:
                    return queue
        if isinstance(decoded, RunMessage):
            function = self._state.functions.get(decoded.function)
            return EVENT_QUEUE if function is None else function.queue
        return EVENT_QUEUE


@dataclass(frozen=True)
class _Read:
    """A message and its contents.

    :param decoded: The decoded message, ``None`` if it could not be read.
    :param error: The reason why it could not be read.
    :param queue: The name of its queue.
    :param group: Its message group; ``""`` where its queue keeps no order.
    """

    message: PushedMessage
    decoded: Message | None
    error: UndecodableMessage | None
    queue: str
    group: str


def _may_be_renewed(read: _Read) -> bool:
    """Return whether a copy of a message may be sent in its place.

    On a FIFO queue it would be behind its group, if SQS does not drop it.
    """
    return read.decoded is not None and not read.group


class _FailedAlone(Exception):
    """Raised for a message that failed for a reason of its own; others are served."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Place:
    """The place that the router fills: the thread that serves the message."""

    def __init__(self, transport: Transport, free: int) -> None:
        self.runs: list[ClaimedRun] = []
        self._transport = transport
        self._free = free

    def serves(self, queue: str) -> bool:
        # A FIFO queue orders the starts of its runs: none of them may go past it.
        return not self._transport.is_ordered(queue)

    def reserve(self) -> bool:
        free, self._free = self._free, 0
        return free > 0

    def release(self) -> None:
        self._free = 1

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        self.runs.append(run)


class _Delivery:
    """One event for the router, and the router's decision on it."""

    def __init__(self, message: EventMessage, text: str, receive_count: int) -> None:
        self.message = message
        self.text = text
        self.receive_count = receive_count
        self.error: Exception | None = None
        self.reason: str | None = None

    def done(self) -> None:
        pass

    def failed(self, error: Exception, delay: float = 0.0) -> None:
        self.error = error

    def dead(self, reason: str) -> None:
        self.reason = reason


def is_away(error: Exception) -> bool:
    """Return whether *error* is that of a server, which every message would meet."""
    return isinstance(error, UnavailableError) or is_transient(error)
