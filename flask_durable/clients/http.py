"""A client of another service's JSON API: tokens, timeouts, repetition, refusals."""

from __future__ import annotations

import base64
import json
import logging
import os
import typing as t
from urllib.parse import quote

from ..errors import ConfigurationError
from ..errors import PlatformError

#: Seconds to wait for a connection and for an answer, and repetitions of a call.
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 15.0
REPETITIONS = 2

#: Characters of a server's message that an error shows.
_SHOWN = 200

_CODES = {
    401: "platform.auth",
    403: "platform.auth",
    404: "platform.not_found",
    409: "platform.conflict",
    410: "platform.not_found",
    429: "platform.rate_limited",
}

Headers = t.Callable[[], t.Mapping[str, str]]


class Refusal(PlatformError):
    """Raised for an answer that is not a success.

    :param answer: The body of the answer, empty if it is no JSON object.
    """

    def __init__(self, message: str, answer: dict[str, t.Any], **values: t.Any) -> None:
        super().__init__(message, **values)
        self.answer = answer


class HTTPAPI:
    """Calls one API. Only calls that are harmless to repeat may be made.

    :param name: The name of the API, for messages.
    :param url: The URL that every path is appended to.
    :param headers: Returns the headers of a call, credentials included. Asked for each
        call, because some credentials are replaced while the process lives.
    :param authorities: A file of certificates to check the server's with.
    :param timeout: Seconds to wait for an answer.
    :param repetitions: The number of repetitions of a call that got no answer, or one
        that says "out of order".
    :param retry_header: The header of a refusal that has the seconds to wait.
    :raises ConfigurationError: urllib3 is not installed.
    """

    def __init__(
        self,
        name: str,
        url: str,
        headers: Headers,
        authorities: str | None = None,
        *,
        timeout: float = READ_TIMEOUT,
        repetitions: int = REPETITIONS,
        retry_header: str = "Retry-After",
    ) -> None:
        try:
            import urllib3
        except ImportError:
            raise ConfigurationError(
                f"{name} needs urllib3, which is not installed.",
                hint='Run `pip install "flask-durable[scaler]"`.',
            ) from None
        self._name = name
        self._url = url.rstrip("/")
        self._headers = headers
        self._retry_header = retry_header
        self._failure = urllib3.exceptions.HTTPError
        self._pool = urllib3.PoolManager(
            ca_certs=authorities,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=timeout),
            retries=urllib3.Retry(
                repetitions,
                redirect=False,  # the token is for this server alone
                status_forcelist=(502, 503, 504),
                allowed_methods=None,
                backoff_factor=0.2,
                raise_on_status=False,
                respect_retry_after_header=False,
            ),
        )

    def call(
        self,
        method: str,
        path: str,
        body: t.Any = None,
        content_type: str = "application/json",
    ) -> t.Any:
        """Return the JSON of the answer, ``{}`` if there is none.

        :param body: The value to send as JSON; bytes are sent as they are.
        :raises PlatformError: No answer came; :class:`Refusal` if it is an error.
        """
        given = self._headers()
        headers = {"User-Agent": "flask-durable", **given}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = content_type
        try:
            reply = self._pool.request(
                method, self._url + path, body=data, headers=headers
            )
        except self._failure as error:
            raise PlatformError(
                f"{self._name} does not answer ({type(error).__name__}).",
                code="platform.unavailable",
                hint="The next run of the scaler asks again.",
            ) from None  # its text has the URL, which may have a token in it
        answer = _json(reply.data)
        if not 200 <= reply.status < 300:
            secrets = [value.rpartition(" ")[2] for value in given.values()]
            raise self._refusal(reply.status, reply.headers, answer, secrets)
        if answer is None and reply.data:
            raise PlatformError(
                f"{self._name} did not answer in JSON.",
                code="platform.unavailable",
            )
        return {} if answer is None else answer

    def _refusal(
        self,
        status: int,
        headers: t.Mapping[str, str],
        answer: t.Any,
        secrets: t.Iterable[str],
    ) -> Refusal:
        details = answer if isinstance(answer, dict) else {}
        text = hidden(_reason(details), secrets)
        unavailable = "platform.unavailable" if status >= 500 else "platform"
        return Refusal(
            f"{self._name} refuses ({status}): {text[:_SHOWN]}",
            details,
            code=_CODES.get(status, unavailable),
            retry_after=_seconds(headers.get(self._retry_header)),
        )


class _Hiding(logging.Filter):
    """Removes secrets from urllib3's log lines: it logs each URL at level DEBUG."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hidden(record.getMessage()), ()
        return True


_hiding = _Hiding()


def in_url(secret: str) -> str:
    """Return *secret* quoted for a URL, and hide it in that form from all logs.

    For servers that take the secret nowhere but in the URL.
    """
    written = quote(secret, safe="")
    _hiding.secrets |= {written, secret}
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_hiding)
    return written


def hidden(text: str, secrets: t.Iterable[str] = ()) -> str:
    """Return *text* without *secrets*, and without any that :func:`in_url` quoted."""
    for secret in sorted({*secrets, *_hiding.secrets} - {""}, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def token_of(
    owner: str, given: str | None, variable: str, option: str = "token"
) -> str:
    """Return the token of *owner*: the option, or the variable of the environment.

    :raises ConfigurationError: There is no token, or it cannot be one. Its text is not
        in the message.
    """
    token = (given or os.environ.get(variable) or "").strip()
    if not token:
        raise ConfigurationError(
            f"There is no token for {owner}.",
            hint=f"Set {variable}, or the option {option}.",
        )
    return checked(owner, token)


def authorization(
    owner: str, user: str | None, given: str | None, variable: str
) -> dict[str, str]:
    """Return the header with the token of *owner*, none if there is no token.

    :param user: The user of the password, where the server wants Basic authentication.
    :raises ConfigurationError: The token cannot be sent.
    """
    token = (given or os.environ.get(variable) or "").strip()
    if not token:
        return {}
    secret = checked(owner, token)
    if user is None:
        return {"Authorization": f"Bearer {secret}"}
    pair = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def checked(owner: str, token: str) -> str:
    """Return *token* if it can be sent.

    :raises ConfigurationError: The token has other characters, and an error of the HTTP
        library would show it.
    """
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError(f"The token for {owner} has characters that none has.")
    return token


def _reason(answer: t.Mapping[str, t.Any]) -> str:
    """Return the reason of a refusal, in the words of the server."""
    for key in ("message", "error", "detail", "errors"):
        found = answer.get(key)
        if isinstance(found, list):
            found = found[0] if found else None
        if isinstance(found, dict):
            found = found.get("message")
        if found:
            return str(found)
    return "no reason is given"


def _json(data: bytes) -> t.Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a ``Retry-After``, or ``None`` if it is a date."""
    return float(text) if text and text.isascii() and text.isdigit() else None
