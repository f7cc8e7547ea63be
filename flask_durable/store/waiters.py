"""Waits for events, in the home of the event's name, and the events that they look for.

::

    step ──► waiter_add ──► waiting ─────────────┐
                 │ an event that came before     ▼
                 └──────────────────────────► run_wake ──► the step's memo
                                                 ▲
    router ──► event_deliver ──► waits ──────────┘ ──► waiters_remove

The home of a name is the partition that the name is hashed onto. A run lives in another
one, so a wait and an event meet in the home first: whichever comes second finds the
other. Then the event is given to the run, which decides if it can use it.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from .keys import Keys
from .replies import Taken
from .replies import UnknownReply
from .replies import Woken
from .server import Call
from .server import StateServer

#: Milliseconds that are added to the time until which a learned name is known, so that
#: not each wait has to prolong it.
LEARNED_FOR = 30 * 86400 * 1000

#: Events that one look at those without a digest returns.
UNSORTED_PAGE = 20


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wait is registered, and *ends* then. Events before *known* are not known."""

    ends: int
    known: int


class RecentEvent(t.NamedTuple):
    """An event that was seen before the wait.

    :param seen: The time when it was seen first, milliseconds since 1970.
    :param text: The event message, as the queue had it.
    """

    id: str
    seen: int
    text: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """Events that fit and came before; the next look begins after the stamp *next*."""

    events: list[RecentEvent] = field(repr=False)
    next: str
    known: int


@dataclass(frozen=True, slots=True)
class Unsorted:
    """The caller looks by itself at the events up to *stamp*, and comes back."""

    stamp: str
    known: int


@dataclass(frozen=True, slots=True)
class TooManyPaths:
    """Waits for this name compare too many sets of paths."""


@dataclass(frozen=True, slots=True)
class Later:
    """The event is kept until its time has come."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Waits compare these *sets* of paths: the caller computes their digests."""

    sets: tuple[str, ...]


class Wait(t.NamedTuple):
    """A registered wait that an event fits.

    :param stamp: The place among the waits for the name.
    :param ends: The end of the wait, milliseconds since 1970.
    :param payload: The payload of the step's memo.
    """

    run: str
    step: str
    stamp: str
    ends: str
    payload: str


@dataclass(frozen=True, slots=True)
class Waits:
    """The waits that an event fits; if *next* is set, it and *limit* ask for more."""

    seen: int
    next: str
    limit: str
    found: list[Wait] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The event is not the answer.

    :param waits: True if the step still waits, for another event.
    """

    waits: bool


Registration = Waiting | Candidates | Unsorted | TooManyPaths
Delivered = Later | Paths | Waits
Wake = Woken | Taken | NotTaken


class Waiters:
    """The waits and recent events of one namespace.

    :param look_back: Seconds that events are kept.
    :param size: Bytes that are kept of the events of one name.
    """

    def __init__(
        self, server: StateServer, keys: Keys, *, look_back: float, size: int
    ) -> None:
        self._server = server
        self._keys = keys
        self._look_back = round(look_back * 1000)
        self._size = size

    @property
    def look_back(self) -> int:
        """Milliseconds that events are kept."""
        return self._look_back

    def add(
        self,
        name: str,
        run_id: str,
        step: str,
        ends: str,
        payload: str,
        *,
        paths: str,
        digest: str,
        created: int,
        after: str,
        learned: bool,
    ) -> Registration:
        """Have a step wait for events called *name*, see ``waiter_add.lua``.

        :param ends: The end of the wait, from :func:`~.run_store.after` or
            :func:`~.run_store.at`.
        :param payload: The payload of the step's memo.
        :param paths: The paths that are compared, as JSON text; empty for any event.
        :param digest: The digest of the values at these paths; empty for any event.
        :param created: The time when the run was created, milliseconds since 1970.
        :param after: The stamp up to which events have been looked at, ``"0"`` at
            first.
        :param learned: True if no function declares that it awaits the name.
        """
        reply = self._server.call(
            "waiter_add",
            self._keys.tag_of_event(name),
            name,
            run_id,
            step,
            paths,
            digest,
            created,
            after,
            ends,
            payload,
            self._look_back,
            "1" if learned else "",
        )
        match reply:
            case ["waiting", ends, known]:
                return Waiting(int(ends), int(known))
            case ["events", next, known, *found]:
                return Candidates(_recent(found), next, int(known))
            case ["unsorted", stamp, known]:
                return Unsorted(stamp, int(known))
            case ["full"]:
                return TooManyPaths()
        raise UnknownReply("waiter_add", reply)

    def unsorted(
        self, name: str, created: int, after: str, stamp: str
    ) -> tuple[list[RecentEvent], str]:
        """Return the events after a stamp and up to another one, whatever is in them.

        :param created: The time before which events do not count, milliseconds.
        :returns: The oldest of them, and the stamp to go on after; empty at the end.
        """
        tag, client = self._keys.tag_of_event(name), self._server.client
        lowest = f"({after}" if int(after) >= created * 1000 else str(created * 1000)
        found = t.cast(
            "list[tuple[str, float]]",
            client.zrangebyscore(
                f"{tag}:recent:{name}|",
                lowest,
                stamp,
                start=0,
                num=UNSORTED_PAGE,
                withscores=True,
            ),
        )
        if not found:
            return [], ""
        entries = t.cast(
            "list[str | None]",
            client.hmget(f"{tag}:recent:{name}", [id for id, _ in found]),
        )
        events = [
            RecentEvent(id, int(score) // 1000, entry.partition("\n")[2])
            for (id, score), entry in zip(found, entries, strict=True)
            if entry is not None
        ]
        more = len(found) == UNSORTED_PAGE
        return events, str(int(found[-1][1])) if more else ""

    def deliver(
        self,
        name: str,
        event_id: str,
        text: str,
        *,
        due: int,
        is_due: bool = False,
        paths: t.Sequence[str] = (),
        digests: t.Sequence[str] = (),
        after: str = "0",
        limit: str = "",
    ) -> Delivered:
        """Take an event into its name's home, see ``event_deliver.lua``.

        :param due: The time before which it does not count, milliseconds since 1970; 0
            for none.
        :param is_due: True if a sweep found that this time has come.
        :param paths: The sets of paths that *digests* were computed for.
        """
        reply = self._server.call(
            "event_deliver",
            self._keys.tag_of_event(name),
            name,
            event_id,
            text,
            due,
            "1" if is_due else "",
            self._look_back,
            self._size,
            after,
            limit,
            len(paths),
            *paths,
            *digests,
        )
        match reply:
            case ["later"]:
                return Later()
            case ["paths", *sets]:
                return Paths(tuple(sets))
            case ["waits", seen, next, limit, *found]:
                return Waits(int(seen), next, limit, [Wait(*wait) for wait in found])
        raise UnknownReply("event_deliver", reply)

    def wake(self, name: str, wait: Wait, event_id: str, seen: int, text: str) -> Wake:
        """Give an event to a step that waits for it, see ``run_wake.lua``.

        :param name: The name of the event.
        """
        script, tag, args = self._wake(name, wait, event_id, seen, text)
        return _wake_of(self._server.call(script, tag, *args))

    def wake_all(
        self, name: str, waits: t.Sequence[Wait], event_id: str, seen: int, text: str
    ) -> list[Wake | Exception]:
        """Give an event to several steps; an error stands in its answer's place."""
        calls = [self._wake(name, wait, event_id, seen, text) for wait in waits]
        return [
            reply if isinstance(reply, Exception) else _wake_of(reply)
            for reply in self._server.call_many(calls)
        ]

    def _wake(self, name: str, wait: Wait, event_id: str, seen: int, text: str) -> Call:
        tag = self._keys.tag_of(wait.run)
        args = (wait.run, wait.step, event_id, seen, wait.ends, wait.payload, text)
        return "run_wake", tag, (*args, name)

    def remove(self, name: str, waits: t.Iterable[Wait], *, came: str = "") -> None:
        """Remove waits that have their answer.

        :param came: The id of an event whose time has come and that was delivered.
        """
        named = [part for wait in waits for part in (wait.run, wait.step, wait.stamp)]
        if named or came:
            tag = self._keys.tag_of_event(name)
            self._server.call("waiters_remove", tag, name, came, *named)

    def coming(self, name: str, event_id: str) -> str | None:
        """Return the text of an event that is kept until its time has come."""
        tag = self._keys.tag_of_event(name)
        text = self._server.client.hget(f"{tag}:coming", f"{name} {event_id}")
        return t.cast("str | None", text)

    def learn(self, name: str, until: int) -> bool:
        """Have the directory know that events called *name* are awaited.

        :param until: The time until which they are, milliseconds since 1970.
        :returns: False if too many names are known.
        """
        tag = self._keys.root
        reply = self._server.call("awaited_learn", tag, name, until + LEARNED_FOR)
        match reply:
            case ["learned"]:
                return True
            case ["full"]:
                return False
        raise UnknownReply("awaited_learn", reply)

    def cut_off(self, names: t.Iterable[str]) -> dict[str, int]:
        """Return the number of events that the bound in bytes cut off, by name.

        Names without any are left out.
        """
        wanted = sorted(names)
        pipeline = self._server.client.pipeline(transaction=False)
        for name in wanted:
            pipeline.hget(f"{self._keys.tag_of_event(name)}:kept:{name}", "cut")
        counts = pipeline.execute() if wanted else []
        return {n: int(c) for n, c in zip(wanted, counts, strict=True) if c}


def _recent(found: t.Iterable[t.Sequence[str]]) -> list[RecentEvent]:
    return [RecentEvent(id, int(seen), text) for id, seen, text in found]


def _wake_of(reply: t.Any) -> Wake:
    match reply:
        case ["queued", time, function, queue]:
            return Woken(int(time), function, queue)
        case ["taken"]:
            return Taken()
        case ["used" | "own" | "abandoned"]:
            return NotTaken(waits=True)
        case ["settled" | "late"]:
            return NotTaken(waits=False)
    raise UnknownReply("run_wake", reply)
