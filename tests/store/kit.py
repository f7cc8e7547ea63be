"""A namespace of its own on a real server, whose every script call is made twice.

The second call stands for the client's repetition after a lost reply: it has to give
the first one's answer and to change nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import typing as t

import redis

from flask_durable.common.ids import ancestors_of
from flask_durable.config.settings import Settings
from flask_durable.redis.exchange import Argument
from flask_durable.store.keys import Keys
from flask_durable.store.replies import Claimed
from flask_durable.store.replies import Commit
from flask_durable.store.replies import Creation
from flask_durable.store.replies import creation_of
from flask_durable.store.replies import NotQueued
from flask_durable.store.replies import Paused
from flask_durable.store.replies import Queued
from flask_durable.store.replies import Suspension
from flask_durable.store.run_store import NewRun
from flask_durable.store.run_store import RunStore
from flask_durable.store.run_store import Swept
from flask_durable.store.server import Call
from flask_durable.store.server import StateServer

Dump = dict[str, t.Any]

#: Scripts whose second call may find nothing: the first caller got the work, and some
#: seconds for it. ``cron_marks`` returns the time, which goes on.
ONE_SHOT = ("sweep", "cron_marks")

#: Sorted sets by time whose members count, while their scores move on with each call.
MOVING = (":leases", ":functions:seen", ":workers:seen")

#: Sorted sets whose scores are times.
TIMES = (
    "leases",
    "timers",
    "parents",
    "queued",
    "outboxes",
    "expire",
    "functions:seen",
    "functions:first",
    "schedules",
)

#: Fields of a run that are times.
TIME_FIELDS = ("queued_at", "deferred_since", "due")

LEASE = 30.0


class RepeatingServer(StateServer):
    """A connection that makes every script call twice, and compares."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.repeats = True

    def call(self, name: str, tag: str, *args: Argument) -> t.Any:
        reply = super().call(name, tag, *args)
        if self.repeats and name not in ONE_SHOT:
            before = dump(self.client)
            again = super().call(name, tag, *args)
            assert unordered(again) == unordered(reply), f"{name}: another answer"
            assert dump(self.client) == before, f"{name}: the repeat changed something"
        return reply

    def call_many(
        self, calls: t.Sequence[Call], *commands: t.Sequence[Argument]
    ) -> list[t.Any]:
        replies = super().call_many(calls, *commands)
        if self.repeats:
            before = dump(self.client)
            again = super().call_many(calls, *commands)
            assert unordered(again) == unordered(replies), "another answer"
            assert dump(self.client) == before, "the repeat changed something"
        return replies


def unordered(reply: t.Any) -> t.Any:
    """Return *reply* with the fields of a hash in order: a server may keep none."""
    if not isinstance(reply, list):
        return reply
    if all(isinstance(part, str) for part in reply):
        return sorted(reply)
    return [unordered(part) for part in reply]


class Kit:
    """A run store, and views of the keys behind it.

    :param url: The URL of a server; its database is emptied.
    """

    def __init__(self, url: str, *, partitions: int = 1, **config: t.Any) -> None:
        options = {"redis_url": url, "namespace": "n", "lease": LEASE, **config}
        self.settings = Settings(partitions=partitions, **options)
        self.server = RepeatingServer(url)
        self.client = self.server.client
        self.client.flushdb()
        self.store = RunStore(
            self.server,
            Keys(self.settings.namespace, self.settings.partitions),
            lease=self.settings.lease,
            max_dispatches=self.settings.max_dispatches,
            retention=self.settings.retention,
            failed_retention=self.settings.failed_retention,
        )
        self.keys = self.store.keys
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self.server.close()

    # -- What is there ------------------------------------------------------------

    def dump(self) -> Dump:
        """Return everything that is stored."""
        return dump(self.client)

    @contextlib.contextmanager
    def unchanged(self) -> t.Iterator[None]:
        """Check that nothing is different afterwards."""
        before = self.dump()
        yield
        assert self.dump() == before

    def tag(self, run_id: str) -> str:
        return self.keys.tag_of(run_id)

    def record(self, run_id: str) -> dict[str, str]:
        return self.store.read(run_id)[0]

    def status(self, run_id: str) -> str | None:
        return self.record(run_id).get("status")

    def memo(self, run_id: str, step: str) -> str | None:
        found = self.client.hget(f"{self.tag(run_id)}:steps:{run_id}", step)
        return t.cast("str | None", found)

    def memo_head(self, run_id: str, step: str) -> list[str]:
        """Return status, token and number of a memo."""
        memo = self.memo(run_id, step)
        assert memo is not None
        return memo.partition("\n")[0].split(" ")[:3]

    def members(self, name: str, run_id: str = "") -> list[str]:
        """Return the members of a sorted set of a partition."""
        key = f"{self.tag(run_id)}:{name}"
        return t.cast("list[str]", self.client.zrange(key, 0, -1))

    def score(self, name: str, member: str, run_id: str = "") -> float:
        score = self.client.zscore(f"{self.tag(run_id)}:{name}", member)
        assert score is not None, f"{member} is not in {name}"
        return score

    def indexed(self, run_id: str) -> list[str]:
        """Return the statuses under which a run is found."""
        found = []
        kind = "branches" if ancestors_of(run_id) else "status"
        for key in self.client.scan_iter(f"{self.tag(run_id)}:{kind}:*"):
            if self.client.zscore(key, run_id) is not None:
                found.append(str(key).rpartition(":")[2])
        return found

    def mentions(self, run_id: str) -> list[str]:
        """Return the keys that have to do with a run, by name or by content."""
        return [key for key, value in self.dump().items() if run_id in key + str(value)]

    # -- Time -----------------------------------------------------------------------

    def now(self) -> int:
        """The server's clock, milliseconds."""
        seconds, microseconds = self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def advance(self, seconds: float) -> None:
        """Let time go by, by bringing every written time nearer."""
        by = round(seconds * 1000)
        for tag in self.keys.tags:
            keys = [f"{tag}:{name}" for name in TIMES]
            for key in [*keys, *self.client.scan_iter(f"{tag}:outbox:*")]:
                for member in t.cast("list[str]", self.client.zrange(key, 0, -1)):
                    self.client.zincrby(key, -by, member)
            self._shift_hash(f"{tag}:marks", by)
            self._shift_looks(f"{tag}:looks", by)
            for key in self.client.scan_iter(f"{tag}:run:*"):
                self._shift_hash(key, by, TIME_FIELDS)
                self._shift_claims(key, by)
            for key in self.client.scan_iter(f"{tag}:steps:*"):
                self._shift_sleeps(key, by)

    def _shift_hash(self, key: str, by: int, only: t.Container[str] = ()) -> None:
        fields = t.cast("dict[str, str]", self.client.hgetall(key))
        for field, value in fields.items():
            if not only or field in only:
                self.client.hset(key, field, str(int(value) - by))

    def _shift_claims(self, key: str, by: int) -> None:
        claims = self.client.hget(key, "claims")
        if claims:
            moved = [claim.split(":") for claim in str(claims).split()]
            for claim in moved:
                claim[1] = str(int(claim[1]) - by)
            self.client.hset(key, "claims", " ".join(map(":".join, moved)))

    def _shift_looks(self, key: str, by: int) -> None:
        looks = t.cast("dict[str, str]", self.client.hgetall(key))
        for run_id, look in looks.items():
            token, ends, before = look.split(" ")
            moved = f"{token} {int(ends) - by} {int(before) - by}"
            self.client.hset(key, run_id, moved)

    def _shift_sleeps(self, key: str, by: int) -> None:
        memos = t.cast("dict[str, str]", self.client.hgetall(key))
        for step, memo in memos.items():
            head, _, payload = memo.partition("\n")
            status, token, due, order = head.split(" ")
            if status == "waiting":
                moved = f"{status} {token} {int(due) - by} {order}\n{payload}"
                self.client.hset(key, step, moved)

    # -- Operations -------------------------------------------------------------------

    def new_run(self, **given: t.Any) -> NewRun:
        number = next(self._numbers)
        fields: dict[str, t.Any] = {
            "id": f"run{number:03}",
            "function": "work",
            "queue": "default",
            "event": "{}",
            "event_id": f"event{number}",
            "event_name": "a/b",
        }
        return NewRun(**(fields | given))

    def create(self, run: NewRun) -> Creation:
        """Create a run; return the script's reply."""
        name, tag, args = self.store.creation(run)
        reply = creation_of(self.server.call(name, tag, *args))
        assert not isinstance(reply, Exception)
        return reply

    def queued(self, **given: t.Any) -> str:
        """Return the id of a new run that is QUEUED."""
        run = self.new_run(**given)
        assert isinstance(self.create(run), Queued)
        return run.id

    def running(self, token: str = "t1", **given: t.Any) -> str:
        """Return the id of a new run that was claimed through a message."""
        run_id = self.queued(**given)
        self.claim(run_id, token)
        return run_id

    def claim(self, run_id: str, token: str = "t1", queued: int = 0) -> Claimed:
        """Claim a run that is QUEUED."""
        reply = self.store.claim(run_id, token, version="v1", queued=queued)
        assert isinstance(reply, Claimed), reply
        return reply

    def refused_claim(self, run_id: str, token: str = "t1") -> Paused | NotQueued:
        """Try to claim a run; it is not the caller's."""
        reply = self.store.claim(run_id, token, version="v1", queued=0)
        assert not isinstance(reply, Claimed)
        return reply

    def commit(
        self, run_id: str, step: str, token: str = "t1", **given: t.Any
    ) -> Commit:
        """Commit a step, done with the payload ``run 1`` by default."""
        options = {"status": "done", "number": 1, "payload": "run 1", **given}
        return self.store.commit(run_id, token, step, **options)

    def suspend(
        self, run_id: str, how: str, due: str, token: str = "t1", **given: t.Any
    ) -> Suspension:
        options = {"reason": how, **given}
        return self.store.suspend(run_id, token, how, due, **options)

    def finish(self, run_id: str, token: str = "t1", **given: t.Any) -> int:
        options = {"failed": False, "outcome": "null", **given}
        return self.store.finish(run_id, token, **options).handler

    def sweep(self, *empty: str, run_id: str = "") -> Swept:
        return self.store.sweep(self.tag(run_id), empty)

    def swept_runs(self, *empty: str) -> list[str]:
        """Sweep; return the ids of the runs whose message is to be sent."""
        return [run[0] for run in self.sweep(*empty).runs]

    def confirm(self, *entries: str) -> None:
        """Confirm that outbox entries were sent."""
        for entry in entries:
            kind, run_id, *_ = entry.split(":")
            if kind == "run":
                queued = int(self.record(run_id)["queued_at"])
                self.store.confirm_runs(self.tag(run_id), [(run_id, queued)])
            else:
                self.store.confirm_events(self.tag(run_id), [entry])

    def owed(self, run_id: str = "") -> list[str]:
        """Return the entries of a partition's outbox."""
        tag = self.tag(run_id)
        keys = sorted(self.client.scan_iter(f"{tag}:outbox:*"))
        return [entry for key in keys for entry in self.client.zrange(key, 0, -1)]

    def lose(self, run_id: str) -> None:
        """Have the sweeper take a run from its owner."""
        self.advance(self.settings.lease + 1)
        self.sweep(run_id=run_id)
        self.advance(self.settings.lease / 3 + 1)
        self.sweep(run_id=run_id)
        assert self.status(run_id) == "queued"


def dump(client: redis.Redis, moving: tuple[str, ...] = MOVING) -> Dump:
    """Return all keys of a database and their values.

    :param moving: Sorted sets whose scores are left out.
    """
    keys = t.cast("list[str]", sorted(client.keys("*")))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
    kinds = pipeline.execute()
    for key, kind in zip(keys, kinds, strict=True):
        if kind == "hash":
            pipeline.hgetall(key)
        elif kind == "zset":
            pipeline.zrange(key, 0, -1, withscores=True)
        elif kind == "stream":
            pipeline.xrange(key)
        elif kind == "list":
            pipeline.lrange(key, 0, -1)
        elif kind == "set":
            pipeline.smembers(key)
        else:
            pipeline.get(key)
    found = dict(zip(keys, pipeline.execute(), strict=True))
    for key, value in found.items():
        if moving and key.endswith(moving):
            found[key] = sorted(member for member, _ in value)
    return found
