"""Commands in one round trip, over a connection that the calling thread keeps.

A redis-py client does more than send and read: it borrows a connection, watches it, and
looks up how to read each command's reply. That takes longer than sending and reading.
The paths of every event and every step skip it.
"""

from __future__ import annotations

import threading
import typing as t

import redis
from hiredis import pack_command
from redis.connection import AbstractConnection

from .client import ClusterClient
from .client import UNLIMITED
from .connections import is_outdated

Argument = str | int | float | bytes
Command = t.Sequence[Argument]


class _Kept(threading.local):
    """The connection that a thread keeps.

    :param busy: True while a reply is on its way.
    :param of: The client whose pool the connection is of.
    :param by: The thread's own client, which keeps it.
    """

    busy = False
    of: redis.Redis | None = None
    by: redis.Redis | None = None
    connection: AbstractConnection | None = None


class RoundTrip:
    """Sends commands for the threads of one process.

    Commands that may have been sent are sent again after a connection failed, so every
    command has to bear that. Replies are as the connection reads them.
    """

    def __init__(self) -> None:
        self._local = _Kept()

    def __call__(
        self, client: redis.Redis, commands: t.Sequence[Command]
    ) -> list[t.Any]:
        """Send *commands* to the server or the cluster of *client*, in one round trip.

        :returns: The replies, in order; an error is returned in its place.
        :raises redis.ConnectionError: The server cannot be reached, the client's
            repetitions included.
        :raises redis.TimeoutError: The server did not answer in time, likewise.
        """
        connection = self._own(client)
        if connection is not None:
            try:
                return self._directly(connection, commands)
            except (redis.ConnectionError, redis.TimeoutError):
                pass
        return self._through_client(client, commands)

    def once(self, client: redis.Redis, commands: t.Sequence[Command]) -> list[t.Any]:
        """Do the same without a repetition, for callers that repeat it themselves.

        :param client: A client without repetitions of its own.
        """
        connection = self._own(client)
        if connection is None:
            return self._through_client(client, commands)
        return self._directly(connection, commands)

    def _through_client(
        self, client: redis.Redis, commands: t.Sequence[Command]
    ) -> list[t.Any]:
        # The client repeats them, as often as it repeats other commands.
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            execute(pipeline, *command)
        return pipeline.execute(raise_on_error=False)

    def _directly(
        self, connection: AbstractConnection, commands: t.Sequence[Command]
    ) -> list[t.Any]:
        self._local.busy = True
        try:
            if is_outdated(connection):
                connection.disconnect()  # type: ignore[no-untyped-call]
            # Its stub has a tuple of one element.
            packed = [pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]
            connection.send_packed_command([b"".join(packed)])  # type: ignore[no-untyped-call]
            return [_reply(connection) for _ in commands]
        except BaseException:
            # Also where a step's body was interrupted: an unread reply would be taken
            # for the reply to the next command.
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            self._local.busy = False

    def _own(self, client: redis.Redis) -> AbstractConnection | None:
        """Return the calling thread's own connection; ``None`` in a cluster.

        A client keeps it, one of the pool of *client*, and gives it back when the
        thread ends.
        """
        kept = self._local
        if kept.busy:
            return None  # a signal's handler; the reply in flight is not its own
        if kept.of is not client:
            kept.of, kept.by, kept.connection = client, None, None
            if _may_keep_a_connection(client):
                kept.by = redis.Redis(
                    connection_pool=client.connection_pool,
                    single_connection_client=True,
                )
                kept.connection = kept.by.connection
        return kept.connection


def _may_keep_a_connection(client: redis.Redis) -> bool:
    """Return whether each thread may keep a connection.

    False for a cluster's client, and for one whose pool is limited
    (``?max_connections=``): idle threads would keep connections that others need.
    """
    if isinstance(client, ClusterClient):
        return False
    return bool(client.connection_pool.max_connections >= UNLIMITED)


def execute(client: redis.Redis, *command: Argument) -> t.Any:
    """Send a command that is written out, past redis-py's own method for it."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def _reply(connection: AbstractConnection) -> t.Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        # Break the cycles: its frames lead to it, its context to the handled error.
        error.__traceback__ = error.__context__ = None
        return error
