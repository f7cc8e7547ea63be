"""The connection to the state server: one client a process, scripts by digest."""

from __future__ import annotations

import os
import threading
import typing as t

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from ..config import mask_url
from ..errors import ConfigurationError
from ..errors import UnavailableError
from .scripts import load
from .scripts import Script

#: Seconds until a command that was not answered is given up and repeated.
SOCKET_TIMEOUT = 5.0

#: How often a command is repeated by the client before the caller hears of it. Every
#: script may be repeated: its second call gives the first one's answer.
CLIENT_RETRIES = 3

Argument = str | int | float | bytes
Call = tuple[str, str, t.Sequence[Argument]]


class StateServer:
    """A Redis-protocol server, reached lazily and anew in every forked process.

    :param url: ``redis://``, ``rediss://`` or ``unix://``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        self._pid: int | None = None
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"<StateServer {mask_url(self.url)}>"

    @property
    def client(self) -> redis.Redis:
        """This process's client; its replies are text."""
        if self._pid != os.getpid():
            with self._lock:
                # A connection that crossed a fork would be read by two processes.
                if self._pid != os.getpid():
                    self._client = self.new_client()
                    self._pid = os.getpid()
        return t.cast(redis.Redis, self._client)

    def new_client(
        self, *, retries: int = CLIENT_RETRIES, timeout: float = SOCKET_TIMEOUT
    ) -> redis.Redis:
        """Return a client of its own, for blocking reads and barriers.

        :param retries: Repetitions of a command whose reply was lost.
        :param timeout: Seconds to wait for a reply.
        """
        try:
            return redis.Redis.from_url(
                self.url,
                decode_responses=True,
                socket_timeout=timeout,
                socket_connect_timeout=SOCKET_TIMEOUT,
                health_check_interval=0,
                retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.01), retries),
            )
        except ValueError as error:
            raise ConfigurationError(
                f"DURABLE_REDIS_URL {mask_url(self.url)!r} cannot be used: {error}."
            ) from None

    def client_factory(self, **options: t.Any) -> redis.Redis:
        """Return a client with *options* of its own, for queues that live here."""
        return redis.Redis.from_url(self.url, **options)

    def call(self, name: str, tag: str, *args: Argument) -> t.Any:
        """Run the script *name* on the keys of *tag* in one round trip.

        :raises redis.RedisError: The server did not answer, or refused.
        """
        script = load(name)
        client = self._own_client()
        try:
            return execute(client, "EVALSHA", script.digest, 1, tag, *args)
        except NoScriptError:
            return execute(client, "EVAL", script.source, 1, tag, *args)

    def call_many(
        self, calls: t.Sequence[Call], *commands: t.Sequence[Argument]
    ) -> list[t.Any]:
        """Run scripts, then plain *commands*, in one pipeline.

        :param calls: ``(script, tag, arguments)`` each.
        :returns: One reply each, in order; an error is returned in its place.
        """
        scripts = [load(name) for name, _, _ in calls]
        replies = self._pipeline(scripts, calls, commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # A server that was restarted or flushed knows no scripts. All calls may be
            # repeated, those that already ran included.
            for script in set(scripts):
                self.client.script_load(script.source)
            replies = self._pipeline(scripts, calls, commands)
        return replies

    def _own_client(self) -> redis.Redis:
        """Return a client that keeps one connection for the calling thread.

        Taking one from the pool and giving it back takes a third of a short call. When
        the thread ends, the connection goes back.
        """
        pool = self.client.connection_pool
        own: redis.Redis | None = getattr(self._local, "client", None)
        if own is None or own.connection_pool is not pool:
            own = redis.Redis(connection_pool=pool, single_connection_client=True)
            self._local.client = own
        return own

    def _pipeline(
        self,
        scripts: t.Sequence[Script],
        calls: t.Sequence[Call],
        commands: t.Sequence[t.Sequence[Argument]],
    ) -> list[t.Any]:
        pipeline = self.client.pipeline(transaction=False)
        for script, (_, tag, args) in zip(scripts, calls, strict=True):
            execute(pipeline, "EVALSHA", script.digest, 1, tag, *args)
        for command in commands:
            execute(pipeline, *command)
        return pipeline.execute(raise_on_error=False)

    def unavailable(self, error: Exception) -> UnavailableError:
        """Return *error* as a public error that names the server."""
        return UnavailableError(
            f"The state server {mask_url(self.url)} cannot be used: {error}.",
            hint="Start it, or correct DURABLE_REDIS_URL.",
        )

    def close(self) -> None:
        """Close this process's connections."""
        if self._client is not None and self._pid == os.getpid():
            self._client.close()
        self._client = self._pid = None


def execute(client: redis.Redis, *command: Argument) -> t.Any:
    """Send a command that is spelled out, past redis-py's own method for it."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]
