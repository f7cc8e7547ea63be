"""What the platforms of Amazon are tested with."""

from __future__ import annotations

import itertools
import typing as t

import boto3
import pytest

from ...servers import SQSServer

_numbers = itertools.count()


class Amazon:
    """moto's server, which knows many services besides SQS."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def client(self, service: str) -> t.Any:
        return boto3.client(service, endpoint_url=self.endpoint)


@pytest.fixture
def amazon(sqs: SQSServer) -> Amazon:
    return Amazon(sqs.endpoint)


@pytest.fixture
def name() -> str:
    """A name that nothing else has."""
    return f"pool-{next(_numbers)}"
