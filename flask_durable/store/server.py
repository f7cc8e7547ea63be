"""The connection to the state server: one client a process, scripts by digest."""

from __future__ import annotations

import os
import threading
import typing as t

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from ..errors import ConfigurationError
from ..redis.client import ask_all
from ..redis.client import client_factory
from ..redis.client import ClientFactory
from ..redis.client import holders
from ..redis.client import name_of_holder
from ..redis.exchange import Argument
from ..redis.exchange import Command
from ..redis.exchange import execute
from ..redis.exchange import RoundTrip
from ..redis.scripts import all_scripts
from ..security.redaction import mask_url

#: Seconds until a command without an answer is given up and repeated.
SOCKET_TIMEOUT = 5.0

#: The number of repetitions by the client before the caller gets the error. Every
#: script may be repeated: its second call gives the first one's answer.
CLIENT_RETRIES = 3

Call = tuple[str, str, t.Sequence[Argument]]


class StateServer:
    """A Redis-protocol server; each process connects on first use, also after a fork.

    :param url: A ``redis://``, ``rediss://``, ``unix://`` or ``redis+cluster://`` URL.
    :param retries: Repetitions of a command whose reply was lost.
    :param timeout: Seconds to wait for a connection, and for a reply.
    """

    def __init__(
        self,
        url: str,
        *,
        retries: int = CLIENT_RETRIES,
        timeout: float = SOCKET_TIMEOUT,
    ) -> None:
        self.url = url
        self._retries = retries
        self._timeout = timeout
        self._lock = threading.Lock()
        #: The client and its process id: in one value, since threads read it without
        #: the lock.
        self._made: tuple[redis.Redis, int] | None = None
        self._exchange = RoundTrip()
        self._factory: ClientFactory | None = None
        self._scripts = all_scripts(__package__)

    def __repr__(self) -> str:
        return f"<StateServer {mask_url(self.url)}>"

    @property
    def client(self) -> redis.Redis:
        """This process's client; its replies are text."""
        made = self._made
        # A connection that crossed a fork would be read by two processes.
        if made is None or made[1] != os.getpid():
            with self._lock:
                made = self._made
                if made is None or made[1] != os.getpid():
                    made = self._made = (self.new_client(), os.getpid())
        return made[0]

    def new_client(
        self, *, retries: int | None = None, timeout: float | None = None
    ) -> redis.Redis:
        """Return a separate client, for blocking reads and barriers.

        :param retries: Repetitions of a command whose reply was lost, if not the usual.
        :param timeout: Seconds to wait for a reply, if not the usual.
        """
        retries = self._retries if retries is None else retries
        return self.make_client(
            decode_responses=True,
            socket_timeout=self._timeout if timeout is None else timeout,
            socket_connect_timeout=self._timeout,
            health_check_interval=0,
            retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.01), retries),
        )

    def make_client(self, **options: t.Any) -> redis.Redis:
        """Return a separate client, with *options* of :class:`redis.Redis`.

        For queues that live here it is their ``ClientFactory``.

        :raises ConfigurationError: The URL is malformed.
        """
        if self._factory is None:
            # One for all clients: they share their knowledge of dead connections.
            try:
                self._factory = client_factory(self.url)
            except ValueError as error:
                raise ConfigurationError(f"DURABLE_REDIS_URL {error}.") from None
        return self._factory(**options)

    def place_of(self, tag: str) -> str:
        """Return a name of the server that has *tag*, without asking; may be empty."""
        try:
            return name_of_holder(self.client, tag)
        except redis.RedisError:  # a cluster's client connects when it is made
            return ""

    def check(self, tags: t.Sequence[str]) -> None:
        """Check that the server answers and takes writes, or every primary does.

        In a cluster each server that holds one of *tags* gets a small write. A server
        that has become a replica answers everything else.

        :raises redis.RedisError: The server did not answer, or takes no writes.
        """
        client = self.client
        ask_all(client, "PING")
        for _, tag in holders(client, tags):
            self.call("barrier", tag)

    def call(self, name: str, tag: str, *args: Argument) -> t.Any:
        """Run the script *name* on the keys of *tag* in one round trip.

        :raises redis.RedisError: The server did not answer, or refused.
        """
        script = self._scripts[name]
        [reply] = self._exchange(
            self.client, [("EVALSHA", script.digest, 1, tag, *args)]
        )
        if not isinstance(reply, Exception):
            return reply
        if isinstance(reply, NoScriptError):
            return execute(self.client, "EVAL", script.source, 1, tag, *args)
        raise reply

    def call_many(self, calls: t.Sequence[Call], *commands: Command) -> list[t.Any]:
        """Run scripts, then plain *commands*, in one pipeline.

        :param calls: The script, tag and arguments of each call.
        :returns: The replies, in order; an error is returned in its place.
        """
        scripts = [self._scripts[name] for name, _, _ in calls]
        by_digest = [("EVALSHA", script.digest) for script in scripts]
        replies = self._call_many(by_digest, calls, commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # A server that was restarted or flushed knows no scripts; in a cluster it
            # may be one of several. All calls may be repeated, also those that already
            # ran, and the commands must come after them.
            by_source = [("EVAL", script.source) for script in scripts]
            replies = self._call_many(by_source, calls, commands)
        return replies

    def _call_many(
        self,
        heads: t.Sequence[tuple[str, str]],
        calls: t.Sequence[Call],
        commands: t.Sequence[Command],
    ) -> list[t.Any]:
        scripts = [
            (*head, 1, tag, *args)
            for head, (_, tag, args) in zip(heads, calls, strict=True)
        ]
        return self._exchange(self.client, [*scripts, *commands])

    def reconnect(self) -> None:
        """Use new connections from now on, in every thread of this process.

        Connections in use end as they do. Idle ones are not waited for: over a network
        that has dropped them each would take a whole timeout.
        """
        with self._lock:
            self._made = None

    def close(self) -> None:
        """Close this process's connections."""
        made, self._made = self._made, None
        if made is not None and made[1] == os.getpid():
            made[0].close()
