"""Clients of Redis-protocol servers: of a single one, or of a cluster.

Both kinds have the same methods. Commands for whole servers instead of keys go through
the functions of this module.
"""

from __future__ import annotations

import functools
import typing as t
from urllib.parse import urlsplit

import redis
from redis.cluster import ClusterNode
from redis.cluster import ClusterPipeline
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.exceptions import ClusterError
from redis.exceptions import RedisClusterException

from ..errors import ConfigurationError
from .connections import Generation
from .connections import Pool
from .tls import check_tls
from .urls import check_redis_url
from .urls import is_cluster
from .urls import node_urls

#: Called with keyword options of :class:`redis.Redis`, returns a new client.
ClientFactory = t.Callable[..., redis.Redis]

_DEFAULT_PORT = 6379

#: Connections of a pool whose URL sets no limit.
UNLIMITED = 2**31


#: The protocol that all clients speak. The shapes of replies depend on it, and proxies
#: that refuse ``HELLO`` know no other.
_PROTOCOL = 2


def client_factory(url: str) -> ClientFactory:
    """Return a factory of clients of the server or the cluster at *url*.

    A client of a single server connects when it is used. One of a cluster connects at
    once, to learn of the nodes, and raises :exc:`redis.ConnectionError` if it cannot.
    Clients of one factory share their knowledge of dead connections.

    :raises ValueError: The URL cannot be used; the text says why, as the rest of a
        sentence.
    """
    url = check_redis_url(url)
    urls = node_urls(url)
    if is_cluster(url):
        return functools.partial(_connect_cluster, urls)
    # The URL may set a limit. redis-py's own is 100, and each thread keeps one.
    return functools.partial(
        _connect, url, generation=Generation(), max_connections=UNLIMITED
    )


def ask_all(client: redis.Redis, *command: str) -> list[t.Any]:
    """Send *command* to the server, or to each primary of a cluster.

    :returns: The answers, one from each server.
    """
    if isinstance(client, ClusterClient):
        return client.ask(client.get_primaries, *command)
    return [_execute(client, *command)]


def ask_holder(client: redis.Redis, key: str, *command: str) -> t.Any:
    """Send *command* to the server, or to the primary of a cluster that holds *key*."""
    if isinstance(client, ClusterClient):
        return client.ask(lambda: [client.get_node_from_key(key)], *command)[0]
    return _execute(client, *command)


def name_of_holder(client: redis.Redis, key: str) -> str:
    """Return a name of the server that holds *key*, as far as the client knows.

    No server is asked. It is empty if there is one server, or none is known.
    """
    if not isinstance(client, ClusterClient):
        return ""
    try:
        return str(client.get_node_from_key(key).name)
    except RedisClusterException:
        return ""


def holders(
    client: redis.Redis, keys: t.Sequence[str]
) -> list[tuple[redis.Redis, str]]:
    """Return a client of each server that holds some of *keys*, and one such key.

    Commands to a single server of a cluster are not repeated, nor sent to another one
    when the key has moved.
    """
    if not isinstance(client, ClusterClient):
        return [(client, keys[0])]
    found: dict[str, tuple[redis.Redis, str]] = {}
    for key in keys:
        try:
            node = client.get_node_from_key(key)
        except RedisClusterException as error:
            raise _unavailable(error) from error
        found[node.name] = client.get_redis_connection(node), key
    return list(found.values())


class _KnowsKeys:
    """Finds the keys of commands that redis-py would ask a server about.

    That question is one more round trip for each command, to a server that may be down.
    """

    def _get_command_keys(self, *args: t.Any) -> t.Any:
        if args[0] in ("EVAL", "EVALSHA"):
            return args[3 : 3 + int(args[2])]
        if args[0] == "XREADGROUP":
            streams = args[args.index(b"STREAMS") + 1 :]
            return streams[: len(streams) // 2]
        return super()._get_command_keys(*args)  # type: ignore[misc]


class ClusterClient(_KnowsKeys, RedisCluster):
    """A client of a cluster that raises what a client of a single server raises.

    redis-py has its own kinds of errors for a cluster that cannot serve a key at the
    moment, and some are no :exc:`redis.RedisError`. Here they are
    :exc:`redis.ConnectionError`: the caller's repetitions are meant for them too.
    """

    def execute_command(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Send a command to its node or nodes."""
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except (RedisClusterException, ClusterError) as error:
            raise _unavailable(error) from error

    def pipeline(self, transaction: t.Any = None, shard_hint: t.Any = None) -> t.Any:
        """Return a pipeline. It is never a transaction: redis-py's releases differ.

        Before 7.0 a transaction that meets a server that is away ends in an internal
        error of the client, and before 8.0 it leaves replies as the server sent them.
        """
        return _Pipeline(
            self.nodes_manager,
            self.commands_parser,
            cluster_response_callbacks=self.cluster_response_callbacks,
            retry=self.retry,
            lock=self._lock,
            transaction=False,
        )

    def ask(
        self, nodes: t.Callable[[], list[ClusterNode]], *command: str
    ) -> list[t.Any]:
        """Send *command* to each of *nodes*, which are looked up again after a failure.

        redis-py does not repeat commands for a node instead of a key.
        """
        return self.retry.call_with_retry(
            lambda: [
                self.execute_command(*command, target_nodes=node) for node in nodes()
            ],
            lambda error: None,
        )

    def close(self) -> None:
        """Close all connections."""
        super().close()
        self.disconnect_connection_pools()  # type: ignore[no-untyped-call]


class _Pipeline(_KnowsKeys, ClusterPipeline):
    """A pipeline of a :class:`ClusterClient`."""

    def execute(self, raise_on_error: bool = True) -> list[t.Any]:
        try:
            replies = super().execute(raise_on_error)
        except (RedisClusterException, ClusterError) as error:
            raise _unavailable(error) from error
        return [
            _unavailable(reply)
            if isinstance(reply, (RedisClusterException, ClusterError))
            else reply
            for reply in replies
        ]


def _connect(url: str, **options: t.Any) -> redis.Redis:
    given = _of_url(url)
    pool = Pool(**{**options, **given, "protocol": _PROTOCOL})
    return redis.Redis.from_pool(pool)


def _connect_cluster(urls: list[str], **options: t.Any) -> redis.Redis:
    first, *others = urls
    _of_url(first)
    nodes = [_node(url) for url in others]
    options |= {"protocol": _PROTOCOL, "connection_pool_class": Pool}
    try:
        client = ClusterClient(url=first, startup_nodes=nodes, **options)
    except RedisClusterException as error:
        if "Cluster mode is not enabled" in str(error):
            raise ConfigurationError(
                "The server is not a node of a cluster.",
                hint="Write redis:// instead of redis+cluster://.",
            ) from error
        raise _unavailable(error) from error
    return t.cast(redis.Redis, client)


def _of_url(url: str) -> dict[str, t.Any]:
    """Return the options of redis-py that are in *url*.

    :raises ConfigurationError: The URL names files of TLS that cannot be used.
    """
    options = t.cast("dict[str, t.Any]", parse_url(url))  # type: ignore[no-untyped-call]
    if options.get("ssl_cert_reqs") == "none":
        # No name is compared where no certificate is asked for. Not every redis-py
        # infers it.
        options["ssl_check_hostname"] = False
    check_tls(options)
    return options


def _node(url: str) -> ClusterNode:
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORT
    return ClusterNode(parts.hostname, port)  # type: ignore[no-untyped-call]


def _unavailable(error: Exception) -> redis.ConnectionError:
    return redis.ConnectionError(f"The cluster cannot answer now: {error}")


def _execute(client: redis.Redis, *command: str) -> t.Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]
