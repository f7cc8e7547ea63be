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
from ..redis.client import client_factory
from ..redis.client import ClientFactory

if t.TYPE_CHECKING:
    from .state import AppState


def make_transport(
    settings: Settings, state_clients: ClientFactory, home: Home | None = None
) -> Transport:
    """Return the queues of *settings*. Nothing is connected to.

    :param state_clients: Makes clients of the state server, for queues that live there
        too; called with options of :class:`redis.Redis`.
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
    if url is None or url == settings.redis_url:
        return RedisTransport(state_clients, **options)
    return RedisTransport(queue_client_factory(url), **options)


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


def queue_client_factory(url: str) -> ClientFactory:
    """Return a factory of clients of the Redis-protocol server or cluster at *url*.

    :raises ConfigurationError: The URL is malformed.
    """
    try:
        return client_factory(url)
    except ValueError as error:
        raise ConfigurationError(f"The queue's URL {error}.") from None
