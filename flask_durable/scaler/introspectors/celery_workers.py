"""Asks the workers of Celery, by their remote control, what they execute.

Each is asked how it is, which queues it serves, and what it has. One that does not
answer in a second may be one whose pool is its only thread: as one that answers not all
of it, or not in the way that is known, it is *silent*, which is left out.

It is asked by Kombu's mailbox. An app of Celery would ask by connections that have no
timeouts and go where the variable ``CELERY_BROKER_URL`` leads.
"""

from __future__ import annotations

import importlib
import ssl
import typing as t
import urllib.parse
from dataclasses import dataclass

from ...errors import ConfigurationError
from ...errors import PlatformError
from ..fleet import merged
from ..fleet import Unit
from ..observation import Running
from .server import TIMEOUT

#: Seconds in which workers have to answer.
_PATIENCE = 1.0

#: Of their mailboxes: Celery's ``control_exchange``.
_MAILBOX = "celery"
_QUESTIONS = ("active_queues", "active")

_Replies = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Task:
    """What a worker executes.

    :param id: The message's.
    :param name: What it is to execute.
    :param started: When it began, seconds since 1970; ``None`` if it does not say.
    """

    id: str
    name: str
    started: float | None

    def running(self, now: float) -> Running:
        """Return it as what holds a slot."""
        return Running(self.name, max(now - (self.started or now), 0.0))


@dataclass(frozen=True)
class Node:
    """A worker that answers.

    :param name: ``<any>@<host>``.
    :param slots: Tasks that it executes at a time.
    :param uptime: Seconds since it started.
    :param queues: The names of those that it serves.
    :param tasks: What it executes, of whatever queue: each holds a slot.
    """

    name: str
    slots: int
    uptime: float
    queues: frozenset[str]
    tasks: tuple[Task, ...]


def units_of(nodes: t.Iterable[Node], now: float) -> list[Unit]:
    """Return the workers by their hosts, those of one host as one."""
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

    :param url: Where the broker is.
    :param prefix: What all its keys begin with.
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
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
            # With it, whoever waits for messages gives what workers have had for an
            # hour to others, whatever the app has as its visibility_timeout.
            "ack_emulation": False,
        }

    def ask(self) -> list[Node]:
        """Return those that answer.

        :raises PlatformError: The broker does not answer, or the workers do, but not
            in JSON.
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
            connect_timeout=TIMEOUT,
            transport_options=self._options,
            ssl=self._ssl,
        )

    def _ask(self, connection: t.Any) -> list[Node]:
        # One for each question: an answer to another one, that comes late, would be
        # taken for one that is waited for.
        everyone, *boxes = (self._mailbox(connection) for _ in range(3))
        stats = _by_node(everyone.multi_call("stats", timeout=_PATIENCE))
        if not stats:
            return []
        # Whom to wait for is known now: this is answered as fast as they can. What they
        # execute is asked last: a task is there until they do, and not before.
        serving, active = (
            _by_node(box.call([*stats], question, timeout=_PATIENCE))
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
    """Return *url* as Kombu takes it: without options that are those of redis-py."""
    parts = urllib.parse.urlsplit(url)
    options = dict(urllib.parse.parse_qsl(parts.query))
    path = f"/{options['db']}" if "db" in options else parts.path
    kept = {name: text for name, text in options.items() if name.startswith("ssl_")}
    query = urllib.parse.urlencode(kept)
    return urllib.parse.urlunsplit(parts._replace(path=path, query=query))


def _ssl_of(url: str) -> bool | dict[str, t.Any]:
    """Return how to verify the broker: Kombu does not, if nobody says so."""
    if not url.startswith("rediss:") or "ssl_cert_reqs" in url:
        return False
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def _by_node(replies: list[_Replies] | None) -> _Replies:
    return {name: said for reply in replies or () for name, said in reply.items()}


def _node(name: str, stat: t.Any, active: t.Any, serving: t.Any) -> Node | None:
    """Return a worker by its replies; ``None`` if one is missing or says an error."""
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
