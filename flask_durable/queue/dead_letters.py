"""The dead letters of a queue of any kind: looked through, moved back, deleted.

::

    in its queue ──► dead letter      undecodable, unfit, or received too often
    dead letter  ──► in its queue     moved back: a new message, received never
    dead letter  ──► none             deleted, or kept for its 14 days

A *look* goes once through the letters that existed when it began. A letter that is
moved back and dies again during the look is not met a second time, so the look ends. A
letter is removed only after, or together with, its effect: a death on the way leaves a
letter, or a letter and its message, never neither.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..errors import UnavailableError

if t.TYPE_CHECKING:
    from .transport import Outcome


@dataclass(frozen=True)
class Letter:
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


class Look(t.Protocol):
    """One look through the dead letters of one queue, by one thread.

    Letters that were returned are hidden from other looks where the queue can do that,
    until they are moved or deleted, or the look is closed.
    """

    #: True once :meth:`next` returned nothing, if all letters were returned.
    complete: bool

    def next(self, limit: int) -> list[Letter]:
        """Return up to *limit* further letters; nothing when there are no more.

        :raises UnavailableError: The queue cannot be read.
        """

    def move_back(self, letters: t.Sequence[Letter]) -> list[Outcome]:
        """Put letters of this look back into their queue, as new messages."""

    def delete(self, letters: t.Sequence[Letter]) -> list[Outcome]:
        """Delete letters of this look."""

    def close(self) -> None:
        """Show letters to others again that were only looked at."""


class DeadLetterQueues(t.Protocol):
    """The dead-letter queues of a transport. Asking for one does not make it."""

    def count(self, queue: str) -> int:
        """Return the number of dead letters of *queue*; approximate on SQS, and late.

        :raises UnavailableError: The queue cannot be asked.
        """

    def look(self, queue: str, hold: float) -> Look:
        """Begin a look through the dead letters of *queue*.

        :param hold: Seconds that a letter stays hidden if this process dies, where
            looking at a letter hides it.
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
