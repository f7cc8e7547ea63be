"""The boto3 client of SQS: its making, its calls, and the meaning of its errors."""

from __future__ import annotations

import typing as t

from ...clients import aws
from ...common.processes import PerProcess
from ...common.safe_logging import get_logger
from ...errors import ConfigurationError
from .options import SQSAddress

#: The longest time of a long poll, in seconds.
LONGEST_POLL = 20

MISSING = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
EXISTS = {"QueueAlreadyExists", "QueueNameExists"}

#: Error codes of a missing permission.
DENIED = {"AccessDenied", "AccessDeniedException"}

#: Error codes of throttling, although their HTTP status is 400.
THROTTLED = {
    "RequestThrottled",
    "ThrottlingException",
    "Throttling",
    "TooManyRequestsException",
    "OverLimit",
    "AWS.SimpleQueueService.OverLimit",
    "KmsThrottled",
    "KMS.ThrottlingException",
}

#: Error codes of credentials that ended, or were exchanged.
EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
}

#: The same, and missing credentials, which botocore finds before it calls.
_ABSENT = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "MetadataRetrievalError",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
)

logger = get_logger(__name__)


#: The field that each answer to a call has. botocore makes a reply of anything with
#: status 200: of an empty body, or of a page that a proxy answered.
_CONFIRMED_BY = {
    "create_queue": "QueueUrl",
    "get_queue_url": "QueueUrl",
    "send_message": "MessageId",
}


class NotAnswered(Exception):
    """Raised if something other than SQS answered: the call's outcome is not known."""


class SQSClient:
    """This process's boto3 client.

    botocore renews credentials that end. If it could find none, or its credentials were
    exchanged for others, a client goes on without or with the old ones for as long as
    it lives. So a client that met such an error is replaced by a new one.

    :param address: The address that it connects to.
    :param answer_within: The limit of :func:`make_client`.
    """

    def __init__(
        self, address: SQSAddress, *, answer_within: float | None = None
    ) -> None:
        self._clients: PerProcess[t.Any] = PerProcess(
            lambda: make_client(address, answer_within=answer_within)
        )

    def get(self) -> t.Any:
        """Return the client, which all threads of the process share."""
        return self._clients.get()

    def call(self, operation: str, **request: t.Any) -> t.Any:
        """Return the answer of SQS.

        :param operation: The name of a method of the client.
        :raises ConfigurationError: The caller may not make this call.
        :raises NotAnswered: The reply is not one of SQS.
        :raises Exception: An error of botocore: the call failed otherwise.
        """
        client = self.get()
        try:
            return _confirmed(operation, getattr(client, operation)(**request))
        except Exception as error:
            if is_about_credentials(error) and self._clients.drop(client):
                # Not closed: other threads may be in the middle of calls.
                logger.warning(
                    "SQS takes no call: %s", error, extra={"action": "queue_away"}
                )
            if error_code(error) in DENIED:
                raise _forbidden(operation, request) from error
            raise

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        client = self._clients.pop()
        if client is not None:
            client.close()


def _confirmed(operation: str, reply: t.Any) -> t.Any:
    """Return *reply* if it may be SQS's.

    :raises NotAnswered: The reply lacks the field that SQS always sends.
    """
    needed = _CONFIRMED_BY.get(operation)
    # botocore puts text that is no JSON there; no answer of SQS has that field.
    if "message" in reply or (needed is not None and needed not in reply):
        raise NotAnswered(f"the answer to {operation} is not one of SQS")
    return reply


def _forbidden(operation: str, request: t.Mapping[str, t.Any]) -> ConfigurationError:
    action = "".join(word.title() for word in operation.split("_"))
    queue = request.get("QueueName") or str(request.get("QueueUrl")).rpartition("/")[2]
    return ConfigurationError(
        f"SQS denies sqs:{action.removesuffix('Batch')} on the queue {queue}.",
        hint='Allow it: see "Permissions on SQS" in the documentation, and the policy '
        "of the KMS key if the queue has one.",
    )


def make_client(address: SQSAddress, *, answer_within: float | None = None) -> t.Any:
    """Return a new boto3 client, which all threads of a process may share.

    Making one is not thread-safe, and none survives a fork.

    :param answer_within: Seconds to wait for a connection, and for an answer, without
        repetition. By default the wait is long enough for a long poll, and calls are
        repeated.
    :raises ConfigurationError: boto3 is not installed.
    """
    _botocore()
    calls: dict[str, t.Any] = {
        "tries": 4,
        "connect_timeout": 5,
        "read_timeout": LONGEST_POLL + 10,
    }
    if answer_within is not None:
        calls = {
            "tries": 1,
            "connect_timeout": answer_within,
            "read_timeout": answer_within,
        }
    return aws.new_client(
        "sqs",
        address.region,
        address.endpoint,
        parameter_validation=False,
        max_pool_connections=32,
        **calls,
    )


def needs_boto3() -> ConfigurationError:
    """Return the error that names the missing extra."""
    return aws.needs_boto3("A DURABLE_QUEUE_URL of SQS", "sqs")


def _botocore() -> t.Any:
    """Return the exceptions of botocore.

    :raises ConfigurationError: boto3 is not installed.
    """
    return aws.load_boto3("A DURABLE_QUEUE_URL of SQS", "sqs")


def error_code(error: Exception) -> str:
    """Return the code of an error that SQS answered with, otherwise ``""``."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_about_credentials(error: Exception) -> bool:
    """Return True if there are no credentials, or SQS does not take them."""
    return error_code(error) in EXPIRED or type(error).__name__ in _ABSENT


def is_transient(error: Exception) -> bool:
    """Return True if a call may succeed when repeated later.

    There is no connection, SQS asks for fewer calls or failed itself, or credentials
    are missing or have ended, which an operator mends.
    """
    if isinstance(error, NotAnswered):
        return True
    exceptions = _botocore()
    if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
        return True
    response = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error_code(error)
    return code in THROTTLED or status >= 500 or is_about_credentials(error)
