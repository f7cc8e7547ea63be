"""Connections that notice when they are dead, and pools of them.

Two kinds look alive. After a planned failover the old primary lives on as a replica: it
keeps its connections and answers each write with ``READONLY``. That is an answer, so no
client would ever leave. And a network that dropped its connections gives no sign: a
connection learns that by itself only after a whole timeout.

So an answer that only a replica gives becomes a :exc:`redis.ConnectionError`: all
repetitions then use a new connection. And either kind ends the *generation* of its
connections. Those of a former generation are closed before they are used again, whether
they are idle in a pool or a thread keeps them. So one timeout is paid for all of them.
"""

from __future__ import annotations

import contextlib
import typing as t

import redis
from redis.connection import Connection
from redis.connection import SSLConnection
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import MasterDownError
from redis.exceptions import ReadOnlyError

#: The client's name and version for the server. A redis-py that has this class would
#: read the version from a file for each connection. By then the release may be removed,
#: or no file descriptor be left, and the error would not look like one of a connection.
_TOLD: dict[str, t.Any] = {}
with contextlib.suppress(ImportError):
    from redis.driver_info import DriverInfo

    _TOLD["driver_info"] = DriverInfo()

#: The error of a blocked read whose server becomes a replica.
_DEMOTED = ("UNBLOCKED force unblock from blocking operation, instance state changed",)


class Generation:
    """The connections of a process that are still trusted.

    Threads share it without a lock: a number that is read too late costs one more
    failure, and one that is counted twice costs nothing.
    """

    def __init__(self) -> None:
        self.number = 0

    def end(self, number: int) -> None:
        """Close, before they are used again, the connections made up to *number*."""
        if number == self.number:
            self.number = number + 1


class _Watchful:
    """The addition to each kind of redis-py's connections.

    :param generation: The generation that the connection's pools share.
    """

    def __init__(self, *args: t.Any, generation: Generation, **options: t.Any) -> None:
        self._generation = generation
        self._made_in = generation.number
        super().__init__(*args, **options)

    @property
    def outdated(self) -> bool:
        """True if another connection showed that those of its generation are dead."""
        return self._made_in != self._generation.number

    def connect(self) -> t.Any:
        if self.outdated:
            self.disconnect()  # type: ignore[attr-defined]
        return super().connect()  # type: ignore[misc]

    def _connect(self) -> t.Any:
        self._made_in = self._generation.number
        return super()._connect()  # type: ignore[misc]

    def read_response(self, *args: t.Any, **options: t.Any) -> t.Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            if not _is_of_replica(error):
                raise
            self._end_generation()
            raise redis.ConnectionError(f"The server is a replica: {error}") from error
        except redis.TimeoutError:
            self._end_generation()
            raise

    def _end_generation(self) -> None:
        # Otherwise replies on their way would be taken for later ones.
        self.disconnect()  # type: ignore[attr-defined]
        self._generation.end(self._made_in)


class _Plain(_Watchful, Connection):
    """A connection over TCP."""


class _Encrypted(_Watchful, SSLConnection):
    """A connection over TLS."""


class _Local(_Watchful, UnixDomainSocketConnection):
    """A connection over a socket in the file system."""


_WATCHFUL: dict[type, type[_Watchful]] = {
    Connection: _Plain,
    SSLConnection: _Encrypted,
    UnixDomainSocketConnection: _Local,
}


class Pool(redis.ConnectionPool):
    """A pool of connections with a generation.

    :param connection_class: The class of redis-py for the way to connect.
    :param generation: The generation shared with other pools of the same server; by
        default a new one, as for the nodes of a cluster.
    """

    def __init__(
        self,
        connection_class: type = Connection,
        *args: t.Any,
        generation: Generation | None = None,
        **options: t.Any,
    ) -> None:
        super().__init__(
            _WATCHFUL[connection_class],
            *args,
            generation=generation or Generation(),
            **{**_TOLD, **options},
        )


def is_outdated(connection: object) -> bool:
    """Return whether *connection* has to be closed before it is used again."""
    if not isinstance(connection, _Watchful):
        return False
    # Not by its property: this is asked before each command.
    return connection._made_in != connection._generation.number


def _is_of_replica(error: redis.ResponseError) -> bool:
    if isinstance(error, (ReadOnlyError, MasterDownError)):
        return True
    return str(error).startswith(_DEMOTED)
