"""Calls of Amazon's APIs through boto3, and the meaning of their errors."""

from __future__ import annotations

import functools
import importlib
import typing as t

from ..errors import ConfigurationError
from ..errors import PlatformError

#: Seconds to wait for a connection and for an answer, and tries of a call.
CONNECT_TIMEOUT = 3
READ_TIMEOUT = 15
TRIES = 3

_CODES = {
    "platform.auth": (
        *("AccessDenied", "AccessDeniedException", "AuthFailure", "ExpiredToken"),
        *("ExpiredTokenException", "InsufficientPrivilegesException"),
        *("InvalidClientTokenId", "SignatureDoesNotMatch", "UnauthorizedOperation"),
        "UnrecognizedClientException",
    ),
    "platform.not_found": (
        *("ClusterNotFoundException", "ServiceNotActiveException"),
        "ServiceNotFoundException",
    ),
    "platform.rate_limited": (
        *("RequestLimitExceeded", "Throttling", "ThrottlingException"),
        "TooManyRequestsException",
    ),
    "platform.conflict": ("ResourceContention", "ScalingActivityInProgress"),
}
_CODE_OF = {error: code for code, errors in _CODES.items() for error in errors}

#: Errors of boto3 itself that concern credentials.
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError")
#: Errors of boto3 itself before any call was made.
_UNUSABLE = ("NoRegionError", "ParamValidationError", "InvalidRegionError")


class AWSClient:
    """One service of Amazon. Credentials and region are found as boto3 finds them.

    :param owner: The caller's name in messages.
    :param service: The name of the service in boto3.
    :param region: The region; ``None``: as boto3 finds it.
    :param endpoint: The URL of another server than Amazon's.
    :param tries: The most tries of a call that is throttled, or gets no answer.
    :param timeout: Seconds to wait for an answer.
    :raises ConfigurationError: The package boto3 is not installed.
    """

    def __init__(
        self,
        owner: str,
        service: str,
        region: str | None,
        endpoint: str | None,
        tries: int = TRIES,
        timeout: float = READ_TIMEOUT,
    ) -> None:
        try:
            self._session: t.Any = importlib.import_module("boto3.session")
            self._botocore: t.Any = importlib.import_module("botocore.exceptions")
            self._config: t.Any = importlib.import_module("botocore.config")
        except ImportError:
            raise ConfigurationError(
                f"{owner} needs boto3, which is not installed.",
                hint='Run `pip install "flask-durable[aws]"`.',
            ) from None
        self._service = service
        self._region = region
        self._endpoint = endpoint
        self._tries = tries
        self._timeout = timeout

    @functools.cached_property
    def client(self) -> t.Any:
        """The client, created on first use."""
        return self._session.Session().client(
            self._service,
            region_name=self._region,
            endpoint_url=self._endpoint,
            config=self._config.Config(
                user_agent="flask-durable",
                retries={"mode": "standard", "total_max_attempts": self._tries},
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=self._timeout,
            ),
        )

    def call(self, operation: str, **parameters: t.Any) -> dict[str, t.Any]:
        """Return the reply to *operation*.

        :raises PlatformError: The call fails.
        """
        try:
            reply = getattr(self.client, operation)(**parameters)
        except self._botocore.ClientError as error:
            raise self._refusal(error.response, operation) from error
        except self._botocore.BotoCoreError as error:
            raise PlatformError(
                f"Amazon's {self._service} cannot be asked: {error}.",
                code=_code(type(error).__name__),
                hint="Look at the region and the credentials that boto3 finds.",
            ) from error
        return t.cast("dict[str, t.Any]", reply)

    def call_if_allowed(self, operation: str, **parameters: t.Any) -> dict[str, t.Any]:
        """Return the reply to *operation*, ``{}`` if the credentials do not allow it.

        :raises PlatformError: The call fails for another reason.
        """
        try:
            return self.call(operation, **parameters)
        except PlatformError as error:
            if error.code != "platform.auth":
                raise
            return {}

    def _refusal(self, response: t.Any, operation: str) -> PlatformError:
        error = response.get("Error", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        other = "platform.unavailable" if status >= 500 else "platform"
        return PlatformError(
            f"Amazon's {self._service} refuses {operation}: "
            f"{error.get('Code')}: {error.get('Message')}",
            code=_CODE_OF.get(error.get("Code", "").removesuffix("Fault"), other),
        )


def _code(name: str) -> str:
    if name in _CREDENTIALS:
        return "platform.auth"
    return "platform" if name in _UNUSABLE else "platform.unavailable"
