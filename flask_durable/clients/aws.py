"""Clients of Amazon's APIs through boto3, calls of them, and the meaning of errors."""

from __future__ import annotations

import functools
import importlib
import typing as t

from ..errors import ConfigurationError
from ..errors import PlatformError

#: Seconds to wait for a connection and for an answer, and tries of a call, by default.
AWS_CONNECT_TIMEOUT = 3
AWS_READ_TIMEOUT = 15
AWS_TRIES = 3

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


def load_boto3(owner: str, extra: str) -> t.Any:
    """Import boto3 and return the module with the exceptions of botocore.

    :param owner: The subject that needs it, for the error.
    :param extra: The extra of this distribution that installs it.
    :raises ConfigurationError: boto3 is not installed.
    """
    try:
        importlib.import_module("boto3.session")
        return importlib.import_module("botocore.exceptions")
    except ImportError:
        raise needs_boto3(owner, extra) from None


def needs_boto3(owner: str, extra: str) -> ConfigurationError:
    """Return the error that names the missing *extra*."""
    return ConfigurationError(
        f"{owner} needs boto3, which is not installed.",
        hint=f'Run `pip install "flask-durable[{extra}]"`.',
    )


def new_client(
    service: str,
    region: str | None,
    endpoint: str | None,
    *,
    tries: int = AWS_TRIES,
    connect_timeout: float = AWS_CONNECT_TIMEOUT,
    read_timeout: float = AWS_READ_TIMEOUT,
    where_known: t.Mapping[str, t.Any] | None = None,
    **options: t.Any,
) -> t.Any:
    """Return a new boto3 client, which all threads of a process may share.

    Making one is not thread-safe, and none survives a fork.

    :param service: The name of the service in boto3.
    :param region: The region; ``None``: as boto3 finds it.
    :param endpoint: The URL of another server than Amazon's.
    :param tries: The most tries of a call that is throttled, or gets no answer.
    :param connect_timeout: Seconds to wait for a connection.
    :param read_timeout: Seconds to wait for an answer.
    :param where_known: Options of botocore's ``Config`` that its older releases lack.
    :param options: Other options of botocore's ``Config``.
    """
    config = importlib.import_module("botocore.config").Config
    known = config.OPTION_DEFAULTS
    options.update((k, v) for k, v in (where_known or {}).items() if k in known)
    return (
        importlib.import_module("boto3.session")
        .Session()
        .client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            config=config(
                # Fixed: botocore builds its own text again for each call.
                user_agent="flask-durable",
                retries={"mode": "standard", "total_max_attempts": tries},
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                **options,
            ),
        )
    )


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
        tries: int = AWS_TRIES,
        timeout: float = AWS_READ_TIMEOUT,
    ) -> None:
        self._errors = load_boto3(owner, "aws")
        self._service = service
        self._region = region
        self._endpoint = endpoint
        self._tries = tries
        self._timeout = timeout

    @functools.cached_property
    def client(self) -> t.Any:
        """The client, created on first use."""
        return new_client(
            self._service,
            self._region,
            self._endpoint,
            tries=self._tries,
            read_timeout=self._timeout,
        )

    def call(self, operation: str, **parameters: t.Any) -> dict[str, t.Any]:
        """Return the reply to *operation*.

        :raises PlatformError: The call fails.
        """
        try:
            reply = getattr(self.client, operation)(**parameters)
        except self._errors.ClientError as error:
            raise self._refusal(error.response, operation) from error
        except self._errors.BotoCoreError as error:
            raise PlatformError(
                f"Amazon's {self._service} cannot be asked: {error}.",
                code=_code(type(error).__name__),
                hint="Check the region and the credentials that boto3 finds.",
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
