"""Dead letters as the application sees them: ``durable.dead_letters``."""

from __future__ import annotations

import builtins
import contextlib
import math
import time
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..common.interruption import shielded
from ..errors import DeadLetterNotFound
from .model import dead_letter_of
from .model import DeadLetter
from .model import message_in
from .model import Pair
from .model import RedriveResult
from .selection import DeadLetterFilter
from .selection import Selection

if t.TYPE_CHECKING:
    from ..queue.transport import DeadLetterCursor
    from ..queue.transport import DeadLetterQueues
    from ..queue.transport import Outcome
    from ..queue.transport import StoredLetter
    from ..store.message_failures import MessageFailures


#: The most letters read in one call of the queue.
LETTERS_PER_PAGE = 100

#: Seconds that a letter that was read stays hidden if this process dies (SQS).
LETTER_HOLD_SECONDS = 60.0

Progress = t.Callable[[int], object]


class DeadLetters:
    """Finds dead letters, moves them back and deletes them, for one app.

    Letters come the oldest first; on SQS in no order.

    :param queues: The dead-letter queues of the transport.
    :param failures: The stored errors of messages.
    :param names: A callable that returns the names of all queues that the app uses.
    """

    def __init__(
        self,
        queues: DeadLetterQueues,
        failures: MessageFailures,
        names: t.Callable[[], t.Sequence[str]],
    ) -> None:
        self._queues = queues
        self._failures = failures
        self._names = names

    def counts(self) -> dict[str, int]:
        """Return the number of dead letters of each queue of the app.

        SQS counts approximately, and late.

        :raises UnavailableError: A queue does not answer.
        """
        with shielded():
            return {queue: self._queues.count(queue) for queue in self._names()}

    def count(self, queue: str | None = None) -> int:
        """Return the number of dead letters of *queue*, or of all queues together.

        :raises UnavailableError: A queue does not answer.
        """
        if queue is None:
            return sum(self.counts().values())
        with shielded():
            return self._queues.count(queue)

    def list(
        self, *, limit: int = 50, **which: t.Unpack[DeadLetterFilter]
    ) -> builtins.list[DeadLetter]:
        """Return dead letters. They stay where they are.

        On SQS they are hidden from all other readers while this reads them.

        :param limit: The most letters to return.
        :param which: The filter, see :class:`DeadLetterFilter`; by default all.
        :raises UnavailableError: A queue cannot be read.
        """
        wanted = Selection(which)
        found: builtins.list[DeadLetter] = []
        for queue in self._asked(wanted):
            with self._cursor(queue) as cursor:
                for letters in _pages(cursor):
                    pairs = self._opened(queue, letters)
                    found += [letter for _, letter in wanted.of(pairs)]
                    if len(found) >= limit or wanted.found_all:
                        return found[:limit]
        return found

    def get(self, id: str) -> DeadLetter:
        """Return the dead letter *id*.

        :raises DeadLetterNotFound: There is no such letter.
        :raises UnavailableError: The letter's queue cannot be read.
        """
        for letter in self.list(ids=[id], limit=1):
            return letter
        raise _not_found({id})

    def redrive(
        self,
        *,
        rate: float | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
        **which: t.Unpack[DeadLetterFilter],
    ) -> RedriveResult:
        """Move dead letters back into their queues, with a receive count of zero.

        A letter that dies again while this goes on is not met a second time. If the
        process dies, a letter may be in both places (SQS). That is harmless: an event
        starts each function once, and a run message only says that a run is ready.

        :param rate: The most messages a second.
        :param limit: The most letters to move.
        :param progress: A callable that gets the number of letters looked at since its
            last call.
        :param which: The filter, see :class:`DeadLetterFilter`; by default all.
        :raises DeadLetterNotFound: Some of ``ids`` are not there; others were moved.
        :raises UnavailableError: A queue cannot be read.
        """
        work = _Work(_move_back, Selection(which), _Pace(rate), limit, progress)
        for queue in self._asked(work.wanted):
            self._walk(queue, work)
        return work.end()

    def purge(
        self, *, progress: Progress | None = None, **which: t.Unpack[DeadLetterFilter]
    ) -> RedriveResult:
        """Delete dead letters for good.

        :param progress: A callable that gets the number of letters looked at since its
            last call.
        :param which: The filter, see :class:`DeadLetterFilter`; by default all.
        :raises DeadLetterNotFound: Some of ``ids`` are not there; others were deleted.
        :raises UnavailableError: A queue cannot be read.
        """
        work = _Work(_delete, Selection(which), _Pace(None), None, progress)
        for queue in self._asked(work.wanted):
            if work.wanted.everything and (count := self._purge(queue)):
                work.handled.done += count
                work.tell(count)
            else:
                self._walk(queue, work)
        return work.end()

    def _purge(self, queue: str) -> int:
        """Delete all letters in one call, if the queue has one; return their number."""
        with shielded():
            count = self._queues.count(queue)
            return count if count and self._queues.purge(queue) else 0

    def _walk(self, queue: str, work: _Work) -> None:
        if work.finished:
            return
        with self._cursor(queue) as cursor:
            for letters in _pages(cursor, work.next_size):
                pairs = self._opened(queue, letters)
                chosen = [letter for letter, _ in work.wanted.of(pairs)]
                work.do(cursor, chosen[: work.left])
                work.tell(len(letters))
                if work.finished:
                    return
            work.handled.complete &= cursor.complete

    def _opened(
        self, queue: str, letters: t.Sequence[StoredLetter]
    ) -> builtins.list[Pair]:
        """Return *letters* as their queue has them and as the application sees them."""
        messages = [message_in(letter.body) for letter in letters]
        with shielded():
            found = self._failures.of({m.key for m in messages if m is not None})
        return [
            (letter, dead_letter_of(queue, letter, message, found))
            for letter, message in zip(letters, messages, strict=True)
        ]

    def _asked(self, wanted: Selection) -> t.Sequence[str]:
        """Return the queues to look into."""
        if wanted.queues is not None:
            return wanted.queues
        with shielded():
            return self._names()

    @contextlib.contextmanager
    def _cursor(self, queue: str) -> t.Iterator[DeadLetterCursor]:
        with shielded():
            cursor = self._queues.open_cursor(queue, LETTER_HOLD_SECONDS)
        try:
            yield cursor
        finally:
            with shielded():
                cursor.close()


@dataclass
class _Work:
    """A move or a deletion of all matching letters."""

    act: t.Callable[[DeadLetterCursor, t.Sequence[StoredLetter]], list[Outcome]]
    wanted: Selection
    pace: _Pace
    limit: int | None
    progress: Progress | None
    handled: RedriveResult = field(default_factory=RedriveResult)
    stuck: bool = False

    @property
    def left(self) -> int:
        """The number of letters that may still be handled."""
        return (
            LETTERS_PER_PAGE if self.limit is None else self.limit - self.handled.done
        )

    @property
    def finished(self) -> bool:
        return self.stuck or self.left <= 0 or self.wanted.found_all

    def next_size(self) -> int:
        """Wait for the next moment; return the number of letters it is for."""
        self.pace.wait()
        return self.pace.size

    def do(self, cursor: DeadLetterCursor, letters: t.Sequence[StoredLetter]) -> None:
        if not letters:
            return
        with shielded():
            outcomes = self.act(cursor, letters)
        self.pace.spend(len(letters))
        self.handled.add(outcomes)
        # If all of a batch failed, thousands of further calls would fail too.
        self.stuck = None not in outcomes

    def tell(self, looked: int) -> None:
        if self.progress is not None:
            self.progress(looked)

    def end(self) -> RedriveResult:
        """Return the outcome.

        :raises DeadLetterNotFound: A letter that was named was not found.
        """
        if self.wanted.missing and not self.stuck:
            raise _not_found(self.wanted.missing)
        return self.handled


class _Pace:
    """Limits the letters a second, and lets a second's worth go at a time."""

    def __init__(self, rate: float | None) -> None:
        if rate is not None and rate <= 0:
            raise ValueError(f"a rate of {rate} a second would never end")
        self._rate = rate
        self._next = time.monotonic()
        self.size = (
            LETTERS_PER_PAGE
            if rate is None
            else max(1, min(LETTERS_PER_PAGE, math.floor(rate)))
        )

    def wait(self) -> None:
        """Wait until the next letters may go."""
        if (early := self._next - time.monotonic()) > 0:
            time.sleep(early)

    def spend(self, count: int) -> None:
        """Note that *count* letters go now."""
        if self._rate is not None:
            self._next = max(self._next, time.monotonic()) + count / self._rate


def _move_back(
    cursor: DeadLetterCursor, letters: t.Sequence[StoredLetter]
) -> list[Outcome]:
    return cursor.move_back(letters)


def _delete(
    cursor: DeadLetterCursor, letters: t.Sequence[StoredLetter]
) -> list[Outcome]:
    return cursor.delete(letters)


def _pages(
    cursor: DeadLetterCursor, size: t.Callable[[], int] = lambda: LETTERS_PER_PAGE
) -> t.Iterator[list[StoredLetter]]:
    """Go through *cursor*, up to *size* letters at a time."""
    while True:
        limit = size()
        with shielded():
            letters = cursor.next(limit)
        if not letters:
            return
        yield letters


def _not_found(ids: t.Collection[str]) -> DeadLetterNotFound:
    return DeadLetterNotFound(
        f"There is no dead letter {', '.join(map(repr, sorted(ids)))}.",
        hint="It was moved back or deleted, or its 14 days are over. A letter that was "
        "moved back and died again has another id.",
    )
