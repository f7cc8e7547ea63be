"""A primary and its replica, behind a name that leads to the primary."""

from __future__ import annotations

import contextlib
import typing as t

import redis

from .proxy import Proxy
from .proxy import proxy
from .servers import GivenServer
from .servers import valkey_server
from .servers import ValkeyServer
from .servers import wait_until


class Pair:
    """Two servers that change places.

    :param old: The primary server.
    :param new: The replica of it.
    :param name: The name, which leads to the primary.
    """

    def __init__(self, old: ValkeyServer, new: ValkeyServer, name: Proxy) -> None:
        self.old = old
        self.new = new
        self.name = name

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.name.port}/0"

    @property
    def server(self) -> ValkeyServer:
        """The server that the name leads to, as apps know it."""
        return GivenServer(self.url)

    @property
    def is_whole(self) -> bool:
        """True if the replica follows the primary."""
        with redis.Redis.from_url(self.new.url) as client:
            try:
                found = client.info("replication")
            except redis.RedisError:  # it has only just been started
                return False
        return found.get("master_link_status") == "up"

    def switch(self) -> None:
        """Have the two change places. The old primary keeps its connections."""
        command(self.new, "REPLICAOF", "NO", "ONE")
        command(self.old, "REPLICAOF", "127.0.0.1", str(self.new.port))
        self._name_leads_to_the_other()

    def hand_over(self) -> None:
        """Have the two change places as planned: no write is lost."""
        command(self.old, "FAILOVER", "TO", "127.0.0.1", str(self.new.port))
        wait_until(lambda: _role(self.new) == "master", "the new primary")
        self._name_leads_to_the_other()

    def lose_the_primary(self) -> None:
        """Have the replica take over from a primary that dies."""
        self.old.kill()
        command(self.new, "REPLICAOF", "NO", "ONE")
        self._name_leads_to_the_other()

    def bring_back(self) -> None:
        """Start the dead server again, as a replica."""
        self.new.start(replicaof=f"127.0.0.1 {self.old.port}")

    def _name_leads_to_the_other(self) -> None:
        self.old, self.new = self.new, self.old
        self.name.lead_to(self.old.port)


@contextlib.contextmanager
def replicated(**config: str) -> t.Iterator[Pair]:
    """Run a pair, and wait until the replica follows.

    :param config: Options of both, such as ``appendfsync="always"``.
    """
    quick = {"repl-diskless-sync-delay": "0", **config}
    with valkey_server(**quick) as old:
        follows = f"127.0.0.1 {old.port}"
        with (
            valkey_server(replicaof=follows, **quick) as new,
            proxy(old.port, b"\0") as name,
        ):
            pair = Pair(old, new, name)
            wait_until(lambda: pair.is_whole, "the replica")
            yield pair


def command(server: ValkeyServer, *words: str) -> None:
    """Give a server a command."""
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*words)


def _role(server: ValkeyServer) -> str:
    with redis.Redis.from_url(server.url) as client:
        return str(client.info("replication")["role"])
