"""What a queue can do, whatever it is made of.

A received message is hidden from everybody else for the visibility timeout and then
comes back, with a higher receive count, unless its receipt was used to delete, extend,
release or dead-letter it. Delivery is at least once and in no promised order.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from dramatiq.errors import ConnectionClosed

from .dead_letters import DeadLetterQueues
from .redelivery import MAX_DELAY

#: How often a message is received before it goes to the dead-letter queue instead.
MAX_RECEIVES = 10

#: Seconds that a send waits for the queue's server, unless told otherwise.
ANSWER_WITHIN = 2.0

#: What became of one entry of a call: ``None`` if it was done, else why it was not.
Outcome = Exception | None


class ReceiptLost(Exception):
    """The message is no longer ours: its visibility expired and another took it."""


@dataclass(frozen=True)
class Received:
    """A message in hand.

    :param body: Its text as it was sent; bytes where a queue does not promise text.
    :param receipt: Proves who received it, and which time.
    :param receive_count: How often it was received, this time included.
    :param sent: When it was sent: milliseconds since 1970, the queue's clock.
    """

    body: bytes | str = field(repr=False)
    receipt: str
    receive_count: int
    sent: int


@dataclass(frozen=True)
class QueueCounts:
    """How many messages a queue holds; approximate on SQS, where it lags.

    :param waiting: Ready to be received.
    :param in_flight: Received and neither deleted nor visible again.
    :param delayed: Not ready yet.
    :param dead: In the dead-letter queue.
    """

    waiting: int
    in_flight: int
    delayed: int
    dead: int


@dataclass(frozen=True)
class SendLimits:
    """What one call takes that sends messages.

    :param entries: Messages, at most.
    :param size: Bytes of them all, at most.
    :param coalesced: Whether what several threads send is worth a common call.
    """

    entries: int
    size: int
    coalesced: bool

    def divide(
        self, numbers: t.Iterable[int], sizes: t.Sequence[int]
    ) -> t.Iterator[list[int]]:
        """Divide entries into what one call takes each; one too large is alone.

        :param numbers: The entries, as places in *sizes*.
        :param sizes: Bytes of each.
        """
        batch: list[int] = []
        total = 0
        for number in numbers:
            size = sizes[number]
            if batch and (len(batch) == self.entries or total + size > self.size):
                yield batch
                batch, total = [], 0
            batch.append(number)
            total += size
        if batch:
            yield batch


class Transport(t.Protocol):
    """A kind of queue. Every method may be called from any thread.

    A transport connects on first use, anew in every forked process, and makes queues
    that do not exist yet. Methods that take several entries batch them as the queue
    needs it and return one :data:`Outcome` each, also when nothing could be reached.
    """

    #: Seconds that one call to :meth:`receive` waits, at most.
    longest_wait: float
    #: How many messages a receiver asks for while it waits: one where asking again
    #: costs little, more where each call is paid for.
    waiting_limit: int
    #: What one call of :meth:`send` takes; more becomes several.
    send_limits: SendLimits
    #: Seconds that a send waits for a connection, and again for an answer.
    answer_within: float
    #: Seconds of work that are fetched beyond what free threads can begin: none where
    #: a message is fetched in no time.
    prefetch: float

    @property
    def dead_letters(self) -> DeadLetterQueues:
        """What can be done with dead letters."""

    def declare(self, queue: str) -> None:
        """Make *queue* and its dead-letter queue unless they exist.

        :raises Exception: The queue's server refused, or cannot be reached.
        """

    def owner_problem(self, queue: str) -> str | None:
        """Return why *queue* is another deployment's, if it says so itself.

        :raises Exception: That is not known: the queue's server, or the state server,
            does not say.
        """

    def name(self, queue: str) -> str:
        """Return the name that the queue's server has for *queue*."""

    def visibility(self, queue: str) -> float:
        """Return how many seconds a message received from *queue* is hidden."""

    def max_receives(self, queue: str) -> int:
        """Return how often a message of *queue* is received before it is a letter."""

    def is_ordered(self, queue: str) -> bool:
        """Return whether messages of one group are received in their order.

        The next one is received only when that before it is deleted. None of them can
        be delayed.
        """

    def send(
        self, queue: str, bodies: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        """Send messages, not to be received within the next *delay* seconds.

        Nothing is sent again here. A server that does not answer is waited for no
        longer than the transport was made to.
        """

    def problem(self, body: str) -> Exception | None:
        """Return why *body* is never taken, as far as is known without asking."""

    def is_transient(self, error: Exception) -> bool:
        """Return whether what failed to be sent with *error* may be taken later."""

    def receive(self, queue: str, limit: int, wait: float) -> list[Received]:
        """Receive up to *limit* messages, waiting up to *wait* seconds for the first.

        A message received more than the maximum goes to the dead-letter queue instead.

        :raises dramatiq.errors.ConnectionClosed: The queue cannot be reached, or
            asked for fewer calls.
        """

    def delete(self, queue: str, receipts: t.Sequence[str]) -> list[Outcome]:
        """Delete messages. One that is gone already counts as deleted."""

    def extend(
        self, queue: str, receipts: t.Sequence[str], seconds: float
    ) -> list[Outcome]:
        """Hide messages in hand for *seconds* from now."""

    def release(
        self, queue: str, receipts: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        """Give messages back, to be received again after *delay* seconds."""

    def dead_letter(self, queue: str, received: Received, reason: str) -> None:
        """Move a message to the dead-letter queue, with the reason beside it.

        :raises ReceiptLost: Another consumer has it.
        """

    def send_dead(
        self, queue: str, body: str | bytes, reason: str, *, receives: int = 0
    ) -> None:
        """Put a message that was not received from *queue* into its dead letters.

        :param receives: How often it was tried, wherever that was.
        :raises Exception: The queue's server refused, or cannot be reached. Whether it
            took the message is then not known; a second letter is harmless.
        """

    def counts(self, queue: str) -> QueueCounts:
        """Return how many messages there are in which state."""

    def check(self, queue: str) -> QueueCounts:
        """Return the same, where messages can be sent: a replica tells, and takes none.

        :raises Exception: They cannot.
        """

    def close(self) -> None:
        """Close this process's connections. A later call opens new ones."""


def bad_delay(delay: float) -> ValueError | None:
    """Return an error unless messages can be delayed for *delay* seconds."""
    if 0 <= delay <= MAX_DELAY:
        return None
    return ValueError(f"a delay of {delay} s is not between 0 and {MAX_DELAY:.0f}")


def connection_closed(error: Exception) -> ConnectionClosed:
    """Return *error* as the one that Dramatiq knows for a queue out of reach."""
    return ConnectionClosed(str(error))  # type: ignore[no-untyped-call]
