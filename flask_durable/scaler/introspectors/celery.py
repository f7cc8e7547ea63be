"""Looks into the queues that Celery keeps on Redis.

What is read, under the names that Kombu's transport gives them::

    <queue>                   list  the messages that wait: JSON
    <queue>\\x06\\x16<priority>  list  those of another priority
    unacked                   hash  what workers took and have not done: JSON

What a worker took is what runs there, what it keeps until a time (``eta``), and what
waits. That of a worker which does not say what it executes waits, all of it: see
:mod:`.celery_workers`. Where a message came from is told by its routing key, which is
the queue's name unless an exchange of type ``topic`` was configured; then what workers
took is not seen.

A message does not say when it was sent: each counts as if it were new, so that
a pool grows later than for a queue whose ages are known.
"""

from __future__ import annotations

import datetime
import json
import random
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
            nodes = self._workers.ask()
            active = {task.id for node in nodes for task in node.tasks}
            self._count_waiting(client, census)
            self._count_taken(client, active, census)
            ours = [node for node in nodes if node.queues & {*self._queues}]
            running = [task.running(census.now) for node in ours for task in node.tasks]
            return census.sighting(running, units_of(ours, census.now))

    def _count_waiting(self, client: redis.Redis, census: Census) -> None:
        """Count the messages that no worker took."""
        keys = {
            f"{self._prefix}{queue}{priority}": queue
            for queue in self._queues
            for priority in _PRIORITIES
        }
        lengths = lengths_of(client, keys)
        for key, places in positions(lengths, self._chance).items():
            queue, texts = keys[key], read_list(client, key, places)
            numbers = weights(lengths[key], len(texts))
            jobs: list[Job | None] = []
            for text, number in zip(texts, numbers, strict=True):
                message = None if text is None else _Message.parse(text, queue)
                jobs.append(_due_now(message, number, census) if message else None)
            census.count(queue, lengths[key], jobs)

    def _count_taken(
        self, client: redis.Redis, active: set[str], census: Census
    ) -> None:
        """Count what workers took and do not execute.

        :param active: The ids of what they execute.
        """
        waiting: dict[str, list[Job]] = {queue: [] for queue in self._queues}
        key = f"{self._prefix}unacked"
        for text, number in read_hash(client, key, _MOST_TAKEN):
            message = _Message.parse_taken(text)
            if message.queue not in waiting or message.id in active:
                continue
            job = _due_now(message, number, census)
            if job is not None:
                waiting[message.queue] += [job] * number
        for queue, jobs in waiting.items():
            census.count(queue, len(jobs), jobs)


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
            eta = headers.get("eta")
            due = datetime.datetime.fromisoformat(eta).timestamp() if eta else 0.0
            return cls(str(headers["id"]), str(headers["task"]), due, queue)
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls("", _UNREADABLE, 0.0, queue)


def _due_now(message: _Message, number: int, census: Census) -> Job | None:
    """Return the job that it is, if it waits; else count it as what is due later.

    :param number: For how many messages it stands.
    """
    if message.due <= census.now:
        return Job(message.task)
    census.count_later(message.queue, message.task, message.due, number)
    return None
