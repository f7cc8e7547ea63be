"""Dead letters as the application sees them: ``durable.dead_letters``."""

from __future__ import annotations

import builtins
import contextlib
import math
import time
import typing as t
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from .common.durations import Duration
from .common.durations import to_seconds
from .common.interruption import shielded
from .errors import DeadLetterNotFound
from .messages import decode
from .messages import EventMessage
from .messages import Message
from .messages import UndecodableMessage

if t.TYPE_CHECKING:
    from .queue.transport import DeadLetterQueues
    from .queue.transport import Letter
    from .queue.transport import Look
    from .queue.transport import Outcome
    from .store.message_failures import MessageFailure
    from .store.message_failures import MessageFailures

#: Most letters that one step of a walk reads.
BATCH = 100

#: Seconds that a letter under inspection stays hidden if this process dies (SQS).
HOLD = 60.0

Progress = t.Callable[[int], object]

#: A letter as its queue has it, and as the application sees it.
_Pair = tuple["Letter", "DeadLetter"]


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be processed.

    :param id: The letter's id for as long as it is kept: its queue, a slash, and the
        queue's own id.
    :param queue: The queue that it died in.
    :param reason: The reason why it died.
    :param receives: The receive count before it died.
    :param sent: The moment it was sent.
    :param first_received: The moment of its first receive, if the queue tells (SQS).
    :param dead: The moment it died, if the queue tells.
    :param body: The message, as text.
    :param event: The name of the event in it; ``None`` for a message of another kind.
    :param event_id: The event's id.
    :param run: The run that it is about; ``None`` if it is about none.
    :param function: The run's function.
    :param error: The last error of its processing, if that is known.
    """

    id: str
    queue: str
    reason: str
    receives: int
    sent: datetime
    first_received: datetime | None
    dead: datetime | None
    body: str
    event: str | None = None
    event_id: str | None = None
    run: str | None = None
    function: str | None = None
    error: str | None = None


class Which(t.TypedDict, total=False):
    """A filter of dead letters: a letter has to match every key that is given.

    ``queue``
        The queue that they died in.
    ``ids``
        Their ids; none match if it is empty.
    ``event``
        The name of the event.
    ``function``, ``run``
        The id of the function or the run that a run message is about.
    ``reason``
        A text in the reason or the last error; upper or lower case does not matter.
    ``older_than``
        The least time since they died, such as ``"2h"``.
    """

    queue: str | None
    ids: t.Collection[str] | None
    event: str | None
    function: str | None
    run: str | None
    reason: str | None
    older_than: Duration | None


@dataclass
class Handled:
    """The outcome of moving dead letters back, or of deleting them.

    :param done: The number of letters moved or deleted; approximate if all of an SQS
        queue were deleted.
    :param failed: The number of letters that failed, and are still there.
    :param error: The error of the last of those.
    :param complete: True if all letters were looked at. One look at an SQS queue ends
        at 10,000 letters that do not match, and at ten of a group of a FIFO queue.
    """

    done: int = 0
    failed: int = 0
    error: str | None = None
    complete: bool = True

    def add(self, outcomes: t.Sequence[Outcome]) -> None:
        """Count further letters."""
        errors = [outcome for outcome in outcomes if outcome is not None]
        self.done += len(outcomes) - len(errors)
        self.failed += len(errors)
        if errors:
            self.error = f"{type(errors[-1]).__name__}: {errors[-1]}"


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
        self, *, limit: int = 50, **which: t.Unpack[Which]
    ) -> builtins.list[DeadLetter]:
        """Return dead letters. They stay where they are.

        On SQS they are hidden from all other readers while this reads them.

        :param limit: The most letters to return.
        :param which: The filter, see :class:`Which`; by default all.
        :raises UnavailableError: A queue cannot be read.
        """
        wanted = _Wanted(which)
        found: builtins.list[DeadLetter] = []
        for queue in self._asked(wanted):
            with self._looking(queue) as look:
                for letters in _pages(look):
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
        **which: t.Unpack[Which],
    ) -> Handled:
        """Move dead letters back into their queues, with a receive count of zero.

        A letter that dies again while this goes on is not met a second time. If the
        process dies, a letter may be in both places (SQS). That is harmless: an event
        starts each function once, and a run message only says that a run is ready.

        :param rate: The most messages a second.
        :param limit: The most letters to move.
        :param progress: A callable that gets the number of letters looked at since its
            last call.
        :param which: The filter, see :class:`Which`; by default all.
        :raises DeadLetterNotFound: Some of ``ids`` are not there; others were moved.
        :raises UnavailableError: A queue cannot be read.
        """
        work = _Work(_move_back, _Wanted(which), _Pace(rate), limit, progress)
        for queue in self._asked(work.wanted):
            self._walk(queue, work)
        return work.end()

    def purge(
        self, *, progress: Progress | None = None, **which: t.Unpack[Which]
    ) -> Handled:
        """Delete dead letters for good.

        :param progress: A callable that gets the number of letters looked at since its
            last call.
        :param which: The filter, see :class:`Which`; by default all.
        :raises DeadLetterNotFound: Some of ``ids`` are not there; others were deleted.
        :raises UnavailableError: A queue cannot be read.
        """
        work = _Work(_delete, _Wanted(which), _Pace(None), None, progress)
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
        with self._looking(queue) as look:
            for letters in _pages(look, work.next_size):
                pairs = self._opened(queue, letters)
                chosen = [letter for letter, _ in work.wanted.of(pairs)]
                work.do(look, chosen[: work.left])
                work.tell(len(letters))
                if work.finished:
                    return
            work.handled.complete &= look.complete

    def _opened(self, queue: str, letters: t.Sequence[Letter]) -> builtins.list[_Pair]:
        """Return *letters* as their queue has them and as the application sees them."""
        messages = [_decoded(letter.body) for letter in letters]
        with shielded():
            found = self._failures.of({m.key for m in messages if m is not None})
        return [
            (letter, _dead_letter(queue, letter, message, found))
            for letter, message in zip(letters, messages, strict=True)
        ]

    def _asked(self, wanted: _Wanted) -> t.Sequence[str]:
        """Return the queues to look into."""
        if wanted.queues is not None:
            return wanted.queues
        with shielded():
            return self._names()

    @contextlib.contextmanager
    def _looking(self, queue: str) -> t.Iterator[Look]:
        with shielded():
            look = self._queues.look(queue, HOLD)
        try:
            yield look
        finally:
            with shielded():
                look.close()


class _Wanted:
    """Matches letters with a filter, and tracks the ids that are missing."""

    def __init__(self, which: Which) -> None:
        if unknown := which.keys() - Which.__annotations__.keys():
            raise TypeError(f"unexpected {', '.join(sorted(unknown))}")
        given = {name: value for name, value in which.items() if value is not None}
        #: True if every letter of its queues matches.
        self.everything = not given.keys() - {"queue"}
        ids = which.get("ids")
        if isinstance(ids, str):
            raise TypeError("ids is a list of ids, not text")
        self.missing = None if ids is None else set(ids)
        self._ids = None if ids is None else frozenset(ids)
        self.queues = _queues_of(which.get("queue"), ids)
        self._same = {
            name: given[name] for name in ("event", "function", "run") if name in given
        }
        self._reason = str(given.get("reason", "")).casefold()
        self._before: datetime | None = None
        if (age := which.get("older_than")) is not None:
            now = datetime.now(timezone.utc)
            self._before = now - timedelta(seconds=to_seconds(age))

    @property
    def found_all(self) -> bool:
        """True if there is nothing left to look for."""
        return self.missing is not None and not self.missing

    def of(self, pairs: t.Sequence[_Pair]) -> builtins.list[_Pair]:
        """Return the pairs that match."""
        chosen = [pair for pair in pairs if self._fits(pair[1])]
        if self.missing is not None:
            self.missing -= {letter.id for _, letter in chosen}
        return chosen

    def _fits(self, letter: DeadLetter) -> bool:
        return (
            (self._ids is None or letter.id in self._ids)
            and all(getattr(letter, name) == it for name, it in self._same.items())
            and self._reason in f"{letter.reason}\n{letter.error}".casefold()
            and (self._before is None or (letter.dead or letter.sent) <= self._before)
        )


@dataclass
class _Work:
    """A move or a deletion of all matching letters."""

    act: t.Callable[[Look, t.Sequence[Letter]], list[Outcome]]
    wanted: _Wanted
    pace: _Pace
    limit: int | None
    progress: Progress | None
    handled: Handled = field(default_factory=Handled)
    stuck: bool = False

    @property
    def left(self) -> int:
        """The number of letters that may still be handled."""
        return BATCH if self.limit is None else self.limit - self.handled.done

    @property
    def finished(self) -> bool:
        return self.stuck or self.left <= 0 or self.wanted.found_all

    def next_size(self) -> int:
        """Wait for the next moment; return the number of letters it is for."""
        self.pace.wait()
        return self.pace.size

    def do(self, look: Look, letters: t.Sequence[Letter]) -> None:
        if not letters:
            return
        with shielded():
            outcomes = self.act(look, letters)
        self.pace.spend(len(letters))
        self.handled.add(outcomes)
        # If all of a batch failed, thousands of further calls would fail too.
        self.stuck = None not in outcomes

    def tell(self, looked: int) -> None:
        if self.progress is not None:
            self.progress(looked)

    def end(self) -> Handled:
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
        self.size = BATCH if rate is None else max(1, min(BATCH, math.floor(rate)))

    def wait(self) -> None:
        """Wait until the next letters may go."""
        if (early := self._next - time.monotonic()) > 0:
            time.sleep(early)

    def spend(self, count: int) -> None:
        """Note that *count* letters go now."""
        if self._rate is not None:
            self._next = max(self._next, time.monotonic()) + count / self._rate


def _move_back(look: Look, letters: t.Sequence[Letter]) -> list[Outcome]:
    return look.move_back(letters)


def _delete(look: Look, letters: t.Sequence[Letter]) -> list[Outcome]:
    return look.delete(letters)


def _pages(
    look: Look, size: t.Callable[[], int] = lambda: BATCH
) -> t.Iterator[list[Letter]]:
    """Go through *look*, up to *size* letters at a time."""
    while True:
        limit = size()
        with shielded():
            letters = look.next(limit)
        if not letters:
            return
        yield letters


def _dead_letter(
    queue: str,
    letter: Letter,
    message: Message | None,
    failures: t.Mapping[str, MessageFailure],
) -> DeadLetter:
    failure = failures.get(message.key) if message is not None else None
    if failure is not None and failure.at < letter.sent:
        failure = None  # that of an earlier message about the same thing
    return DeadLetter(
        id=f"{queue}/{letter.id}",
        queue=queue,
        reason=letter.reason,
        receives=letter.receives,
        sent=_moment(letter.sent),
        first_received=_moment_or_none(letter.first_received),
        dead=_moment_or_none(letter.dead),
        body=_text(letter.body),
        error=failure.error if failure is not None else None,
        **_about(message),
    )


def _decoded(body: bytes | str) -> Message | None:
    try:
        return decode(body)
    except UndecodableMessage:
        return None


def _about(message: Message | None) -> dict[str, str]:
    if message is None:
        return {}
    if isinstance(message, EventMessage):
        return {"event": message.name, "event_id": message.id}
    return {"run": message.run, "function": message.function}


def _text(body: bytes | str) -> str:
    return body if isinstance(body, str) else body.decode("utf-8", "backslashreplace")


def _queues_of(
    queue: str | None, ids: t.Collection[str] | None
) -> builtins.list[str] | None:
    """Return the queues that a filter names; ``None`` if any queue may match."""
    if ids is None:
        return None if queue is None else [queue]
    named = {id.rpartition("/")[0] for id in ids} - {""}
    return sorted(named if queue is None else named & {queue})


def _not_found(ids: t.Collection[str]) -> DeadLetterNotFound:
    return DeadLetterNotFound(
        f"There is no dead letter {', '.join(map(repr, sorted(ids)))}.",
        hint="It was moved back or deleted, or its 14 days are over. A letter that was "
        "moved back and died again has another id.",
    )


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def _moment_or_none(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _moment(milliseconds)
