"""Looks into the queues that Celery keeps on Redis.

What is read, under the names that Kombu's transport gives them::

    <queue>                   list  the messages that wait: JSON
    <queue>\\x06\\x16<priority>  list  those of another priority
    unacked                   hash  what workers took and have not done: JSON

Workers are asked by Celery's remote control what they execute. One that does not answer
in a second may be one whose pool is its only thread: what is silent is busy. What a
worker took is what runs there, what it keeps until a time (``eta``), and what waits.

A message does not say when it was sent: each counts as if it were new, so that
a pool grows later than for a queue whose ages are known.
"""

from __future__ import annotations

import datetime
import importlib
import json
import random
import typing as t
from dataclasses import dataclass

import redis

from ...errors import ConfigurationError
from ...errors import PlatformError
from ..fleet import Silence
from ..fleet import Unit
from ..observation import Running
from ..sighting import Sighting
from .sampling import Census
from .sampling import Job
from .sampling import positions
from .server import lengths_of
from .server import QueueServer
from .server import read_hash
from .server import read_list
from .server import server_time

#: Between the name of a queue and the priority, as in Kombu's Redis transport.
_SEPARATOR = "\x06\x16"
_PRIORITIES = ("", *(f"{_SEPARATOR}{step}" for step in (3, 6, 9)))
#: Seconds in which workers have to answer.
_PATIENCE = 1.0
#: Messages that workers took, looked at.
_MOST_TAKEN = 10_000
#: What a message is of that is not JSON of Celery's.
_UNREADABLE = "(unreadable)"


class CeleryIntrospector:
    """Looks into queues of Celery.

    :param queues: Their names.
    :param url: Where the broker is.
    :raises ConfigurationError: Celery is not installed.
    """

    silence: Silence = "busy"

    def __init__(self, queues: list[str], url: str) -> None:
        self._queues = queues
        self._server = QueueServer(url)
        self._app = _make_app(url)
        self._chance = random.Random()

    def look(self, horizon: float) -> Sighting:
        """Return what there is.

        :raises PlatformError: The broker refuses or does not answer.
        """
        with self._server.client() as client:
            now = server_time(client)
            nodes = self._ask_nodes()
            census = self._waiting(client, now)
            active = {id for node in nodes for id in node.active}
            wakeups = self._taken(client, horizon, active, census)
            return Sighting(
                now,
                tuple(census.waiting),
                tuple(run for node in nodes for run in node.running(now)),
                tuple(wakeups),
                {},
                census.queues,
                tuple(census.samples),
                tuple(node.unit(now) for node in nodes),
            )

    def _waiting(self, client: redis.Redis, now: float) -> Census:
        """Count the messages that no worker took."""
        census = Census(now)
        keys = {f"{q}{priority}": q for q in self._queues for priority in _PRIORITIES}
        lengths = lengths_of(client, keys)
        for key, places in positions(lengths, self._chance).items():
            texts = read_list(client, key, places)
            jobs = [None if x is None else Job(_Message.parse(x).task) for x in texts]
            census.count(keys[key], lengths[key], jobs)
        return census

    def _taken(
        self, client: redis.Redis, horizon: float, active: set[str], census: Census
    ) -> list[tuple[str, float]]:
        """Count what workers took and do not execute.

        :param active: The ids of what they execute.
        :returns: Task and seconds until due of what they keep until a time.
        """
        wakeups: list[tuple[str, float]] = []
        for text, number in read_hash(client, "unacked", _MOST_TAKEN):
            message = _Message.parse_taken(text)
            if message.queue not in self._queues:
                continue
            census.saw(message.task, message.queue)
            due = message.due - census.now
            if due > 0:
                wakeups += [(message.task, due)] * number if due <= horizon else []
            elif message.id not in active:
                census.count(message.queue, number, [Job(message.task)] * number)
        return wakeups

    def _ask_nodes(self) -> list[_Node]:
        """Return the workers that answer and serve one of our queues."""
        try:
            stats = self._inspect().stats() or {}
            if not stats:
                return []
            # Whom to wait for is known now: this is answered as fast as they can.
            known = self._inspect(list(stats))
            active, serving = known.active() or {}, known.active_queues() or {}
        except (OSError, _operational_error()) as error:
            raise PlatformError(
                f"The workers cannot be asked: {type(error).__name__}.",
                code="platform.unavailable",
            ) from error
        return [
            _Node(name, stats[name], self._ours(active.get(name, ())))
            for name, queues in serving.items()
            if {queue["name"] for queue in queues} & {*self._queues}
        ]

    def _inspect(self, destination: list[str] | None = None) -> t.Any:
        return self._app.control.inspect(destination, timeout=_PATIENCE)

    def _ours(self, tasks: t.Iterable[t.Mapping[str, t.Any]]) -> list[_Task]:
        return [
            _Task(task["id"], task["name"], task.get("time_start"))
            for task in tasks
            if (task.get("delivery_info") or {}).get("routing_key") in self._queues
        ]


@dataclass(frozen=True)
class _Task:
    """What a worker executes."""

    id: str
    name: str
    started: float | None


@dataclass(frozen=True)
class _Node:
    """A worker."""

    name: str
    stats: t.Mapping[str, t.Any]
    tasks: t.Sequence[_Task]

    @property
    def active(self) -> set[str]:
        return {task.id for task in self.tasks}

    def running(self, now: float) -> t.Iterator[Running]:
        for task in self.tasks:
            yield Running(task.name, max(now - (task.started or now), 0.0))

    def unit(self, now: float) -> Unit:
        """Return it by its host, which stands behind the ``@`` of its name."""
        slots = int((self.stats.get("pool") or {}).get("max-concurrency") or 1)
        ready_at = now - float(self.stats.get("uptime") or 0)
        return Unit(self.name.partition("@")[2], slots, len(self.tasks), ready_at)


@dataclass(frozen=True)
class _Message:
    """What is of interest in a message; *due* is in seconds since 1970."""

    id: str
    task: str
    due: float
    queue: str = ""

    @classmethod
    def parse_taken(cls, text: str) -> _Message:
        """Return one that a worker took, of which it is kept where it came from."""
        try:
            message, _, queue = json.loads(text)
        except (ValueError, TypeError):
            return cls("", _UNREADABLE, 0.0)
        return cls.parse(json.dumps(message), str(queue))

    @classmethod
    def parse(cls, text: str, queue: str = "") -> _Message:
        try:
            headers = json.loads(text)["headers"]
            eta = headers.get("eta")
            due = datetime.datetime.fromisoformat(eta).timestamp() if eta else 0.0
            return cls(str(headers["id"]), str(headers["task"]), due, queue)
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls("", _UNREADABLE, 0.0, queue)


def _make_app(url: str) -> t.Any:
    try:
        celery = importlib.import_module("celery")
    except ImportError:
        raise ConfigurationError(
            "The introspector celery needs Celery, which is not installed.",
            hint='Run `pip install "celery[redis]"`.',
        ) from None
    return celery.Celery(broker=url, set_as_current=False)


def _operational_error() -> type[Exception]:
    """Return what Celery raises if the broker does not answer."""
    error = importlib.import_module("kombu.exceptions").OperationalError
    return t.cast("type[Exception]", error)
