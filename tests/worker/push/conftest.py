from __future__ import annotations

import typing as t

import pytest

from flask_durable.worker.push.worker import PushWorker

from ...support.harness import Harness
from ...support.servers import SQSServer
from ...support.servers import ValkeyServer
from .sqsd import Daemon
from .sqsd import to_app


@pytest.fixture
def pushed(valkey: ValkeyServer, sqs: SQSServer, namespace: str) -> t.Iterator[Harness]:
    """An app on SQS that takes pushed messages, with the settings of production."""
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_FSYNC="ack",
        DURABLE_PUSH_LOOPBACK=True,
    )
    yield harness
    end(harness)


@pytest.fixture
def daemon(pushed: Harness, sqs: SQSServer) -> Daemon:
    """The daemon that posts messages to the app."""
    return Daemon(sqs, to_app(pushed.app), pushed.state.settings.namespace)


def end(harness: Harness) -> None:
    """End the threads that the push worker of an app has started."""
    holder = vars(harness.state).get("push_worker")
    worker: PushWorker | None = holder.pop() if holder else None
    if worker is not None:
        worker.stop()
    harness.close()
