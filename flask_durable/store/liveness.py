"""The sign of a process that lives and cannot renew its leases.

``<tag>:alive:<process>`` exists for the time of a lease. While it exists, ``sweep``
takes none of the runs whose tokens that process made.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict

import redis
from hiredis import pack_command

from .run_store import RunStore

#: A script, because a plain ``SET`` is refused where the server's memory is full.
_SIGN = """#!lua flags=allow-oom
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
"""


class SignConnections:
    """Connections for sending a sign, by a process that has their file descriptors.

    :param store: The store whose runs are kept.
    :param process: The id of the process, as its tokens have it.
    """

    def __init__(self, store: RunStore, process: str) -> None:
        # Kept: a client closes its connections when it is no longer used.
        self._client = store.server.new_client(retries=0)
        commands: defaultdict[redis.Redis, bytes] = defaultdict(bytes)
        for tag in store.keys.tags:
            key = f"{tag}:alive:{process}"
            lease = str(round(store.lease * 1000))
            command = ("EVAL", _SIGN, "1", key, lease)
            home = self._client
            if isinstance(home, redis.RedisCluster):
                home = home.get_node_from_key(key).redis_connection
            # Its stub has a tuple of one element.
            commands[home] += pack_command(command)  # type: ignore[arg-type]
        #: A connection to each server, and the bytes to send on it.
        self.signs: list[tuple[t.Any, bytes]] = [
            (home.connection_pool.get_connection(), command)
            for home, command in commands.items()
        ]

    def close(self) -> None:
        """Close the connections."""
        for connection, _ in self.signs:
            connection.disconnect()
        self._client.close()
