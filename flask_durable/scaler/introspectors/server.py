"""Reads from the Redis server on which another library keeps its queues."""

from __future__ import annotations

import contextlib
import functools
import typing as t

import redis

from ...errors import ConfigurationError
from ...errors import PlatformError
from ...redis.client import client_factory
from ...redis.urls import without_other_options
from .sampling import weights

#: Seconds after which a server that does not answer is given up.
SERVER_TIMEOUT = 5.0
#: Positions, or fields of a hash, that are asked for at once.
_PARTS_PER_CALL = 250


class QueueServer:
    """The server of another library's queues, which are only read.

    :param url: The URL of the server.
    :raises ConfigurationError: The URL is malformed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._factory = client_factory(without_other_options(url))
        except ValueError as error:
            raise ConfigurationError(
                f"The URL of an introspector {error}.",
                hint="Write it as redis://HOST:PORT/DATABASE.",
            ) from error

    @functools.cached_property
    def _client(self) -> redis.Redis:
        return self._factory(
            decode_responses=True,
            encoding_errors="replace",  # the data may be bytes of any kind
            socket_timeout=SERVER_TIMEOUT,
            socket_connect_timeout=SERVER_TIMEOUT,
        )

    @contextlib.contextmanager
    def client(self) -> t.Iterator[redis.Redis]:
        """Return a client of the server.

        :raises PlatformError: In the body, the server refuses or does not answer.
        """
        try:
            yield self._client
        except redis.AuthenticationError:
            raise PlatformError(
                "The server of the queues does not accept the password.",
                code="platform.auth",
                hint="Check the url of the introspector.",
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
    """Return the number of elements of each of these lists."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.llen(key)
    return dict(zip(keys, pipeline.execute(), strict=True))


def read_hash(client: redis.Redis, key: str, most: int) -> list[tuple[str, int]]:
    """Return values of a hash; a random sample if there are more than *most*.

    :returns: Each value, and the number of values that it stands for.
    """
    total = client.hlen(key)
    fields = t.cast("list[str]", client.hrandfield(key, most) or [])
    found: list[str | None] = []
    for first in range(0, len(fields), _PARTS_PER_CALL):
        some = fields[first : first + _PARTS_PER_CALL]
        found += t.cast("list[str | None]", client.hmget(key, some))
    values = [value for value in found if value is not None]
    # The same share of the values that were not looked at is gone.
    number = round(max(total, len(fields)) * len(values) / max(len(fields), 1))
    return list(zip(values, weights(number, len(values)), strict=True))


def read_list(
    client: redis.Redis, key: str, positions: t.Sequence[int]
) -> list[str | None]:
    """Return the elements at *positions* of a list; ``None`` where it is shorter now.

    :param positions: The positions, in ascending order.
    """

    def ask(pipeline: redis.client.Pipeline, first: int, last: int) -> None:
        pipeline.lrange(key, first, last)

    return _read(client, positions, ask)


def read_sorted_set(
    client: redis.Redis, key: str, ranks: t.Sequence[int]
) -> list[tuple[str, float]]:
    """Return the members at *ranks* of a sorted set, with scores, where it has them.

    :param ranks: The ranks, in ascending order.
    """

    def ask(pipeline: redis.client.Pipeline, first: int, last: int) -> None:
        pipeline.zrange(key, first, last, withscores=True)

    found = _read(client, ranks, ask)
    return [(member, score) for member, score in filter(None, found)]


def _read(
    client: redis.Redis,
    positions: t.Sequence[int],
    ask: t.Callable[[redis.client.Pipeline, int, int], None],
) -> list[t.Any]:
    """Return the values at *positions*. If adjacent, one call reads all."""
    parts = [(position, position) for position in positions]
    if positions and positions[-1] - positions[0] + 1 == len(positions):
        parts = [(positions[0], positions[-1])]
    values: list[t.Any] = []
    for start in range(0, len(parts), _PARTS_PER_CALL):
        some = parts[start : start + _PARTS_PER_CALL]
        pipeline = client.pipeline(transaction=False)
        for first, last in some:
            ask(pipeline, first, last)
        for (first, last), found in zip(some, pipeline.execute(), strict=True):
            values += [*found, *[None] * (last - first + 1 - len(found))]
    return values
