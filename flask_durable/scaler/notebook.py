"""What the scaler of a pool keeps on the state server between two of its runs.

::

    <root>:scale:<pool>         string  the notes, JSON; written by who has the lock
    <root>:scale:<pool>:lock    string  the token of the scaler that is at it; expires
    <root>:scale:<pool>:hold    string  what a person ordered, JSON; expires
    <root>:scale:<pool>:wanted  string  how many workers a supervisor is to keep
    <root>:scale:<pool>:kept    string  there while a supervisor is alive; expires
    <root>:scale:<pool>:log     stream  each decision, field "record": JSON
    <root>:scale:<pool>:told:…  string  what sources of durations said, JSON; expires

Scalers need no other coordination: one that dies holding the lock delays the next by a
minute, and one that is slower than that writes notes that are at most one run too old.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..ids import new_token
from ..store.keys import Keys
from ..store.server import StateServer
from .policy import Memory

#: Milliseconds after which the lock of a scaler that died is free.
LOCK_TTL = 60_000
#: Milliseconds after which a supervisor that says nothing counts as gone.
SUPERVISOR_TTL = 15_000
#: Milliseconds for which it is kept what sources of durations said.
TOLD_TTL = 25 * 3600 * 1000
#: Seconds for which no platform is asked for more than it said that it gives.
_LIMIT_HOLDS = 600.0
#: Decisions that are kept, roughly.
LOG_LENGTH = 10_000

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True)
class Notes:
    """What one run of the scaler leaves for the next.

    :param memory: Of the policy.
    :param totals: Pairs of a time and what had arrived until then, by function.
    :param asked: Times at which a worker was asked for that is not ready yet.
    :param boots: How long the last workers took to boot, seconds.
    :param looked: When that run looked, seconds since 1970.
    :param known: The ids of the workers that were up then.
    :param changed: When the platform was last asked for another number.
    :param limit: What it said that it gives at most, if it gave less than that.
    :param limited: When it said so.
    :param missing_since: Since when workers that were asked for are missing and none
        came; 0 if none is.
    """

    memory: Memory = field(default_factory=Memory)
    totals: tuple[tuple[float, t.Mapping[str, int]], ...] = ()
    asked: tuple[float, ...] = ()
    boots: tuple[float, ...] = ()
    looked: float = 0.0
    known: tuple[str, ...] = ()
    changed: float = 0.0
    limit: int | None = None
    limited: float = 0.0
    missing_since: float = 0.0

    def limit_at(self, now: float, asked: int) -> int | None:
        """Return the platform's limit, if it is known and not to be tried again.

        It is not what it was where more than that are *asked* for by now.
        """
        holds = 0 <= now - self.limited < _LIMIT_HOLDS
        return self.limit if holds and (self.limit or 0) >= asked else None

    def encode(self) -> str:
        """Return the notes as JSON."""
        return json.dumps(
            {
                "memory": dataclasses.asdict(self.memory),
                "totals": self.totals,
                "asked": self.asked,
                "boots": self.boots,
                "looked": self.looked,
                "known": self.known,
                "changed": self.changed,
                "limit": self.limit,
                "limited": self.limited,
                "missing_since": self.missing_since,
            }
        )

    @classmethod
    def decode(cls, text: str | None) -> Notes:
        """Return the notes of *text*; new ones if there are none.

        Those of another version are not read: what is lost is measured anew.
        """
        try:
            return cls() if text is None else cls._of(json.loads(text))
        except (KeyError, TypeError, ValueError):
            return cls()

    @classmethod
    def _of(cls, fields: t.Mapping[str, t.Any]) -> Notes:
        memory = fields["memory"]
        needs = tuple((time, need) for time, need in memory["needs"])
        return cls(
            Memory(needs, memory["empty_looks"], memory["mean_need"]),
            tuple((time, counts) for time, counts in fields["totals"]),
            tuple(fields["asked"]),
            tuple(fields["boots"]),
            fields["looked"],
            tuple(fields["known"]),
            fields["changed"],
            fields["limit"],
            fields["limited"],
            fields["missing_since"],
        )


@dataclass(frozen=True)
class Hold:
    """What a person ordered.

    :param workers: So many, whatever the policy says; ``None`` leaves the size alone.
    :param reason: Why.
    """

    workers: int | None
    reason: str


class Notebook:
    """The notes, the lock, the orders and the log of one pool."""

    def __init__(self, server: StateServer, keys: Keys, pool: str) -> None:
        self._server = server
        self._key = f"{keys.root}:scale:{pool}"

    # -- The lock --------------------------------------------------------------------

    def lock(self) -> str | None:
        """Return a token if no other scaler is at it, else ``None``."""
        token = new_token()
        key = f"{self._key}:lock"
        taken = self._server.client.set(key, token, nx=True, px=LOCK_TTL)
        # The client repeats a call whose reply was lost: what refuses then is the lock
        # that the first try took.
        return token if taken or self._server.client.get(key) == token else None

    def unlock(self, token: str) -> None:
        """Free the lock, unless it has expired and somebody else has it."""
        self._server.client.eval(_RELEASE, 1, f"{self._key}:lock", token)

    # -- Notes -----------------------------------------------------------------------

    def read(self) -> Notes:
        """Return what the last run left."""
        return Notes.decode(t.cast("str | None", self._server.client.get(self._key)))

    def write(self, notes: Notes) -> None:
        """Leave *notes* for the next run."""
        self._server.client.set(self._key, notes.encode())

    # -- Orders ----------------------------------------------------------------------

    def hold(self) -> Hold | None:
        """Return what a person ordered, if it still holds."""
        found = t.cast("str | None", self._server.client.get(f"{self._key}:hold"))
        return Hold(**json.loads(found)) if found else None

    def order(self, hold: Hold, seconds: float) -> None:
        """Have *hold* hold for so many *seconds*."""
        text = json.dumps({"workers": hold.workers, "reason": hold.reason})
        self._server.client.set(f"{self._key}:hold", text, px=round(seconds * 1000))

    def resume(self) -> bool:
        """End what a person ordered. Return whether there was anything."""
        key = f"{self._key}:hold"
        # The client repeats a call whose reply was lost: that finds nothing any more.
        there = self._server.client.exists(key)
        return bool(self._server.client.delete(key) or there)

    # -- What is wanted of a supervisor ----------------------------------------------

    def wanted(self) -> int | None:
        """Return how many workers a supervisor is to keep, ``None`` if nobody said."""
        found = t.cast("str | None", self._server.client.get(f"{self._key}:wanted"))
        return int(found) if found is not None else None

    def want(self, workers: int) -> None:
        """Say how many workers a supervisor is to keep."""
        self._server.client.set(f"{self._key}:wanted", workers)

    def supervise(self) -> None:
        """Say that a supervisor is alive."""
        self._server.client.set(f"{self._key}:kept", "1", px=SUPERVISOR_TTL)

    def leave(self) -> None:
        """Say that the supervisor is gone."""
        self._server.client.delete(f"{self._key}:kept")

    def supervised(self) -> bool:
        """Return whether a supervisor is alive."""
        return bool(self._server.client.exists(f"{self._key}:kept"))

    # -- What sources said -----------------------------------------------------------

    def told(self, digest: str) -> Told:
        """Return where it is kept what sources said, of those that *digest* tells."""
        return Told(self._server, f"{self._key}:told:{digest}")

    # -- The log ---------------------------------------------------------------------

    def log(self, record: t.Mapping[str, t.Any]) -> None:
        """Keep a decision."""
        self._server.client.xadd(
            f"{self._key}:log",
            {"record": json.dumps(record)},
            maxlen=LOG_LENGTH,
            approximate=True,
        )

    def history(self, limit: int) -> list[dict[str, t.Any]]:
        """Return the last decisions, the latest first."""
        found = t.cast(
            "list[tuple[str, dict[str, str]]]",
            self._server.client.xrevrange(f"{self._key}:log", count=limit),
        )
        return [json.loads(fields["record"]) for _, fields in found]


class Told:
    """Keeps what sources of durations said; harmless to lose, and for a day only."""

    def __init__(self, server: StateServer, key: str) -> None:
        self._server = server
        self._key = key

    def recall(self, source: str) -> str | None:
        """Return what is kept for *source*."""
        found = self._server.client.get(f"{self._key}:{source}")
        return t.cast("str | None", found)

    def keep(self, source: str, text: str) -> None:
        """Keep *text* for *source*."""
        self._server.client.set(f"{self._key}:{source}", text, px=TOLD_TTL)
