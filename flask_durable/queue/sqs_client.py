"""The boto3 client of SQS: where it connects to, and what its errors mean."""

from __future__ import annotations

import importlib
import typing as t
from dataclasses import dataclass
from urllib.parse import parse_qs
from urllib.parse import urlsplit

from ..errors import ConfigurationError

#: Seconds that a long poll takes, at most.
LONGEST_POLL = 20

MISSING = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
EXISTS = {"QueueAlreadyExists", "QueueNameExists"}
THROTTLED = {"RequestThrottled", "ThrottlingException", "Throttling", "OverLimit"}


@dataclass(frozen=True)
class SQSAddress:
    """Where the queues are: ``sqs://?region=…&prefix=…&endpoint=…``, all optional.

    :param region: As boto3 finds it, if not given.
    :param prefix: Of every queue's name; the namespace if not given.
    :param endpoint: Another server than Amazon's.
    """

    region: str | None = None
    prefix: str | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, url: str) -> SQSAddress:
        """Return the address that *url* holds.

        :raises ConfigurationError: It has a host, a path or an unknown parameter.
        """
        parts = urlsplit(url)
        values = {key: found[-1] for key, found in parse_qs(parts.query).items()}
        unknown = values.keys() - {"region", "prefix", "endpoint"}
        if unknown or parts.netloc or parts.path.strip("/"):
            raise ConfigurationError(
                "DURABLE_QUEUE_URL has parts that SQS queues do not have"
                + (f": {', '.join(sorted(unknown))}." if unknown else "."),
                hint='Write it as "sqs://?region=…&prefix=…&endpoint=…".',
            )
        return cls(**values)


def make_client(address: SQSAddress, *, answer_within: float | None = None) -> t.Any:
    """Return a new boto3 client, which all threads of a process may share.

    Making one is not thread-safe, and none survives a fork.

    :param answer_within: Seconds to wait for a connection, and for an answer, of one
        try without repetition; by default a long poll is waited for, and calls are
        repeated.
    :raises ConfigurationError: boto3 is not installed.
    """
    try:
        session = importlib.import_module("boto3.session").Session()
        config = importlib.import_module("botocore.config").Config
    except ImportError:
        raise needs_boto3() from None
    return session.client(
        "sqs",
        region_name=address.region,
        endpoint_url=address.endpoint,
        config=config(
            # Fixed: botocore builds its own text anew for each call.
            user_agent="flask-durable",
            parameter_validation=False,
            max_pool_connections=32,
            **_patient() if answer_within is None else _impatient(answer_within),
        ),
    )


def _patient() -> dict[str, t.Any]:
    return {
        "retries": {"mode": "standard", "max_attempts": 3},
        "connect_timeout": 5,
        "read_timeout": LONGEST_POLL + 10,
    }


def _impatient(seconds: float) -> dict[str, t.Any]:
    return {
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "connect_timeout": seconds,
        "read_timeout": seconds,
    }


def needs_boto3() -> ConfigurationError:
    """Return the error that names the extra."""
    return ConfigurationError(
        "DURABLE_QUEUE_URL names SQS, and boto3 is not installed.",
        hint='Run `pip install "flask-durable[sqs]"`.',
    )


def error_code(error: Exception) -> str:
    """Return the code of an error that SQS answered with, else ``""``."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Whether a call may succeed when repeated later: no connection, throttled, 5xx."""
    exceptions = importlib.import_module("botocore.exceptions")
    if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
        return True
    response = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error_code(error) in THROTTLED or status >= 500
