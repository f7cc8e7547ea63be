"""The notes that the scaler of a pool keeps on the state server between two runs.

::

    <root>:scale:<pool>         string  the notes, JSON; written by the lock's holder
    <root>:scale:<pool>:lock    string  the token of the scaler at work; expires
    <root>:scale:<pool>:hold    string  a person's order, JSON; expires
    <root>:scale:<pool>:wanted  string  how many workers a supervisor is to keep
    <root>:scale:<pool>:kept    string  exists while a supervisor is alive; expires
    <root>:scale:<pool>:log     stream  each decision, field "record": JSON
    <root>:scale:<pool>:told:…  string  answers of sources of durations, JSON; expires

Scalers need no other coordination. One that dies with the lock delays the next by a
minute. One that is slower than a minute writes notes that are at most one run too old.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..common.ids import new_token
from ..store.keys import Keys
from ..store.server import StateServer
from .decision.policy import PolicyMemory

#: Milliseconds after which the lock of a scaler that died is free.
LOCK_TTL = 60_000
#: Milliseconds after which a supervisor that says nothing counts as gone.
SUPERVISOR_TTL = 15_000
#: Milliseconds for which the answers of sources of durations are kept.
SOURCE_CACHE_TTL = 25 * 3600 * 1000
#: Seconds for which a platform's limit holds: it is not asked for more than that.
_LIMIT_HOLDS = 600.0
#: Decisions that are kept, about this many.
LOG_LENGTH = 10_000

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True)
class PoolNotes:
    """The notes of one run of the scaler for the next.

    :param memory: The policy's memory.
    :param totals: Pairs of a time and the jobs that had arrived by then, by function.
    :param asked: Times at which a worker was asked for that is not ready yet.
    :param boots: The boot times of the last workers, seconds.
    :param looked: The time of that run's look, seconds since 1970.
    :param known: The ids of the workers that were up then.
    :param changed: The time at which the platform was last asked for another number.
    :param limit: The most workers that the platform gives, if it gave fewer than asked.
    :param limited: The time at which the platform gave fewer.
    :param missing_since: The time since which workers that were asked for are missing
        and none came; 0 if none is missing.
    """

    memory: PolicyMemory = field(default_factory=PolicyMemory)
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
        """Return the platform's limit, or ``None`` if it is unknown or due for a retry.

        If more workers than the limit are *asked* for by now, it no longer holds.
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
    def decode(cls, text: str | None) -> PoolNotes:
        """Return the notes in *text*, or empty notes if there are none.

        Notes of another version are not read. The lost measurements are taken again.
        """
        try:
            return cls() if text is None else cls._of(json.loads(text))
        except (KeyError, TypeError, ValueError):
            return cls()

    @classmethod
    def _of(cls, fields: t.Mapping[str, t.Any]) -> PoolNotes:
        memory = fields["memory"]
        needs = tuple((time, need) for time, need in memory["needs"])
        return cls(
            PolicyMemory(needs, memory["empty_looks"], memory["mean_need"]),
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
    """A person's order.

    :param workers: The size of the pool, whatever the policy says; ``None`` leaves the
        size alone.
    :param reason: The reason, for the record of the decision.
    """

    workers: int | None
    reason: str


class PoolState:
    """The notes, the lock, the order and the log of one pool."""

    def __init__(self, server: StateServer, keys: Keys, pool: str) -> None:
        self._server = server
        self._key = f"{keys.root}:scale:{pool}"

    # -- The lock --------------------------------------------------------------------

    def lock(self) -> str | None:
        """Take the lock. Return its token, or ``None`` if another scaler is at work."""
        token = new_token()
        key = f"{self._key}:lock"
        taken = self._server.client.set(key, token, nx=True, px=LOCK_TTL)
        # The client repeats a call whose reply was lost. The repeat is then refused by
        # the lock that the first try took.
        return token if taken or self._server.client.get(key) == token else None

    def unlock(self, token: str) -> None:
        """Free the lock, unless it has expired and another scaler has it."""
        self._server.client.eval(_RELEASE, 1, f"{self._key}:lock", token)

    # -- Notes -----------------------------------------------------------------------

    def read(self) -> PoolNotes:
        """Return the notes of the last run."""
        return PoolNotes.decode(
            t.cast("str | None", self._server.client.get(self._key))
        )

    def write(self, notes: PoolNotes) -> None:
        """Leave *notes* for the next run."""
        self._server.client.set(self._key, notes.encode())

    # -- Orders ----------------------------------------------------------------------

    def hold(self) -> Hold | None:
        """Return a person's order, if it still holds."""
        found = t.cast("str | None", self._server.client.get(f"{self._key}:hold"))
        return Hold(**json.loads(found)) if found else None

    def order(self, hold: Hold, seconds: float) -> None:
        """Keep the order *hold* for this many *seconds*."""
        text = json.dumps({"workers": hold.workers, "reason": hold.reason})
        self._server.client.set(f"{self._key}:hold", text, px=round(seconds * 1000))

    def resume(self) -> bool:
        """End a person's order. Return whether there was one."""
        key = f"{self._key}:hold"
        # The client repeats a call whose reply was lost: that finds nothing any more.
        there = self._server.client.exists(key)
        return bool(self._server.client.delete(key) or there)

    # -- The size that a supervisor keeps --------------------------------------------

    def wanted(self) -> int | None:
        """Return how many workers a supervisor is to keep; ``None`` if not set."""
        found = t.cast("str | None", self._server.client.get(f"{self._key}:wanted"))
        return int(found) if found is not None else None

    def want(self, workers: int) -> None:
        """Set how many workers a supervisor is to keep."""
        self._server.client.set(f"{self._key}:wanted", workers)

    def supervise(self) -> None:
        """Record that a supervisor is alive."""
        self._server.client.set(f"{self._key}:kept", "1", px=SUPERVISOR_TTL)

    def leave(self) -> None:
        """Record that the supervisor is gone."""
        self._server.client.delete(f"{self._key}:kept")

    def supervised(self) -> bool:
        """Return whether a supervisor is alive."""
        return bool(self._server.client.exists(f"{self._key}:kept"))

    # -- Answers of sources ----------------------------------------------------------

    def source_cache(self, digest: str) -> SourceCache:
        """Return the cache for answers of the sources with this *digest*."""
        return SourceCache(self._server, f"{self._key}:told:{digest}")

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


class SourceCache:
    """Caches answers of sources of durations for a day; harmless to lose."""

    def __init__(self, server: StateServer, key: str) -> None:
        self._server = server
        self._key = key

    def recall(self, source: str) -> str | None:
        """Return the text that is kept for *source*."""
        found = self._server.client.get(f"{self._key}:{source}")
        return t.cast("str | None", found)

    def keep(self, source: str, text: str) -> None:
        """Keep *text* for *source*."""
        self._server.client.set(f"{self._key}:{source}", text, px=SOURCE_CACHE_TTL)
