from __future__ import annotations

import typing as t

import pytest

from ..support.servers import MotoServer
from ..support.servers import SQSServer
from ..support.servers import ValkeyServer
from .kit import Kit
from .kit import RedisKit
from .kit import SQSKit
from .sqs_proxy import Proxy
from .sqs_proxy import sqs_proxy


@pytest.fixture
def redis_kit(valkey: ValkeyServer) -> t.Iterator[RedisKit]:
    made = RedisKit(valkey.url)
    yield made
    made.close()


@pytest.fixture
def sqs_kit(sqs: SQSServer) -> t.Iterator[SQSKit]:
    made = SQSKit(sqs.url)
    made.takes_stale_receipts = isinstance(sqs, MotoServer)
    yield made
    made.close()


@pytest.fixture
def proxy(sqs: SQSServer) -> t.Iterator[Proxy]:
    """A proxy in front of the SQS server, with faults for its calls."""
    with sqs_proxy(sqs.endpoint) as made:
        yield made


@pytest.fixture(params=["redis", "sqs"])
def kit(request: pytest.FixtureRequest) -> Kit:
    made: Kit = request.getfixturevalue(f"{request.param}_kit")
    return made
