"""The barrier: nothing is deleted from a queue before what it led to is on disk.

One small write, then ``WAITAOF`` or ``WAIT``: when that is answered, everything this
server acknowledged before the write is as durable as the server was asked to make it.
Of a cluster, each server that holds some of the state is asked, all at the same time.
One barrier runs at a time, and everybody who asked before it began shares it.
"""

from __future__ import annotations

import functools
import threading
import typing as t
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import redis

from ..errors import ConfigurationError
from ..errors import UnavailableError
from ..redis_client import ask_all
from ..redis_client import holders
from .scripts import load
from .server import execute
from .server import StateServer

#: Seconds that the disk or the replicas have; ``everysec`` takes up to about two.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Promise:
    """What the server is able to keep, as far as it can be asked.

    :param aof: Whether it has an append-only file.
    :param fsync: Its ``appendfsync`` policy, or ``"unknown"``.
    :param waitaof: Whether it can be asked to wait for the file.
    :param replicas: How many replicas are waited for.
    """

    aof: bool
    fsync: str
    waitaof: bool
    replicas: int

    def __str__(self) -> str:
        if not self.aof:
            kept = "memory only: a restart of the server loses all state"
        elif self.fsync == "always":
            kept = "on disk at each write"
        elif self.waitaof:
            kept = f"on disk before a message is deleted (appendfsync {self.fsync})"
        else:
            kept = f"on disk within about a second (appendfsync {self.fsync})"
        return kept + (f", on {self.replicas} replica(s)" if self.replicas else "")


class Barrier:
    """Waits until what was written so far is durable.

    :param server: The state server.
    :param tags: The tags of all keys that it is for; a small write goes under one of
        each server.
    :param replicas: How many replicas must have it, ``DURABLE_REPLICAS``.
    """

    def __init__(
        self, server: StateServer, tags: t.Sequence[str], replicas: int
    ) -> None:
        self._server = server
        self._tags = tags
        self._replicas = replicas
        self._lock = threading.Lock()
        #: The barrier that has not begun yet, if somebody waits for one.
        self._next: Future[None] | None = None
        #: Held by the barrier that has begun.
        self._turn = threading.Lock()
        self._client: redis.Redis | None = None
        self._promise: Promise | None = None

    def promise(self) -> Promise:
        """Ask the server what it keeps; remembered after the first answer.

        :raises ConfigurationError: Its ``maxmemory-policy`` may evict state.
        """
        if self._promise is None:
            self._promise = self._ask()
        return self._promise

    def wait(self) -> None:
        """Return once everything acknowledged before this call is durable.

        :raises UnavailableError: The server did not confirm it in time.
        """
        with self._lock:
            # A barrier that has begun may have written before our state was: only the
            # next one covers it.
            shared, leads = self._next, self._next is None
            if shared is None:
                shared = self._next = Future()
        if leads:
            self._lead(shared)
        try:
            shared.result()
        except (redis.RedisError, UnavailableError) as error:
            raise UnavailableError(f"The state is not durable yet: {error}.") from error

    def _lead(self, shared: Future[None]) -> None:
        """Carry *shared* out for all who wait for it, however it ends."""
        try:
            with self._turn:
                self._begin(shared)
                self._pass()
        except Exception as error:
            self._begin(shared)
            shared.set_exception(error)
        except BaseException:
            # An interrupt is meant for this thread alone.
            self._begin(shared)
            shared.set_exception(UnavailableError("the wait for it was interrupted"))
            raise
        else:
            shared.set_result(None)

    def _begin(self, shared: Future[None]) -> None:
        """Let nobody join *shared* any more."""
        with self._lock:
            if self._next is shared:
                self._next = None

    def _pass(self) -> None:
        promise = self.promise()
        waits_for_file = promise.aof and promise.waitaof and promise.fsync != "always"
        if not waits_for_file and not self._replicas:
            return
        if self._client is None:
            # No client retries: a repeated WAIT would be for a later write.
            self._client = self._server.new_client(retries=0, timeout=TIMEOUT + 2)
        confirm = functools.partial(self._confirm, waits_for_file=waits_for_file)
        try:
            servers = holders(self._client, self._tags)
            if len(servers) == 1:
                confirm(servers[0])
            else:
                with ThreadPoolExecutor(len(servers)) as threads:
                    list(threads.map(confirm, servers))
        except redis.RedisError:
            # A cluster may have moved its keys: the next client asks where to.
            client, self._client = self._client, None
            client.close()
            raise

    def _confirm(
        self, holder: tuple[redis.Redis, str], *, waits_for_file: bool
    ) -> None:
        """Wait for one server."""
        client, tag = holder
        pipeline = client.pipeline(transaction=False)
        # A script, because a SET is refused where the server's memory is full: then
        # nothing could be deleted from a queue that lives elsewhere. Where the tag has
        # moved away it is refused, and nothing is taken for confirmed.
        execute(pipeline, "EVAL", load("barrier").source, 1, tag)
        limit = int(TIMEOUT * 1000)
        if waits_for_file:
            execute(pipeline, "WAITAOF", 1, self._replicas, limit)
        else:
            execute(pipeline, "WAIT", self._replicas, limit)
        reply = pipeline.execute()[1]
        local, replicas = reply if waits_for_file else (1, reply)
        if (waits_for_file and local < 1) or replicas < self._replicas:
            raise UnavailableError("the server did not confirm the write in time")

    def _ask(self) -> Promise:
        client = self._server.client
        configs = _configs(client)
        for policy in {config["maxmemory-policy"] for config in configs}:
            if policy != "noeviction":
                raise ConfigurationError(
                    f"The state server may evict what it was given to keep "
                    f"(maxmemory-policy {policy}).",
                    hint="Set its maxmemory-policy to noeviction.",
                )
        return Promise(
            aof=all(config["appendonly"] == "yes" for config in configs),
            fsync=min((config["appendfsync"] for config in configs), key=_strength),
            waitaof=_knows(client, "WAITAOF"),
            replicas=self._replicas,
        )


def _configs(client: redis.Redis) -> list[dict[str, str]]:
    """Return what decides about durability, of each server."""
    names = ("appendonly", "appendfsync", "maxmemory-policy")
    try:
        answers = ask_all(client, "CONFIG GET", *names)
    except redis.ResponseError:
        # Managed servers forbid CONFIG; INFO says most of it.
        return [
            {
                "appendonly": "yes" if info.get("aof_enabled") else "no",
                "appendfsync": "unknown",
                "maxmemory-policy": info.get("maxmemory_policy", "noeviction"),
            }
            for info in ask_all(client, "INFO")
        ]
    defaults = dict(zip(names, ("no", "unknown", "noeviction"), strict=True))
    return [{**defaults, **config} for config in answers]


def _strength(fsync: str) -> int:
    return ("no", "unknown", "everysec", "always").index(fsync)


def _knows(client: redis.Redis, command: str) -> bool:
    try:
        answers = ask_all(client, "COMMAND", "INFO", command)
    except redis.ResponseError:
        return False
    return all(
        any(found.values() if isinstance(found, dict) else found) for found in answers
    )
