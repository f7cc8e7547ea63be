"""Looks into the queues that Celery keeps on Redis.

The keys that are read, as Kombu's transport names them::

    <queue>                   list  the waiting messages: JSON
    <queue>\\x06\\x16<priority>  list  those of another priority
    unacked                   hash  messages that workers took and have not done: JSON

A message that a worker took runs there, is kept until a time (``eta``), or waits.
Messages at a worker that does not say which it executes count as waiting (see
:mod:`.celery_workers`), because no other record tells. The queue of a taken message is
its routing key. That is the queue's name unless an exchange of type ``topic`` was
configured; then taken messages are not seen.

A message does not say when it was sent. Each counts as new, so a pool grows later than
for a queue whose ages are known.
"""

from __future__ import annotations

import datetime
import json
import random
import typing as t
from dataclasses import dataclass

import redis

from ...errors import ConfigurationError
from ..decision.fleet import Silence
from .base import QueueSnapshot
from .celery_workers import CeleryWorkers
from .celery_workers import units_of
from .sampling import Census
from .sampling import Job
from .sampling import positions
from .sampling import weights
from .server import lengths_of
from .server import QueueServer
from .server import read_hash
from .server import read_list
from .server import server_time

#: Separates the name of a queue from the priority, as in Kombu's Redis transport. The
#: priorities in use are an option of the app; none is above 9.
_SEPARATOR = "\x06\x16"
_PRIORITIES = ("", *(f"{_SEPARATOR}{priority}" for priority in range(1, 10)))
#: The most taken messages that are looked at.
_MOST_TAKEN = 10_000
#: The task name of a message that is not JSON of Celery's.
_UNREADABLE = "(unreadable)"


class CeleryIntrospector:
    """Looks into queues of Celery.

    :param queues: The names of the queues.
    :param url: The broker's URL: ``redis://`` or ``rediss://``.
    :param prefix: The prefix of all keys: the transport option ``global_keyprefix``.
    :raises ConfigurationError: Kombu is not installed, or the URL has another scheme.
    """

    silence: Silence = "busy"
    slots = 1

    def __init__(self, queues: list[str], url: str, prefix: str = "") -> None:
        if not url.startswith(("redis://", "rediss://")):
            raise ConfigurationError(
                "The introspector celery looks into brokers on one Redis server.",
                hint="Write its url as redis://HOST:PORT/DATABASE, or with rediss.",
            )
        self._queues = queues
        self._server = QueueServer(url)
        self._workers = CeleryWorkers(url, prefix)
        self._prefix = prefix
        self._chance = random.Random()

    def look(self, horizon: float) -> QueueSnapshot:
        """Return the jobs and workers of the queues.

        :raises PlatformError: The broker refuses or does not answer, or its workers
            answer in another format than JSON.
        """
        with self._server.client() as client:
            census = Census(server_time(client), horizon)
            # Read in the order in which messages move on. One that moves between two
            # reads is counted twice; in the other order it would be missed.
            waiting = list(self._waiting(client))
            taken = self._taken(client)
            nodes = self._workers.ask()
        active = {task.id for node in nodes for task in node.tasks}
        for some in (*waiting, *taken):
            _count(some, active, census)
        ours = [node for node in nodes if node.queues & {*self._queues}]
        running = [task.running(census.now) for node in ours for task in node.tasks]
        return census.snapshot(running, units_of(ours, census.now))

    def _waiting(self, client: redis.Redis) -> t.Iterator[_Some]:
        """Yield the messages that no worker took, list by list."""
        keys = {
            f"{self._prefix}{queue}{priority}": queue
            for queue in self._queues
            for priority in _PRIORITIES
        }
        lengths = lengths_of(client, keys)
        for key, places in positions(lengths, self._chance).items():
            texts = read_list(client, key, places)
            messages = [text and _Message.parse(text, keys[key]) for text in texts]
            yield _Some(keys[key], lengths[key], [found or None for found in messages])

    def _taken(self, client: redis.Redis) -> list[_Some]:
        """Return the messages of each queue that workers took and have not done."""
        key = f"{self._prefix}unacked"
        found = {queue: _Some(queue, 0, []) for queue in self._queues}
        for text, number in read_hash(client, key, _MOST_TAKEN):
            message = _Message.parse_taken(text)
            if message.queue in found:
                found[message.queue].messages.append(message)
                found[message.queue].length += number
        return list(found.values())


@dataclass(frozen=True)
class _Message:
    """The fields read from a message; *due* is in seconds since 1970."""

    id: str
    task: str
    due: float
    queue: str

    @classmethod
    def parse_taken(cls, text: str) -> _Message:
        """Parse an entry of ``unacked``, which also holds the queue's name."""
        try:
            message, _, queue = json.loads(text)
        except (ValueError, TypeError):
            return cls("", _UNREADABLE, 0.0, "")
        return cls.parse(json.dumps(message), str(queue))

    @classmethod
    def parse(cls, text: str, queue: str) -> _Message:
        try:
            headers = json.loads(text)["headers"]
            due = _seconds(headers.get("eta"))
            return cls(str(headers["id"]), str(headers["task"]), due, queue)
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls("", _UNREADABLE, 0.0, queue)


@dataclass
class _Some:
    """Messages of a queue.

    :param queue: The queue's name.
    :param length: The number of all its messages.
    :param messages: The messages that were looked at; ``None`` for one that was gone by
        then.
    """

    queue: str
    length: int
    messages: list[_Message | None]

    def counted(self) -> t.Iterator[tuple[_Message | None, int]]:
        """Yield each message with the number of messages that it stands for."""
        numbers = weights(self.length, len(self.messages))
        yield from zip(self.messages, numbers, strict=True)


def _count(some: _Some, active: set[str], census: Census) -> None:
    """Count the messages that wait, and those that are due later.

    :param active: The ids of the messages that are executed.
    """
    jobs: list[Job | None] = []
    for message, number in some.counted():
        waits = message and message.id not in active and message.due <= census.now
        jobs.append(Job(message.task) if message and waits else None)
        if message and message.due > census.now:
            census.count_later(some.queue, message.task, message.due, number)
    census.count(some.queue, some.length, jobs)


def _seconds(eta: str | None) -> float:
    """Return seconds since 1970; a time without a zone is in UTC, as for Celery."""
    if not eta:
        return 0.0
    time = datetime.datetime.fromisoformat(eta)
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.timezone.utc)
    return time.timestamp()
