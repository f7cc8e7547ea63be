"""The operations of a queue, of whatever kind it is.

A received message is hidden from all other consumers for the visibility timeout. Then
it comes back, with a higher receive count, unless its receipt was used to delete,
extend, release or dead-letter it. Delivery is at least once and in no promised order.

Dead letters can be looked through, moved back and deleted.

::

    in its queue ──► dead letter      undecodable, unfit, or received too often
    dead letter  ──► in its queue     moved back: a new message, received never
    dead letter  ──► none             deleted, or kept for its 14 days

A *cursor* goes once through the letters that existed when it was opened. A letter that
is moved back and dies again is not met a second time, so the cursor comes to an end. A
letter is removed only after, or together with, its effect: a death on the way leaves a
letter, or a letter and its message, never neither.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..common.redelivery import MAX_DELAY
from ..errors import UnavailableError

#: The number of receives after which a message goes to the dead-letter queue instead.
MAX_RECEIVES = 10

#: Seconds that a send waits for the queue's server, by default.
SEND_ANSWER_SECONDS = 2.0

#: The outcome of one entry of a call: ``None`` if it was done, otherwise the error.
Outcome = Exception | None


class QueueAway(Exception):
    """The queue cannot be reached now. Receiving is tried again."""


class ReceiptLost(Exception):
    """Raised for a message that is no longer ours: it was visible, and may be taken."""


@dataclass(frozen=True)
class Received:
    """A message in flight, as its queue gave it.

    :param body: The text as it was sent; bytes where a queue does not promise text.
    :param receipt: The proof of this one receive, and of its receiver.
    :param receive_count: The number of receives, this one included.
    :param sent: The time when it was sent: milliseconds since 1970, the queue's clock.
    """

    body: bytes | str = field(repr=False)
    receipt: str
    receive_count: int
    sent: int


@dataclass(frozen=True)
class QueueCounts:
    """The numbers of messages of a queue; approximate on SQS, where they lag.

    :param waiting: Messages ready to be received.
    :param in_flight: Messages received and neither deleted nor visible again.
    :param delayed: Messages not ready yet.
    :param dead: Messages in the dead-letter queue.
    """

    waiting: int
    in_flight: int
    delayed: int
    dead: int


@dataclass(frozen=True)
class SendLimits:
    """The limits of one call that sends messages.

    :param entries: The most messages.
    :param size: The most bytes of all of them.
    :param coalesced: True if messages of several threads are worth a common call.
    """

    entries: int
    size: int
    coalesced: bool

    def divide(
        self, numbers: t.Iterable[int], sizes: t.Sequence[int]
    ) -> t.Iterator[list[int]]:
        """Divide entries into one list a call; an entry that is too large is alone.

        :param numbers: The entries, as places in *sizes*.
        :param sizes: The bytes of each entry.
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

    A transport connects on first use, and again in each forked process. It makes queues
    that do not exist yet. Methods that take several entries batch them as the queue
    needs it and return one :data:`Outcome` each, also when nothing could be reached.
    """

    #: The longest time that one call to :meth:`receive` waits, in seconds.
    longest_wait: float
    #: The number of messages a receiver asks for while it waits: one where asking again
    #: costs little, more where each call is paid for.
    waiting_limit: int
    #: The limits of one call of :meth:`send`; more messages become several calls.
    send_limits: SendLimits
    #: Seconds that a send waits for a connection, and again for an answer.
    answer_within: float
    #: Seconds of work that are fetched beyond what free threads can begin: none where
    #: a message is fetched in no time.
    prefetch: float

    @property
    def dead_letters(self) -> DeadLetterQueues:
        """The operations on dead letters."""

    def declare(self, queue: str) -> None:
        """Make *queue* and its dead-letter queue unless they exist.

        :raises Exception: The queue's server refused, or cannot be reached.
        """

    def owner_problem(self, queue: str) -> str | None:
        """Return the problem if *queue* is known to be another deployment's.

        :raises Exception: The queue's server, or the state server, does not answer.
        """

    def name(self, queue: str) -> str:
        """Return the name that the queue's server has for *queue*."""

    def visibility(self, queue: str) -> float:
        """Return the seconds that a message received from *queue* is hidden."""

    def max_receives(self, queue: str) -> int:
        """Return the number of receives of a message of *queue* before it is dead."""

    def is_ordered(self, queue: str) -> bool:
        """Return whether messages of one group are received in their order.

        The next message of a group is received only when the one before is deleted.
        None of them can be delayed.
        """

    def send(
        self, queue: str, bodies: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        """Send messages, not to be received within the next *delay* seconds.

        Nothing is sent again here. The wait for a server that does not answer is the
        one that the transport was made with.
        """

    def problem(self, body: str) -> Exception | None:
        """Return the error if *body* is never taken, as far as that is known here."""

    def is_transient(self, error: Exception) -> bool:
        """Return whether a message that failed with *error* may be taken later."""

    def receive(self, queue: str, limit: int, wait: float) -> list[Received]:
        """Receive up to *limit* messages, waiting up to *wait* seconds for the first.

        A message received more than the maximum goes to the dead-letter queue instead.

        :raises QueueAway: The queue cannot be reached, or
            asked for fewer calls.
        """

    def delete(self, queue: str, receipts: t.Sequence[str]) -> list[Outcome]:
        """Delete messages. One that is gone already counts as deleted."""

    def extend(
        self, queue: str, receipts: t.Sequence[str], seconds: float
    ) -> list[Outcome]:
        """Hide messages in flight for *seconds* from now."""

    def release(
        self, queue: str, receipts: t.Sequence[str], delay: float = 0
    ) -> list[Outcome]:
        """Hand messages back, to be received again after *delay* seconds."""

    def dead_letter(self, queue: str, received: Received, reason: str) -> None:
        """Move a message to the dead-letter queue, with the reason beside it.

        :raises ReceiptLost: Another consumer has it.
        """

    def send_dead(
        self, queue: str, body: str | bytes, reason: str, *, receives: int = 0
    ) -> None:
        """Put a message that was not received from *queue* into its dead letters.

        :param receives: The number of tries so far, wherever they were made.
        :raises Exception: The queue's server refused, or cannot be reached. It is not
            known then if it took the message; a second letter is harmless.
        """

    def counts(self, queue: str) -> QueueCounts:
        """Return the numbers of messages by their state."""

    def check(self, queue: str) -> QueueCounts:
        """Return the same, if messages can be sent: a replica answers, and takes none.

        :raises Exception: No message can be sent.
        """

    def close(self) -> None:
        """Close this process's connections. A later call opens new ones."""


def bad_delay(delay: float) -> ValueError | None:
    """Return an error unless messages can be delayed for *delay* seconds."""
    if 0 <= delay <= MAX_DELAY:
        return None
    return ValueError(f"a delay of {delay} s is not between 0 and {MAX_DELAY:.0f}")


@dataclass(frozen=True)
class StoredLetter:
    """A dead letter, as its queue has it. Times are milliseconds since 1970.

    :param id: The id of the letter for as long as it is kept.
    :param body: The text as it was sent; bytes where a queue does not promise text.
    :param reason: The reason why the message is here.
    :param receives: The number of earlier receives; approximate on SQS.
    :param sent: The time when it was sent.
    :param first_received: The time of the first receive, where the queue has it.
    :param dead: The time when it came here, where the queue has it.
    """

    id: str
    body: bytes | str = field(repr=False)
    reason: str
    receives: int
    sent: int
    first_received: int | None = None
    dead: int | None = None


class DeadLetterCursor(t.Protocol):
    """One pass through the dead letters of one queue, by one thread.

    Letters that were returned are hidden from other cursors, where the queue can do
    that, until they are moved or deleted, or the cursor is closed.
    """

    #: True once :meth:`next` returned nothing, if all letters were returned.
    complete: bool

    def next(self, limit: int) -> list[StoredLetter]:
        """Return up to *limit* further letters; nothing when there are no more.

        :raises UnavailableError: The queue cannot be read.
        """

    def move_back(self, letters: t.Sequence[StoredLetter]) -> list[Outcome]:
        """Put letters of this cursor back into their queue, as new messages."""

    def delete(self, letters: t.Sequence[StoredLetter]) -> list[Outcome]:
        """Delete letters of this cursor."""

    def close(self) -> None:
        """Show letters to others again that were only read."""


class DeadLetterQueues(t.Protocol):
    """The dead-letter queues of a transport. Asking for one does not make it."""

    def count(self, queue: str) -> int:
        """Return the number of dead letters of *queue*; approximate on SQS, and late.

        :raises UnavailableError: The queue cannot be asked.
        """

    def open_cursor(self, queue: str, hold: float) -> DeadLetterCursor:
        """Open a cursor over the dead letters of *queue*.

        :param hold: Seconds that a letter stays hidden if this process dies, where
            reading a letter hides it.
        :raises UnavailableError: The queue cannot be read.
        """

    def purge(self, queue: str) -> bool:
        """Delete all dead letters of *queue* in one call, where there is one.

        :returns: ``False`` if there is no such call, or not now: delete one by one.
        :raises UnavailableError: The queue cannot be reached.
        """


@contextlib.contextmanager
def reaching(
    queue: str, errors: type[Exception], hint: str | None = None
) -> t.Iterator[None]:
    """Raise *errors* of the block as :exc:`UnavailableError`, naming the queue."""
    try:
        yield
    except UnavailableError:
        raise
    except errors as error:
        raise UnavailableError(
            f"The dead letters of {queue!r} cannot be reached: {error}", hint=hint
        ) from error
