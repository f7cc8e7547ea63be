"""Counts round trips where redis-py writes to a socket and reads from it.

A command is one trip, and so is a pipeline, however many commands it carries: the
client writes once and then reads the replies. A trip counts when its first reply was
read, so a read that blocks until a message comes counts with the message.
"""

from __future__ import annotations

import contextlib
import re
import threading
import typing as t
from collections import Counter
from dataclasses import dataclass

from redis.connection import Connection

from flask_durable.redis.scripts import all_scripts

#: Threads whose trips serve no single run: each makes so many a second, whatever else
#: happens in the process.
BACKGROUND = ("durable-leases", "durable-sweeper", "durable-beat", "durable-heartbeat")

#: What a connection begins with; and what a receiver does once a second, to find
#: messages that are due or whose receiver died.
_SETUP = ("HELLO", "CLIENT", "AUTH", "SELECT")
_MENDING = ("q_promote", "q_reclaim")

_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n(\w+)\r\n(?:\$\d+\r\n([0-9a-f]{40})\r\n)?")


@dataclass(frozen=True)
class Trip:
    """One write to the server and its answer.

    :param thread: The name of the thread that waited for it.
    :param commands: What was asked for; a script is called by its name.
    :param waited: Whether it was a read that waited for a message in vain.
    """

    thread: str
    commands: tuple[str, ...]
    waited: bool

    @property
    def background(self) -> bool:
        """Whether it would have been made without any run."""
        unasked = self.commands[0] in (*_SETUP, *_MENDING)
        return self.waited or unasked or self.thread in BACKGROUND

    def __str__(self) -> str:
        return "+".join(self.commands)


@contextlib.contextmanager
def recorded_trips() -> t.Iterator[list[Trip]]:
    """Record the trips of all other threads of this process, in order."""
    trips: list[Trip] = []
    names = _script_names()
    asked: dict[int, tuple[tuple[str, ...], bool]] = {}
    own = threading.get_ident()
    send: t.Any = Connection.send_packed_command
    read: t.Any = Connection.read_response

    def record_send(
        self: t.Any, command: t.Any, *args: t.Any, **kwargs: t.Any
    ) -> t.Any:
        parts: list[t.Any] = [command] if isinstance(command, bytes) else list(command)
        text = b"".join(parts)
        commands = tuple(
            names.get(digest) or name.decode()
            for name, digest in _COMMAND.findall(text)
        )
        blocks = commands == ("XREADGROUP",) and b"\r\nBLOCK\r\n" in text
        asked[threading.get_ident()] = commands, blocks
        return send(self, parts, *args, **kwargs)

    def record_read(self: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        reply = read(self, *args, **kwargs)
        commands, blocks = asked.pop(threading.get_ident(), ((), False))
        if commands and threading.get_ident() != own:
            waited = blocks and not reply
            trips.append(Trip(threading.current_thread().name, commands, waited))
        return reply

    Connection.send_packed_command = record_send  # type: ignore[method-assign]
    Connection.read_response = record_read  # type: ignore[method-assign]
    try:
        yield trips
    finally:
        Connection.send_packed_command = send  # type: ignore[method-assign]
        Connection.read_response = read  # type: ignore[method-assign]


def serving(trips: t.Iterable[Trip]) -> list[Trip]:
    """Return those of *trips* that were made for a run."""
    return [trip for trip in trips if not trip.background]


def summary(trips: t.Iterable[Trip]) -> str:
    """Return what *trips* asked for, each with its count."""
    counts = Counter(str(trip) for trip in trips)
    return ", ".join(f"{n} {name}" if n > 1 else name for name, n in counts.items())


def _script_names() -> dict[bytes, str]:
    return {
        script.digest.encode(): name
        for package in ("flask_durable.store", "flask_durable.queue.redis_streams")
        for name, script in all_scripts(package).items()
    }
