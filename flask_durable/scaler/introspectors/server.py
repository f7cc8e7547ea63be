"""Reads from the Redis server that another library keeps its queues on."""

from __future__ import annotations

import contextlib
import functools
import typing as t

import redis

from ...errors import ConfigurationError
from ...errors import PlatformError
from ...redis_client import client_factory
from .sampling import shares

#: Seconds after which a server that does not answer is given up.
_TIMEOUT = 5.0
#: Positions of a list that are asked for at once.
_AT_ONCE = 250


class QueueServer:
    """The server of somebody else's queues, of which nothing is changed.

    :param url: Where it is.
    :raises ConfigurationError: The URL is malformed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._factory = client_factory(url)
        except ValueError as error:
            raise ConfigurationError(
                "The URL of an introspector names no server.",
                hint="Write it as redis://HOST:PORT/DATABASE.",
            ) from error

    @functools.cached_property
    def _client(self) -> redis.Redis:
        return self._factory(
            decode_responses=True,
            encoding_errors="replace",  # there may be bytes of any kind in there
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
        )

    @contextlib.contextmanager
    def client(self) -> t.Iterator[redis.Redis]:
        """Return a client of it.

        :raises PlatformError: In the body, the server refuses or does not answer.
        """
        try:
            yield self._client
        except redis.AuthenticationError:
            raise PlatformError(
                "The server of the queues does not accept the password.",
                code="platform.auth",
                hint="Look at the url of the introspector.",
            ) from None
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise PlatformError(
                f"The server of the queues does not answer: {type(error).__name__}.",
                code="platform.unavailable",
            ) from error
        except redis.RedisError as error:
            raise PlatformError(f"The server of the queues refuses: {error}") from error


def server_time(client: redis.Redis) -> float:
    """Return the seconds since 1970, by the server's clock."""
    seconds, microseconds = client.time()
    return int(seconds) + int(microseconds) / 1e6


def lengths_of(client: redis.Redis, keys: t.Collection[str]) -> dict[str, int]:
    """Return how many elements each of those lists has."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.llen(key)
    return dict(zip(keys, pipeline.execute(), strict=True))


def read_hash(client: redis.Redis, key: str, most: int) -> list[tuple[str, int]]:
    """Return values of a hash, at random if there are more than *most*.

    :returns: Each value, and how many it stands for.
    """
    total = client.hlen(key)
    values = t.cast("list[str]", client.hrandfield(key, most, withvalues=True))[1::2]
    numbers = shares(max(total, len(values)), [1] * len(values))
    return list(zip(values, numbers, strict=True))


def read_list(
    client: redis.Redis, key: str, positions: t.Sequence[int]
) -> list[str | None]:
    """Return what is at those *positions* of a list; ``None`` where it is shorter now.

    :param positions: In order.
    """
    if not positions:
        return []
    first, last = positions[0], positions[-1]
    if last - first + 1 == len(positions):
        found = t.cast("list[str]", client.lrange(key, first, last))
        return [*found, *[None] * (len(positions) - len(found))]
    values: list[str | None] = []
    for start in range(0, len(positions), _AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for position in positions[start : start + _AT_ONCE]:
            pipeline.lindex(key, position)
        values += pipeline.execute()
    return values
