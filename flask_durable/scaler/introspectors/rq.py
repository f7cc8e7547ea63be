"""Looks into the queues of RQ.

The keys that are read, as RQ names them. They begin with another word than ``rq`` if
the variable ``RQ_KEY_PREFIX`` says so::

    rq:queue:<queue>      list  ids of the jobs that wait, oldest first
    rq:scheduled:<queue>  zset  ids of jobs that are scheduled or retried, and when
    rq:wip:<queue>        zset  ids of jobs that are executed, and when that expires
    rq:job:<id>           hash  a job; its arguments are pickled, and not read
    rq:workers:<queue>    set   keys of the workers that serve a queue
    rq:worker:<name>      hash  a worker's own report; expires when it dies

A job is named by its description up to the parenthesis, which RQ derives from the
function's name. A job with a description of its own counts as a function of its own.
"""

from __future__ import annotations

import datetime
import random
import typing as t

import redis

from ..decision.fleet import merged
from ..decision.fleet import Silence
from ..decision.fleet import Unit
from ..decision.observation import Running
from .base import QueueSnapshot
from .sampling import Census
from .sampling import draw
from .sampling import Job
from .sampling import positions
from .sampling import weights
from .server import lengths_of
from .server import QueueServer
from .server import read_list
from .server import read_sorted_set
from .server import server_time

#: The most scheduled, and the most running, jobs looked at in one queue. The scheduled
#: ones are drawn at random.
_MOST_JOBS = 2_000
#: Jobs that are asked for at once.
_JOBS_PER_CALL = 500
_FIELDS = ("description", "enqueued_at", "created_at", "started_at")

_Fields = t.Mapping[str, "str | None"]


class RQIntrospector:
    """Looks into queues of RQ.

    :param queues: The names of the queues.
    :param url: The URL of RQ's server.
    :param prefix: The prefix of all keys.
    """

    silence: Silence = "booting"
    slots = 1

    def __init__(self, queues: list[str], url: str, prefix: str = "rq") -> None:
        self._queues = queues
        self._prefix = prefix
        self._server = QueueServer(url)
        self._chance = random.Random()

    def look(self, horizon: float) -> QueueSnapshot:
        """Return the jobs and workers of the queues.

        :raises PlatformError: The server refuses or does not answer.
        """
        with self._server.client() as client:
            census = Census(server_time(client), horizon)
            # Read in the order in which jobs move on. One that moves between two reads
            # is counted twice; in the other order it would be missed.
            self._count_scheduled(client, census)
            self._count_waiting(client, census)
            running = list(self._running(client, census.now))
            return census.snapshot(running, self._units(client))

    def _count_waiting(self, client: redis.Redis, census: Census) -> None:
        keys = {f"{self._prefix}:queue:{queue}": queue for queue in self._queues}
        lengths = lengths_of(client, keys)
        for key, places in positions(lengths, self._chance).items():
            found = [
                None if job is None else Job(_function(job), _since(job))
                for job in self._jobs(client, read_list(client, key, places))
            ]
            census.count(keys[key], lengths[key], found)

    def _count_scheduled(self, client: redis.Redis, census: Census) -> None:
        for queue in self._queues:
            key = f"{self._prefix}:scheduled:{queue}"
            soon = client.zcount(key, "-inf", census.now + census.horizon)
            due = read_sorted_set(client, key, draw(soon, _MOST_JOBS, self._chance))
            jobs = self._jobs(client, [id for id, _ in due])
            numbers = weights(soon, len(due))
            for (_, time), job, number in zip(due, jobs, numbers, strict=True):
                if job is not None:
                    census.count_later(queue, _function(job), time, number)

    def _units(self, client: redis.Redis) -> list[Unit]:
        """Return the workers as units by host: those of one host are merged."""
        pipeline = client.pipeline(transaction=False)
        for queue in self._queues:
            pipeline.smembers(f"{self._prefix}:workers:{queue}")
        for key in sorted(set().union(*pipeline.execute())):
            pipeline.hmget(key, ["hostname", "birth", "state"])
        return merged(
            Unit(host, 1, int(state == "busy"), _time(birth) or 0.0)
            for host, birth, state in pipeline.execute()
            if birth is not None  # otherwise it died, and is still in the set
        )

    def _running(self, client: redis.Redis, now: float) -> t.Iterator[Running]:
        """Yield the jobs that are executed; those of a dead worker expire."""
        for queue in self._queues:
            found = t.cast(
                "list[str]",
                client.zrangebyscore(
                    f"{self._prefix}:wip:{queue}", now, "+inf", 0, _MOST_JOBS
                ),
            )
            # An entry is the job's id, a colon and the execution's id without a colon.
            ids = [entry.rpartition(":")[0] or entry for entry in found]
            for job in filter(None, self._jobs(client, ids)):
                started = _time(job["started_at"]) or now
                yield Running(_function(job), max(now - started, 0.0))

    def _jobs(
        self, client: redis.Redis, ids: t.Sequence[str | None]
    ) -> list[_Fields | None]:
        """Return the read fields of the jobs; ``None`` for one that is gone."""
        found: list[list[str | None]] = []
        for first in range(0, len(ids), _JOBS_PER_CALL):
            pipeline = client.pipeline(transaction=False)
            for id in ids[first : first + _JOBS_PER_CALL]:
                pipeline.hmget(f"{self._prefix}:job:{id}", list(_FIELDS))
            found += pipeline.execute()
        return [
            dict(zip(_FIELDS, values, strict=True)) if any(values) else None
            for values in found
        ]


def _function(job: _Fields) -> str:
    return (job["description"] or "").partition("(")[0] or "(unnamed)"


def _since(job: _Fields) -> float | None:
    return _time(job["enqueued_at"]) or _time(job["created_at"])


def _time(text: str | None) -> float | None:
    """Return the seconds since 1970 of a time that RQ wrote, in UTC."""
    try:
        time = datetime.datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.timezone.utc)
    return time.timestamp()
