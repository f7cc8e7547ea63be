"""Looks into the queues that Celery keeps on Redis.

What is read, under the names that Kombu's transport gives them::

    <queue>                   list  the messages that wait: JSON
    <queue>\\x06\\x16<priority>  list  those of another priority
    unacked                   hash  what workers took and have not done: JSON

What a worker took is what runs there, what it keeps until a time (``eta``), and what
waits. All that is at a worker which does not say what it executes waits too (see
:mod:`.celery_workers`): nobody else knows. Where a message came from is told by its
routing key, which is the queue's name unless an exchange of type ``topic`` was
configured; then what workers took is not seen.

A message does not say when it was sent: each counts as if it were new, so that
a pool grows later than for a queue whose ages are known.
"""

from __future__ import annotations

import datetime
import json
import random
import typing as t
from dataclasses import dataclass

import redis

from ...errors import ConfigurationError
from ..fleet import Silence
from ..sighting import Sighting
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

#: Between the name of a queue and the priority, as in Kombu's Redis transport. Which
#: priorities there are is an option of the app: none is above 9.
_SEPARATOR = "\x06\x16"
_PRIORITIES = ("", *(f"{_SEPARATOR}{priority}" for priority in range(1, 10)))
#: Messages that workers took, looked at.
_MOST_TAKEN = 10_000
#: What a message is of that is not JSON of Celery's.
_UNREADABLE = "(unreadable)"


class CeleryIntrospector:
    """Looks into queues of Celery.

    :param queues: Their names.
    :param url: Where the broker is: ``redis://`` or ``rediss://``.
    :param prefix: What all keys begin with: the transport option ``global_keyprefix``.
    :raises ConfigurationError: Kombu is not installed, or the URL is another one.
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

    def look(self, horizon: float) -> Sighting:
        """Return what there is.

        :raises PlatformError: The broker refuses or does not answer, or its workers
            answer in another way than in JSON.
        """
        with self._server.client() as client:
            census = Census(server_time(client), horizon)
            # In the order in which messages go on: one that does meanwhile is seen
            # twice, or once too often. The other way round, it would be missed.
            waiting = list(self._waiting(client))
            taken = self._taken(client)
            nodes = self._workers.ask()
        active = {task.id for node in nodes for task in node.tasks}
        for some in (*waiting, *taken):
            _count(some, active, census)
        ours = [node for node in nodes if node.queues & {*self._queues}]
        running = [task.running(census.now) for node in ours for task in node.tasks]
        return census.sighting(running, units_of(ours, census.now))

    def _waiting(self, client: redis.Redis) -> t.Iterator[_Some]:
        """Yield what no worker took, list by list."""
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
        """Return what workers took of each queue, and have not done."""
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
    """What is of interest in a message; *due* is in seconds since 1970."""

    id: str
    task: str
    due: float
    queue: str

    @classmethod
    def parse_taken(cls, text: str) -> _Message:
        """Return one that a worker took, of which it is kept where it came from."""
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

    :param queue: Its name.
    :param length: How many there are.
    :param messages: Those that were looked at; ``None`` for what is gone meanwhile.
    """

    queue: str
    length: int
    messages: list[_Message | None]

    def counted(self) -> t.Iterator[tuple[_Message | None, int]]:
        """Yield each message, and for how many it stands."""
        numbers = weights(self.length, len(self.messages))
        yield from zip(self.messages, numbers, strict=True)


def _count(some: _Some, active: set[str], census: Census) -> None:
    """Count what waits, and what is due later.

    :param active: The ids of what is executed.
    """
    jobs: list[Job | None] = []
    for message, number in some.counted():
        waits = message and message.id not in active and message.due <= census.now
        jobs.append(Job(message.task) if message and waits else None)
        if message and message.due > census.now:
            census.count_later(some.queue, message.task, message.due, number)
    census.count(some.queue, some.length, jobs)


def _seconds(eta: str | None) -> float:
    """Return seconds since 1970; what names no time zone is in UTC, as for Celery."""
    if not eta:
        return 0.0
    time = datetime.datetime.fromisoformat(eta)
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.timezone.utc)
    return time.timestamp()
