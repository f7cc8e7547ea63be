"""The directory of functions and workers: what every process of an app can run.

A router matches an event against the union of what all processes published, so that a
worker with older code does not swallow events for newer code.
"""

from __future__ import annotations

import json
import threading
import typing as t
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..redis_client import as_mapping
from ..redis_client import ask_holder
from ..redis_exchange import execute
from .keys import Keys
from .server import StateServer

#: Milliseconds after which a function that no process published is forgotten: long
#: enough for a deploy, short enough that a removed function stops getting runs.
FORGET_AFTER = 3600 * 1000

#: Milliseconds after which a schedule that no process looked at is forgotten. Of what
#: was missed in less the latest instant is made up.
SCHEDULE_FORGOTTEN = 7 * 86400 * 1000

#: Seconds after which a worker that said nothing counts as gone.
WORKER_GONE = 15


@dataclass(frozen=True)
class Published:
    """What is known of the functions of all processes.

    :param version: Changes with every change; compared for equality.
    :param functions: Function id to its description (``Function.spec()``).
    """

    version: int
    functions: dict[str, dict[str, t.Any]]


class Directory:
    """Publishes and reads functions and workers of one namespace."""

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._tag = keys.root
        self._lock = threading.Lock()
        self._cached = Published(-1, {})

    def claim_namespace(self, app_name: str) -> None:
        """Note whose namespace this is and how it is partitioned.

        :raises ConfigurationError: It belongs to another app, or has another number of
            partitions.
        """
        key = f"{self._tag}:meta"
        pipeline = self._server.client.pipeline(transaction=True)
        pipeline.hsetnx(key, "app", app_name)
        pipeline.hsetnx(key, "partitions", str(self._keys.partitions))
        pipeline.hmget(key, ["app", "partitions"])
        owner, partitions = pipeline.execute()[2]
        if owner != app_name:
            raise ConfigurationError(
                f"The namespace {self._keys.namespace!r} is used by the app {owner!r}.",
                hint=f"Set another DURABLE_NAMESPACE for {app_name!r}.",
            )
        if int(partitions) != self._keys.partitions:
            raise ConfigurationError(
                f"The namespace {self._keys.namespace!r} has {partitions} partition(s)"
                f", not {self._keys.partitions}; the number cannot be changed.",
                hint="Set DURABLE_PARTITIONS back, or use another DURABLE_NAMESPACE.",
            )

    def publish(self, functions: t.Mapping[str, dict[str, t.Any]]) -> None:
        """Say that this process has the code of *functions*."""
        args: list[str | int] = [FORGET_AFTER]
        for id, description in functions.items():
            args += [id, json.dumps(description, sort_keys=True)]
        self._server.call("functions_publish", self._tag, *args)

    @property
    def version_command(self) -> tuple[str, str]:
        """The plain command that reads the version, to be sent in a pipeline."""
        return "GET", f"{self._tag}:functions:version"

    def current(self) -> Published:
        """Ask the server what is published, and remember it.

        What is remembered stays the same object while it is the same.
        """
        pipeline = self._server.client.pipeline(transaction=True)
        execute(pipeline, *self.version_command)
        pipeline.hgetall(f"{self._tag}:functions")
        found, reply = pipeline.execute()
        functions = as_mapping(reply)
        published = Published(
            int(found or 0),
            {id: json.loads(text) for id, text in functions.items()},
        )
        with self._lock:
            if published != self._cached:
                self._cached = published
            return self._cached

    def schedule_marks(self, done: t.Mapping[str, int]) -> tuple[int, dict[str, int]]:
        """Note up to when schedules are carried out; return the time and the notes.

        :param done: Schedule to the time up to which each of its instants has a run,
            or 0. All times are milliseconds since 1970, the server's clock.
        """
        args: list[str | int] = [SCHEDULE_FORGOTTEN]
        for schedule, time in done.items():
            args += [schedule, time]
        now, *marks = self._server.call("cron_marks", self._tag, *args)
        return int(now), dict(zip(done, map(int, marks), strict=True))

    def forget_stale(self) -> None:
        """Forget the functions that no process had the code of for an hour."""
        self.publish({})

    @property
    def remembered(self) -> Published:
        """What was read last, without asking the server."""
        return self._cached

    def beat(
        self, worker: str, description: dict[str, t.Any], functions: t.Sequence[str]
    ) -> None:
        """Say that a worker process is alive, what it serves, and what it can run.

        What it can run is only kept alive here, not published again: of two versions
        of a function that run side by side, the one that started last is described.

        :param functions: Ids of the functions whose code it has.
        """
        client = self._server.client
        seconds = self._now()
        pipeline = client.pipeline(transaction=True)
        pipeline.hset(f"{self._tag}:workers", worker, json.dumps(description))
        pipeline.zadd(f"{self._tag}:workers:seen", {worker: seconds})
        pipeline.zremrangebyscore(
            f"{self._tag}:workers:seen", "-inf", seconds - 10 * WORKER_GONE
        )
        if functions:
            pipeline.zadd(
                f"{self._tag}:functions:seen",
                dict.fromkeys(functions, seconds * 1000),
                xx=True,
            )
        pipeline.zrange(f"{self._tag}:workers:seen", 0, -1)
        pipeline.hkeys(f"{self._tag}:workers")
        *_, seen, known = pipeline.execute()
        gone = set(known) - set(seen)
        if gone:
            client.hdel(f"{self._tag}:workers", *gone)

    def leave(self, worker: str) -> None:
        """Say that a worker process has ended."""
        pipeline = self._server.client.pipeline(transaction=True)
        pipeline.hdel(f"{self._tag}:workers", worker)
        pipeline.zrem(f"{self._tag}:workers:seen", worker)
        pipeline.execute()

    def workers(self) -> list[dict[str, t.Any]]:
        """Return the descriptions of the workers that are alive."""
        client = self._server.client
        seconds = self._now()
        alive = t.cast(
            "list[str]",
            client.zrangebyscore(
                f"{self._tag}:workers:seen", seconds - WORKER_GONE, "+inf"
            ),
        )
        if not alive:
            return []
        found = t.cast("list[str | None]", client.hmget(f"{self._tag}:workers", alive))
        return [json.loads(text) for text in found if text]

    def _now(self) -> int:
        """The time in seconds by the clock that all workers' beats are measured by."""
        seconds, _ = ask_holder(self._server.client, self._tag, "TIME")
        return int(seconds)
