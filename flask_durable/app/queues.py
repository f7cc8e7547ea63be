"""Makes the queues that ``DURABLE_QUEUE_URL`` names."""

from __future__ import annotations

import importlib.util
import typing as t

from ..config.settings import Settings
from ..errors import ConfigurationError
from ..queue.marks import Home
from ..queue.redis_streams.transport import RedisTransport
from ..queue.sqs.client import needs_boto3
from ..queue.sqs.options import SQSAddress
from ..queue.sqs.transport import SQSTransport
from ..queue.transport import Transport
from ..redis import client as redis_client
from ..redis.client import ClientFactory

if t.TYPE_CHECKING:
    from .state import AppState


def make_transport(
    settings: Settings,
    *,
    redis_client_factory: ClientFactory | None = None,
    home: Home | None = None,
) -> Transport:
    """Return the queues of *settings*. Nothing is connected to.

    :param redis_client_factory: Makes clients of the state server, for queues that
        live there too; called with options of :class:`redis.Redis`. By default they
        are made from ``DURABLE_REDIS_URL``.
    :param home: The installation that this process is of, if queues are elsewhere.
    :raises ConfigurationError: The URL cannot be used, or needs an extra.
    """
    url = settings.queue_url
    options: dict[str, t.Any] = {
        "namespace": settings.namespace,
        "visibility": settings.visibility_timeout,
        "answer_within": settings.answer_within,
    }
    if url is not None and url.lower().startswith("sqs://"):
        if importlib.util.find_spec("boto3") is None:
            raise needs_boto3()
        return SQSTransport(
            SQSAddress.parse(url), options=settings.queues, home=home, **options
        )
    connect = redis_client_factory
    if connect is None or url not in (None, settings.redis_url):
        connect = client_factory(url or settings.redis_url)
    return RedisTransport(connect, **options)


class StateBehindQueues:
    """The state of an app, as its broker depends on it.

    :param state: The services of the app.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state
        waits = state.settings.fsync != "off"
        self._barrier = state.barrier.follower() if waits else None

    @property
    def reachable(self) -> bool:
        """True while the state server answers."""
        return self._state.reachable

    def wait_durable(self) -> bool:
        """Wait for the barrier, except with ``DURABLE_FSYNC="off"``.

        :returns: False if some state written since the last call may be lost.
        """
        return self._barrier is None or self._barrier()

    def note_failures(self, failed: t.Mapping[str, str]) -> None:
        """Keep the errors of messages.

        :param failed: Error texts by the keys of their messages.
        """
        self._state.failures.note(failed)


def client_factory(url: str | None) -> ClientFactory:
    """Return a factory of clients of the Redis-protocol server or cluster at *url*.

    :raises ConfigurationError: There is no URL, or it is malformed.
    """
    if url is None:
        raise ConfigurationError(
            "There is no server for the queues.",
            hint="Set DURABLE_QUEUE_URL or DURABLE_REDIS_URL.",
        )
    try:
        return redis_client.client_factory(url)
    except ValueError as error:
        raise ConfigurationError(f"The queue's URL {error}.") from None
