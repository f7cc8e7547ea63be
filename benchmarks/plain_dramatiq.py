"""The yardstick of runs a second: a no-op actor on Dramatiq's own Redis broker.

Its workers are started as ``dramatiq benchmarks.plain_dramatiq``; the server is the one
that ``BENCHMARK_REDIS_URL`` names.
"""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(  # type: ignore[no-untyped-call]
    url=os.environ.get("BENCHMARK_REDIS_URL", "redis://127.0.0.1:6379/0"),
    namespace="plain",
)
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(data: dict[str, int]) -> None:
    """Do nothing."""


def unfinished() -> int:
    """Return how many messages were not processed yet."""
    return int(broker.client.hlen("plain:default.msgs"))
