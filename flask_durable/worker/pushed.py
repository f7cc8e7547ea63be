"""What is done with the messages that somebody else received for this process.

A message that was not understood is put into the dead letters, and then is done. So is
one that failed at its last receive. One that could not be served *now* comes again.
However often a message comes, it leads to the same run, and a run to one owner.
"""

from __future__ import annotations

import logging
import time
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..app_state import AppState
from ..engine.claimed_run import ClaimedRun
from ..engine.executor import Executor
from ..engine.router import Router
from ..errors import UnavailableError
from ..queue.envelope import decode
from ..queue.envelope import EVENT_QUEUE
from ..queue.envelope import EventMessage
from ..queue.envelope import RunMessage
from ..queue.envelope import UndecodableMessage
from ..queue.transport import MAX_RECEIVES
from ..store.run_store import is_transient

#: Receives from which on a message is sent anew while a server is away.
RENEWED_FROM = MAX_RECEIVES // 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushedMessage:
    """A message of a queue, as it was handed to this process.

    :param id: What the queue calls it.
    :param body: Its text.
    :param receive_count: How often it was received, this time included.
    :param ordered: Whether nothing behind it may be done before it (a FIFO queue).
    """

    id: str
    body: str | bytes = field(repr=False)
    receive_count: int = 1
    ordered: bool = False

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

        :param until: When the last step may begin, on the monotonic clock.
        :raises Exception: A server is away, as :func:`is_away` says; all of them are
            to be delivered again.
        """
        again: list[str] = []
        for number, message in enumerate(messages):
            now = time.monotonic()
            share = max(until - now, 0) / (len(messages) - number)
            # The first one is served in any case: each call gets something done.
            late = number > 0 and now >= until
            try:
                self._serve(message, now + share, late=late)
            except Exception as error:
                if is_away(error):
                    raise
                if not self._is_dead(message, error):
                    again.append(message.id)
                    if message.ordered:
                        return again + [left.id for left in messages[number + 1 :]]
        return again

    def put_off(self, messages: t.Sequence[PushedMessage]) -> list[str]:
        """Return the ids of *messages* that come again, since a server is away.

        Each delivery counts as a receive, and an outage of minutes would use up all
        that a message has. So one that was received often is sent anew, and is done.
        """
        return [message.id for message in messages if not self._is_renewed(message)]

    def _is_renewed(self, message: PushedMessage) -> bool:
        if message.ordered or message.receive_count < RENEWED_FROM:
            return False
        try:
            decoded = decode(message.body)
        except UndecodableMessage:
            return False
        queue = self._queue_of(decoded)
        [error] = self._state.broker.send(queue, [message.text], patience=0)
        return error is None

    def _serve(self, message: PushedMessage, until: float, *, late: bool) -> None:
        try:
            decoded = decode(message.body)
        except UndecodableMessage as error:
            return self._dead_letter(EVENT_QUEUE, message, str(error))
        queue = self._queue_of(decoded)
        if message.receive_count > MAX_RECEIVES:
            # Its process ended each time, or nobody was told the outcome.
            reason = f"received {message.receive_count} times"
            return self._dead_letter(queue, message, reason)
        if isinstance(decoded, EventMessage):
            return self._route(message, decoded, until, late=late)
        if late and queue != EVENT_QUEUE:
            return self._leave(queue, message)
        run = self._executor.claim(decoded, until=until)
        if run is not None:
            self._executor.execute(run, until=until)

    def _route(
        self, message: PushedMessage, event: EventMessage, until: float, *, late: bool
    ) -> None:
        place = _Place(free=0 if late else 1)
        delivery = _Delivery(event, message.text, message.receive_count)
        try:
            router = Router(self._state.host, self._state.outbox, place)
            router.route([delivery], until=until)
        finally:
            for run in place.runs:
                self._executor.execute(run, until=until)
        if delivery.reason is not None:
            self._dead_letter(EVENT_QUEUE, message, delivery.reason)
        elif delivery.error is not None:
            raise delivery.error

    def _leave(self, queue: str, message: PushedMessage) -> None:
        """Leave a run to the next call, as a message that was never received.

        Failed instead, it would count a receive: behind long steps of others a run's
        message would end among the dead letters.
        """
        [error] = self._state.broker.send(queue, [message.text])
        if error is not None:
            raise error

    def _is_dead(self, message: PushedMessage, error: Exception) -> bool:
        """Note why *message* failed; return whether it was its last receive."""
        logger.error(
            "The message %s could not be served.",
            message.id,
            exc_info=error,
            extra={"action": "push_failed"},
        )
        why = f"{type(error).__name__}: {error}"
        try:
            decoded = decode(message.body)
            if message.receive_count >= MAX_RECEIVES:
                why = f"received {message.receive_count} times, at last {why}"
                self._dead_letter(self._queue_of(decoded), message, why)
            self._state.failures.note({decoded.key: why})
        except Exception as problem:
            # It comes again, and is dead-lettered then.
            logger.warning(
                "Why %s failed is not noted: %s",
                message.id,
                problem,
                extra={"action": "failure_not_noted"},
            )
            return False
        return message.receive_count >= MAX_RECEIVES

    def _dead_letter(self, queue: str, message: PushedMessage, reason: str) -> None:
        self._state.broker.send_dead(
            queue, message.body, reason, receives=message.receive_count
        )
        logger.warning(
            "The message %s of %s was dead-lettered: %s",
            message.id,
            queue,
            reason,
            extra={"action": "message_dead"},
        )

    def _queue_of(self, message: EventMessage | RunMessage) -> str:
        """Return the queue that a message came from, as far as it is known here."""
        if isinstance(message, EventMessage):
            return EVENT_QUEUE
        function = self._state.functions.get(message.function)
        return EVENT_QUEUE if function is None else function.queue


class _Place:
    """Where the router hands claimed runs to: the thread that serves the message."""

    def __init__(self, free: int) -> None:
        self.runs: list[ClaimedRun] = []
        self._free = free

    def serves(self, queue: str) -> bool:
        return True

    def reserve(self) -> bool:
        free, self._free = self._free, 0
        return free > 0

    def release(self) -> None:
        self._free = 1

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        self.runs.append(run)


class _Delivery:
    """An event in hand, for the router, and what it decided."""

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
    """Return whether *error* is about a server, and every message would meet it."""
    return isinstance(error, UnavailableError) or is_transient(error)
