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

from .durations import Duration
from .durations import to_seconds
from .engine.interruption import shielded
from .errors import DeadLetterNotFound
from .queue.envelope import decode
from .queue.envelope import EventMessage
from .queue.envelope import Message
from .queue.envelope import UndecodableMessage

if t.TYPE_CHECKING:
    from .queue.dead_letters import DeadLetterQueues
    from .queue.dead_letters import Letter
    from .queue.dead_letters import Look
    from .queue.transport import Outcome
    from .store.failures import MessageFailure
    from .store.failures import MessageFailures

#: Letters of one step of a look.
BATCH = 100

#: Seconds that a letter which is looked at stays hidden if this process dies (SQS).
HOLD = 60.0

Progress = t.Callable[[int], object]

#: A letter as its queue has it, and as the application sees it.
_Pair = tuple["Letter", "DeadLetter"]


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be processed.

    :param id: Names it for as long as it is kept: its queue, a slash, and the queue's
        own id.
    :param queue: The queue that it died in.
    :param reason: Why it died.
    :param receives: How often it was received before.
    :param sent: When it was sent.
    :param first_received: When it was received first, if the queue tells (SQS).
    :param dead: When it died, if the queue tells.
    :param body: The message, as text.
    :param event: The name of the event that it is; ``None`` if it is none.
    :param event_id: The event's id.
    :param run: The run that it is about; ``None`` if it is about none.
    :param function: The run's function.
    :param error: Why processing it failed last, if that is known.
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
    """Which dead letters are meant: those that everything given fits.

    ``queue``
        The queue that they died in.
    ``ids``
        Their ids; none if it is empty.
    ``event``
        The name of the event.
    ``function``, ``run``
        The id of the function or the run that a run message is about.
    ``reason``
        Text in the reason or the last error, in whatever case.
    ``older_than``
        How long they have been dead, at least, such as ``"2h"``.
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
    """What became of dead letters that were to be moved back or deleted.

    :param done: How many were; approximate where all of an SQS queue were deleted.
    :param failed: How many were not, and are still there.
    :param error: Why the last of those was not.
    :param complete: Whether all were looked at. One look at an SQS queue ends at
        10,000 letters that do not fit, and at ten of a group of a FIFO queue.
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

    :param queues: Those of the transport.
    :param failures: What is known of why messages failed.
    :param names: Returns the names of all queues that the app uses.
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
        """Return how many dead letters each queue of the app has.

        SQS counts approximately, and late.

        :raises UnavailableError: A queue cannot be asked.
        """
        with shielded():
            return {queue: self._queues.count(queue) for queue in self._names()}

    def count(self, queue: str | None = None) -> int:
        """Return how many dead letters *queue* has, or all queues together.

        :raises UnavailableError: A queue cannot be asked.
        """
        if queue is None:
            return sum(self.counts().values())
        with shielded():
            return self._queues.count(queue)

    def list(
        self, *, limit: int = 50, **which: t.Unpack[Which]
    ) -> builtins.list[DeadLetter]:
        """Return dead letters. They stay where they are.

        On SQS they are hidden from everybody else meanwhile.

        :param limit: How many at most.
        :param which: See :class:`Which`; by default all.
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

        :raises DeadLetterNotFound: There is none.
        :raises UnavailableError: Its queue cannot be read.
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
        """Move dead letters back into their queues, as messages received never.

        What dies again meanwhile is not met a second time. Where the process dies, a
        letter may be in both places (SQS): that is harmless, since an event starts each
        function once, and a run message only says that a run is ready.

        :param rate: Messages a second, at most.
        :param limit: How many at most.
        :param progress: Called with how many letters were looked at since its last
            call.
        :param which: See :class:`Which`; by default all.
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

        :param progress: Called with how many letters were looked at since its last
            call.
        :param which: See :class:`Which`; by default all.
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
        """Delete all letters in one call, where there is one; return how many."""
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
    """Tells which letters are meant, and which of those that were named are missing."""

    def __init__(self, which: Which) -> None:
        if unknown := which.keys() - Which.__annotations__.keys():
            raise TypeError(f"unexpected {', '.join(sorted(unknown))}")
        given = {name: value for name, value in which.items() if value is not None}
        #: Whether every letter of its queues is meant.
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
        """Whether there is nothing left to look for."""
        return self.missing is not None and not self.missing

    def of(self, pairs: t.Sequence[_Pair]) -> builtins.list[_Pair]:
        """Return those that are meant."""
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
    """Something that is done to the letters that are wanted."""

    act: t.Callable[[Look, t.Sequence[Letter]], list[Outcome]]
    wanted: _Wanted
    pace: _Pace
    limit: int | None
    progress: Progress | None
    handled: Handled = field(default_factory=Handled)
    stuck: bool = False

    @property
    def left(self) -> int:
        """How many letters it may be done to yet."""
        return BATCH if self.limit is None else self.limit - self.handled.done

    @property
    def finished(self) -> bool:
        return self.stuck or self.left <= 0 or self.wanted.found_all

    def next_size(self) -> int:
        """Wait for the next moment; return how many letters it is for."""
        self.pace.wait()
        return self.pace.size

    def do(self, look: Look, letters: t.Sequence[Letter]) -> None:
        if not letters:
            return
        with shielded():
            outcomes = self.act(look, letters)
        self.pace.spend(len(letters))
        self.handled.add(outcomes)
        # Where nothing is taken any more, thousands of further calls are not either.
        self.stuck = None not in outcomes

    def tell(self, looked: int) -> None:
        if self.progress is not None:
            self.progress(looked)

    def end(self) -> Handled:
        """Return what was done.

        :raises DeadLetterNotFound: A letter that was named was not met.
        """
        if self.wanted.missing and not self.stuck:
            raise _not_found(self.wanted.missing)
        return self.handled


class _Pace:
    """Lets so many letters a second go, a second's worth at a time."""

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
    """Return the queues that what is wanted is in; ``None`` if it may be in any."""
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
