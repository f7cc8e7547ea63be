"""Choosing dead letters by queue, event, function and time."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from ..common.durations import Duration
from ..common.durations import to_seconds
from .model import DeadLetter
from .model import Pair


class DeadLetterFilter(t.TypedDict, total=False):
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


class Selection:
    """Matches letters with a filter, and tracks the ids that are missing."""

    def __init__(self, which: DeadLetterFilter) -> None:
        if unknown := which.keys() - DeadLetterFilter.__annotations__.keys():
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

    def of(self, pairs: t.Sequence[Pair]) -> list[Pair]:
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


def _queues_of(queue: str | None, ids: t.Collection[str] | None) -> list[str] | None:
    """Return the queues that a filter names; ``None`` if any queue may match."""
    if ids is None:
        return None if queue is None else [queue]
    named = {id.rpartition("/")[0] for id in ids} - {""}
    return sorted(named if queue is None else named & {queue})
