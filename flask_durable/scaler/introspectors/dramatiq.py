"""Looks into the queues that plain Dramatiq keeps on Redis.

The keys that are read, as Dramatiq's own broker names them::

    <namespace>:<queue>              list  ids of the messages that wait, oldest first
    <namespace>:<queue>.msgs         hash  all messages that are not done, by id: JSON
    <namespace>:<queue>.DQ.msgs      hash  messages that are delayed
    <namespace>:__heartbeats__       zset  processes that used the broker, and when
    <namespace>:__acks__.<who>.<queue>  set  ids of the messages that a worker took

A worker takes more messages than it has threads. The oldest of them are assumed to run,
and the others wait. Messages that it took from a queue that is not looked into are not
seen, so all queues that it serves are to be named.

A worker without a message looks like a process that only sends. So a silent worker
counts as idle, and boot times cannot be seen. Nor can the number of processes of a
worker: the pool's option ``slots`` says how many messages one executes at a time.
"""

from __future__ import annotations

import itertools
import json
import random
import typing as t
from dataclasses import dataclass

import redis

from ..decision.fleet import Silence
from ..decision.fleet import Unit
from ..decision.observation import Running
from .base import QueueSnapshot
from .sampling import Census
from .sampling import Job
from .sampling import positions
from .server import lengths_of
from .server import QueueServer
from .server import read_hash
from .server import read_list
from .server import server_time

#: Seconds after which Dramatiq takes a worker without a heartbeat for dead, and gives
#: its messages to others.
_DEAD_AFTER = 60.0
#: The most delayed messages that are looked at.
_MOST_DELAYED = 2_000
#: Messages that are asked for at once.
_JOBS_PER_CALL = 500
#: The actor's name for a message that is not JSON: another encoder was chosen.
_UNREADABLE = "(unreadable)"


class DramatiqIntrospector:
    """Looks into the queues of a Dramatiq broker on Redis.

    :param queues: The names of the queues.
    :param url: The URL of the broker's server.
    :param namespace: The broker's namespace.
    :param threads: Messages that one worker process executes at a time.
    """

    silence: Silence = "idle"

    def __init__(
        self,
        queues: list[str],
        url: str,
        namespace: str = "dramatiq",
        threads: int = 8,
    ) -> None:
        self._queues = queues
        self._server = QueueServer(url)
        self._namespace = namespace
        self._threads = self.slots = threads
        self._chance = random.Random()

    def look(self, horizon: float) -> QueueSnapshot:
        """Return the jobs and workers of the queues.

        :raises PlatformError: The server refuses or does not answer.
        """
        with self._server.client() as client:
            census = Census(server_time(client), horizon)
            # Read in the order in which messages move on. One that moves between two
            # reads is counted twice; in the other order it would be missed.
            self._count_delayed(client, census)
            self._count_waiting(client, census)
            taken = self._taken(client, census.now)
        for queue in self._queues:
            held = [job for has in taken for of, job in has.waiting if of == queue]
            census.count(queue, len(held), held)
        return census.snapshot(
            [run for has in taken for run in has.running],
            [has.unit for has in taken if has.unit.busy],
        )

    # -- Messages at workers -----------------------------------------------------------

    def _taken(self, client: redis.Redis, now: float) -> list[_Taken]:
        """Return the messages of each worker that has a heartbeat."""
        beats = t.cast(
            "list[tuple[str, float]]",
            client.zrange(f"{self._namespace}:__heartbeats__", 0, -1, withscores=True),
        )
        whose = [
            (who, queue) for (who, _), queue in itertools.product(beats, self._queues)
        ]
        pipeline = client.pipeline(transaction=False)
        for who, queue in whose:
            pipeline.smembers(f"{self._namespace}:__acks__.{who}.{queue}")
        messages: dict[str, list[tuple[str, _Message]]] = {}
        for (who, queue), ids in zip(whose, pipeline.execute(), strict=True):
            found = self._messages(client, queue, sorted(ids))
            messages.setdefault(who, []).extend(
                (queue, message) for message in found if message is not None
            )
        dead = (now - _DEAD_AFTER) * 1000
        return [
            self._split(who, messages.get(who, []), alive=beat > dead)
            for who, beat in beats
        ]

    def _split(
        self, who: str, messages: list[tuple[str, _Message]], alive: bool
    ) -> _Taken:
        """Split a worker's *messages* into those it executes and those that wait there.

        The start of an execution is not recorded: each counts as just begun.
        """
        messages = sorted(messages, key=lambda pair: pair[1].sent)
        slots = self._threads if alive else 0
        running = [Running(message.actor, 0.0) for _, message in messages[:slots]]
        waiting = [(queue, message.job) for queue, message in messages[slots:]]
        return _Taken(Unit(who, self._threads, len(running), 0.0), running, waiting)

    # -- Messages that wait ------------------------------------------------------------

    def _count_waiting(self, client: redis.Redis, census: Census) -> None:
        """Count the messages that no worker took."""
        keys = {f"{self._namespace}:{queue}": queue for queue in self._queues}
        lengths = lengths_of(client, keys)
        for key, places in positions(lengths, self._chance).items():
            queue = keys[key]
            ids = read_list(client, key, places)
            messages = self._messages(client, queue, ids)
            census.count(queue, lengths[key], _in_line(messages))

    def _count_delayed(self, client: redis.Redis, census: Census) -> None:
        for queue in self._queues:
            key = f"{self._namespace}:{queue}.DQ.msgs"
            for text, number in read_hash(client, key, _MOST_DELAYED):
                message = _Message.parse(text)
                census.count_later(queue, message.actor, message.due, number)

    def _messages(
        self, client: redis.Redis, queue: str, ids: t.Sequence[str | None]
    ) -> list[_Message | None]:
        """Return the messages with these *ids*; ``None`` for one that is gone."""
        key = f"{self._namespace}:{queue}.msgs"
        texts: list[str | None] = []
        for first in range(0, len(ids), _JOBS_PER_CALL):
            some = [id or "" for id in ids[first : first + _JOBS_PER_CALL]]
            texts += t.cast("list[str | None]", client.hmget(key, some))
        return [None if text is None else _Message.parse(text) for text in texts]


@dataclass(frozen=True)
class _Taken:
    """The messages of one worker."""

    unit: Unit
    running: list[Running]
    waiting: list[tuple[str, Job]]


@dataclass(frozen=True)
class _Message:
    """The fields read from a message; times are seconds since 1970."""

    actor: str
    sent: float
    due: float

    @property
    def job(self) -> Job:
        return Job(self.actor, self.sent)

    @classmethod
    def parse(cls, text: str) -> _Message:
        try:
            fields = json.loads(text)
            options = fields["options"]
            sent = max(
                fields["message_timestamp"], options.get("requeue_timestamp") or 0
            )
            due = options.get("eta") or 0
            return cls(str(fields["actor_name"]), sent / 1000, due / 1000)
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls(_UNREADABLE, 0.0, 0.0)


def _in_line(messages: t.Sequence[_Message | None]) -> list[Job | None]:
    """Return the jobs of *messages* in their order in the queue, oldest first.

    A message that was delayed, or failed, keeps the time at which it was first sent. It
    cannot have been in the queue for longer than the messages before it.
    """
    since = 0.0
    jobs: list[Job | None] = []
    for message in messages:
        if message is None:
            jobs.append(None)
            continue
        since = max(since, message.sent)
        jobs.append(Job(message.actor, since or None))
    return jobs
