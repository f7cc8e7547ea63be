"""Asks the workers of Celery, by their remote control, which tasks they execute.

Each worker is asked for its statistics, its queues and its tasks. One that does not
answer within a second may have a pool that is its only thread. It is *silent* and left
out. So is one that answers only a part, or in an unknown format.

The questions go through Kombu's mailbox. An app of Celery would ask over connections
that have no timeouts and that follow the variable ``CELERY_BROKER_URL``.
"""

from __future__ import annotations

import importlib
import ssl
import typing as t
import urllib.parse
from dataclasses import dataclass

from ...errors import ConfigurationError
from ...errors import PlatformError
from ..decision.fleet import merged
from ..decision.fleet import Unit
from ..decision.observation import Running
from .server import SERVER_TIMEOUT

#: Seconds in which workers have to answer.
_REPLY_SECONDS = 1.0

#: The name of the workers' mailboxes: Celery's ``control_exchange``.
_MAILBOX = "celery"
_QUESTIONS = ("active_queues", "active")

_Replies = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Task:
    """A task that a worker executes.

    :param id: The message's id.
    :param name: The name of the task.
    :param started: The time at which it began, seconds since 1970; ``None`` if the
        worker does not say.
    """

    id: str
    name: str
    started: float | None

    def running(self, now: float) -> Running:
        """Return the task as a job that holds a slot."""
        return Running(self.name, max(now - (self.started or now), 0.0))


@dataclass(frozen=True)
class Node:
    """A worker that answers.

    :param name: The worker's name, ``<any>@<host>``.
    :param slots: Tasks that it executes at a time.
    :param uptime: Seconds since it started.
    :param queues: The names of the queues that it serves.
    :param tasks: The tasks that it executes, of all queues: each holds a slot.
    """

    name: str
    slots: int
    uptime: float
    queues: frozenset[str]
    tasks: tuple[Task, ...]


def units_of(nodes: t.Iterable[Node], now: float) -> list[Unit]:
    """Return the workers as units by host: those of one host are merged."""
    return merged(
        Unit(
            node.name.partition("@")[2],
            node.slots,
            len(node.tasks),
            now - node.uptime,
        )
        for node in nodes
    )


class CeleryWorkers:
    """The workers of one broker.

    :param url: The broker's URL.
    :param prefix: The prefix of all its keys.
    :raises ConfigurationError: Kombu is not installed.
    """

    def __init__(self, url: str, prefix: str) -> None:
        try:
            self._kombu: t.Any = importlib.import_module("kombu")
            self._pidbox: t.Any = importlib.import_module("kombu.pidbox")
        except ImportError:
            raise ConfigurationError(
                "The introspector celery needs Celery's Kombu, which is not installed.",
                hint='Run `pip install "kombu[redis]"`.',
            ) from None
        self._url = _address(url)
        self._ssl = _ssl_of(url)
        self._options = {
            "global_keyprefix": prefix,
            "socket_timeout": SERVER_TIMEOUT,
            "socket_connect_timeout": SERVER_TIMEOUT,
            # Otherwise a client that waits for messages redelivers those that workers
            # have had for an hour, whatever the app has as its visibility_timeout.
            "ack_emulation": False,
        }

    def ask(self) -> list[Node]:
        """Return the workers that answer.

        :raises PlatformError: The broker does not answer, or the workers answer in
            another format than JSON.
        """
        try:
            with self._connect() as connection:
                return self._ask(connection)
        except self._kombu.exceptions.ContentDisallowed:
            raise PlatformError(
                "The workers do not answer in JSON.",
                hint="Set task_serializer to json in Celery.",
            ) from None
        except (OSError, self._kombu.exceptions.KombuError) as error:
            raise PlatformError(
                f"The workers cannot be asked: {type(error).__name__}.",
                code="platform.unavailable",
            ) from error

    def _connect(self) -> t.Any:
        return self._kombu.Connection(
            self._url,
            connect_timeout=SERVER_TIMEOUT,
            transport_options=self._options,
            ssl=self._ssl,
        )

    def _ask(self, connection: t.Any) -> list[Node]:
        # One mailbox a question: a late answer to another question would otherwise be
        # taken for an answer to this one.
        everyone, *boxes = (self._mailbox(connection) for _ in range(3))
        stats = _by_node(everyone.multi_call("stats", timeout=_REPLY_SECONDS))
        if not stats:
            return []
        # The workers are known now, so this returns as soon as all have answered. Their
        # tasks come last: a task is with the broker until a worker executes it, so that
        # one which moves on is counted twice and not missed.
        serving, active = (
            _by_node(box.call([*stats], question, timeout=_REPLY_SECONDS))
            for box, question in zip(boxes, _QUESTIONS, strict=True)
        )
        nodes = (
            _node(name, stat, active.get(name), serving.get(name))
            for name, stat in stats.items()
        )
        return [node for node in nodes if node is not None]

    def _mailbox(self, connection: t.Any) -> t.Any:
        made = self._pidbox.Mailbox(_MAILBOX, type="fanout", serializer="json")
        return made(connection)


def _address(url: str) -> str:
    """Return *url* as Kombu takes it: without the options of redis-py."""
    parts = urllib.parse.urlsplit(url)
    options = dict(urllib.parse.parse_qsl(parts.query))
    path = f"/{options['db']}" if "db" in options else parts.path
    kept = {name: text for name, text in options.items() if name.startswith("ssl_")}
    query = urllib.parse.urlencode(kept)
    return urllib.parse.urlunsplit(parts._replace(path=path, query=query))


def _ssl_of(url: str) -> bool | dict[str, t.Any]:
    """Return how to verify the broker. Kombu verifies nothing unless it is told to."""
    if not url.startswith("rediss:") or "ssl_cert_reqs" in url:
        return False
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def _by_node(replies: list[_Replies] | None) -> _Replies:
    return {name: said for reply in replies or () for name, said in reply.items()}


def _node(name: str, stat: t.Any, active: t.Any, serving: t.Any) -> Node | None:
    """Return a worker from its replies; ``None`` if one is missing or an error."""
    if not isinstance(active, list) or not isinstance(serving, list):
        return None
    try:
        return Node(
            name,
            max(int(stat["pool"]["max-concurrency"]), 1),
            float(stat["uptime"]),
            frozenset(queue["name"] for queue in serving),
            tuple(Task(it["id"], it["name"], it.get("time_start")) for it in active),
        )
    except (LookupError, TypeError, ValueError):
        return None
