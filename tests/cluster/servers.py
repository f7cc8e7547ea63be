"""A real cluster: Valkey servers in cluster mode, and the slots spread over them."""

from __future__ import annotations

import bisect
import contextlib
import functools
import pathlib
import shutil
import tempfile
import typing as t

import redis
from redis.crc import key_slot

from ..support.servers import free_port
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

SLOTS = 16384


class ValkeyCluster:
    """Primaries without replicas that share all slots.

    :ivar nodes: The servers; each can be killed and started again.
    :ivar url: The address in the form of ``DURABLE_REDIS_URL``.
    """

    def __init__(self, directory: str, size: int, **config: str) -> None:
        self.nodes = [_node(directory, number, config) for number in range(size)]
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.url = f"redis+cluster://{places}"

    def start(self) -> None:
        """Start the servers, give each its slots, and wait until they agree."""
        for number, node in enumerate(self.nodes):
            node.start()
            first = SLOTS * number // len(self.nodes)
            last = SLOTS * (number + 1) // len(self.nodes) - 1
            ask(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in self.nodes[1:]:
            bus = node.config["cluster-port"]
            ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        self.wait_ok()

    def wait_ok(self) -> None:
        """Wait until every server knows all the others and serves its keys."""
        for node in self.nodes:
            wait_until(functools.partial(self._is_ok, node), "the cluster")

    def node_of(self, key: str) -> ValkeyServer:
        """Return the server that holds *key*."""
        slot = key_slot(key.encode())
        firsts = [
            SLOTS * number // len(self.nodes) for number in range(len(self.nodes))
        ]
        return self.nodes[bisect.bisect_right(firsts, slot) - 1]

    def kill(self) -> None:
        """End every server with SIGKILL."""
        for node in self.nodes:
            node.kill()

    def _is_ok(self, node: ValkeyServer) -> bool:
        lines = ask(node, "CLUSTER", "INFO").splitlines()
        return {
            "cluster_state:ok",
            f"cluster_known_nodes:{len(self.nodes)}",
            f"cluster_size:{len(self.nodes)}",
        } <= set(lines)


class _Node(ValkeyServer):
    def __init__(self, directory: str, **config: str) -> None:
        super().__init__(directory, **config)
        self.config = config


def _node(directory: str, number: int, config: dict[str, str]) -> _Node:
    own = pathlib.Path(directory, str(number))
    own.mkdir()
    return _Node(
        str(own),
        **{
            "cluster-enabled": "yes",
            # The default is the port plus 10,000, which may be none.
            "cluster-port": str(free_port()),
            "cluster-node-timeout": "1000",
            **config,
        },
    )


def ask(node: ValkeyServer, *command: str | int) -> t.Any:
    """Send one command to one server, and return the reply as the server gives it."""
    with redis.Redis.from_url(node.url, decode_responses=True, protocol=3) as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)


@contextlib.contextmanager
def cluster_server(size: int = 3, **config: str) -> t.Iterator[ValkeyCluster]:
    """Run a cluster with its data in a temporary directory.

    :param size: The number of servers.
    :param config: Options of each server.
    """
    directory = tempfile.mkdtemp(prefix="valkey-cluster-")
    cluster = ValkeyCluster(directory, size, **config)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(directory, ignore_errors=True)
