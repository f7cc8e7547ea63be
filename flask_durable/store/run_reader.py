"""Reads runs from the state server, by plain commands that change nothing."""

from __future__ import annotations

import typing as t
from collections import Counter

from ..common.ids import ancestors_of
from .keys import Keys
from .memo import Memo
from .server import StateServer

Record = dict[str, str]

#: Children of a run that are read at most, the newest.
MAX_CHILDREN = 10_000

#: Records that are read in one exchange, where only small fields of them are.
_PAGE = 500

#: Those fields: none of them is as large as a user's data may be.
_BRIEF = (
    *("function", "queue", "status", "reason", "due", "version", "progress"),
    *("event_id", "event_name", "created", "started", "finished"),
    *("dispatches", "attempt", "parent", "parent_step", "place"),
)


class RunReader:
    """Reads runs.

    :param server: The state server.
    :param keys: The key names of the namespace.
    """

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self.server = server
        self.keys = keys

    def read(self, run_id: str) -> tuple[Record, dict[str, Memo]]:
        """Return a run's record and memos; both are empty if there is no such run.

        The record of a branch has the event of its run.
        """
        tag = self.keys.tag_of(run_id)
        pipeline = self.server.client.pipeline(transaction=False)
        pipeline.hgetall(f"{tag}:run:{run_id}")
        pipeline.hgetall(f"{tag}:steps:{run_id}")
        above = ancestors_of(run_id)
        for root in above[-1:]:
            pipeline.hget(f"{tag}:run:{root}", "event")
        record, memos, *events = pipeline.execute()
        if record and events and events[0]:
            record["event"] = events[0]
        return record, {key: Memo.parse(text) for key, text in memos.items()}

    def status_of(self, run_id: str) -> str | None:
        """Return a run's status, ``None`` if there is no such run."""
        key = f"{self.keys.tag_of(run_id)}:run:{run_id}"
        return t.cast("str | None", self.server.client.hget(key, "status"))

    def read_records(self, run_ids: t.Sequence[str]) -> list[Record]:
        """Return the records of *run_ids*, without those that are gone.

        The records of branches have the events of their runs.
        """
        pipeline = self.server.client.pipeline(transaction=False)
        for run_id in run_ids:
            pipeline.hgetall(f"{self.keys.tag_of(run_id)}:run:{run_id}")
        found: list[Record] = []
        branches: list[Record] = []
        for run_id, record in zip(run_ids, pipeline.execute(), strict=True):
            if record:
                found.append({"id": run_id, **record})
                if record.get("kind") == "branch":
                    branches.append(found[-1])
        if branches:
            events = self.events_of([record["id"] for record in branches])
            for record, event in zip(branches, events, strict=True):
                record["event"] = event or ""
        return found

    def children(self, run_id: str) -> list[Record]:
        """Return the children and branches of a run in brief, the oldest first.

        :returns: Records without the user's data, at most :data:`MAX_CHILDREN`.
        """
        client, tag = self.server.client, self.keys.tag_of(run_id)
        index = f"{tag}:children:{run_id}"
        ids = t.cast("list[str]", client.zrange(index, -MAX_CHILDREN, -1))
        found: list[Record] = []
        for offset in range(0, len(ids), _PAGE):
            page = ids[offset : offset + _PAGE]
            pipeline = client.pipeline(transaction=False)
            for id in page:
                pipeline.hmget(f"{tag}:run:{id}", _BRIEF)
            for id, values in zip(page, pipeline.execute(), strict=True):
                known = zip(_BRIEF, values, strict=True)
                record = {name: value for name, value in known if value is not None}
                if "status" in record:
                    found.append({"id": id, **record})
        return found

    def events_of(self, run_ids: t.Sequence[str]) -> list[str | None]:
        """Return the event of each run as JSON text, ``None`` for a run that is gone.

        :raises redis.RedisError: The server did not answer.
        """
        pipeline = self.server.client.pipeline(transaction=False)
        for run_id in run_ids:
            # A branch has the event of its run.
            owner = [run_id, *ancestors_of(run_id)][-1]
            pipeline.hget(f"{self.keys.tag_of(run_id)}:run:{owner}", "event")
        return t.cast("list[str | None]", pipeline.execute())

    def newest(
        self, index: str, *, before: int | None, skip: int, limit: int
    ) -> list[str]:
        """Return the newest run ids of an index, over all partitions.

        :param index: The name ``runs``, ``status:<status>`` or ``function:<id>``.
        :param before: The time, in milliseconds, that the runs were created before.
        :param skip: The number of the newest to leave out.
        """
        highest = "+inf" if before is None else f"({before}"
        found: list[tuple[str, float]] = []
        for tag in self.keys.tags:
            found += t.cast(
                "list[tuple[str, float]]",
                self.server.client.zrevrangebyscore(
                    f"{tag}:{index}", highest, "-inf", 0, skip + limit, withscores=True
                ),
            )
        found.sort(key=lambda pair: (pair[1], pair[0]), reverse=True)
        return [run_id for run_id, _ in found[skip : skip + limit]]

    def count_owed_events(self) -> int:
        """Return the number of events in the outbox, of all partitions."""
        client = self.server.client
        return sum([client.hlen(f"{tag}:events") for tag in self.keys.tags])

    def waiting(self, but: t.Container[str] = ()) -> Counter[tuple[str, str]]:
        """Return the number of QUEUED runs by queue and function, where there are any.

        :param but: The queues to leave out.
        :raises redis.RedisError: The server did not answer.
        """
        pipeline = self.server.client.pipeline(transaction=False)
        for tag in self.keys.tags:
            pipeline.hkeys(f"{tag}:arrived")
        jobs = [
            (tag, *job.split(":", 1))
            for tag, found in zip(self.keys.tags, pipeline.execute(), strict=True)
            for job in found
            if job.partition(":")[0] not in but
        ]
        waiting: Counter[tuple[str, str]] = Counter()
        if not jobs:
            return waiting
        pipeline = self.server.client.pipeline(transaction=False)
        for tag, queue, function in jobs:
            pipeline.zcard(f"{tag}:waiting:{queue}:{function}")
        for (_, queue, function), count in zip(jobs, pipeline.execute(), strict=True):
            waiting[queue, function] += count
        return +waiting

    def count(self, status: str, *, branches: bool = False) -> int:
        """Return the number of runs with *status*.

        :param branches: True to count branches too, each like a run.
        """
        client = self.server.client
        indexes = ["status", "branches"] if branches else ["status"]
        keys = [f"{tag}:{name}:{status}" for tag in self.keys.tags for name in indexes]
        return sum([client.zcard(key) for key in keys])


def told_strays(waiting: t.Mapping[tuple[str, str], int]) -> str:
    """Return the line that tells a person of runs on queues that no worker serves.

    :param waiting: The numbers of runs by queue and function.
    """
    by_queue: Counter[str] = Counter()
    for (queue, _), count in waiting.items():
        by_queue[queue] += count
    found = [f"{count} run(s) wait on {q!r}" for q, count in sorted(by_queue.items())]
    which = "which" if len(found) == 1 else "queues that"
    return (
        f"{', '.join(found)}, {which} no worker serves: start one with "
        f"--queues {','.join(sorted(by_queue))}"
    )
