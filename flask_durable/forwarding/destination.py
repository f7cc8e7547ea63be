"""The receiver of a forward, and the form in which it gets an event.

==============  =============================  ===================================
part            without signing secrets        with them
==============  =============================  ===================================
form            Inngest's event API            Standard Webhooks
body            ``id, name, data, ts``         ``type, timestamp, data``
stable part     ``id``, and the seed's header  ``webhook-id``: the event's id
credential      the key in the address         the signatures, one for each secret
==============  =============================  ===================================

An address may hold a key, so only its host is shown.
"""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from http.client import HTTPConnection
from http.client import HTTPSConnection
from urllib.parse import urlsplit

from ..errors import DefinitionError
from ..events.model import Event
from ..events.seed import Seed
from ..events.seed import SEED_HEADER
from ..security.keys import secret_bytes
from ..security.signatures import sign

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class EventReceiver:
    """An event API or a webhook.

    :param scheme: The scheme of the address, ``"https"`` or ``"http"``.
    :param path: The part of the address after the host.
    :param secrets: The ``whsec_`` secrets; without one it is Inngest's event API.
    """

    scheme: str
    host: str
    port: int | None
    path: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, to: t.Any, signing_secrets: t.Any) -> EventReceiver:
        """Return the receiver at the address *to*.

        :raises DefinitionError: An argument is not valid; the text repeats neither.
        """
        if isinstance(signing_secrets, str):
            signing_secrets = (signing_secrets,)
        secrets = tuple(signing_secrets)
        if not all(map(_is_secret, secrets)):
            raise DefinitionError(
                "signing_secrets= holds a text that is no Standard Webhooks secret.",
                hint='Each is "whsec_" and the base64 of 24 to 64 bytes.',
            )
        found = _parse(to)
        if found is None:
            raise DefinitionError(
                "to= is not the address of an event API or a webhook.",
                hint='Write to="https://example.com/e/KEY", with no user name in it.',
            )
        return cls(*found, secrets)

    @property
    def confidential(self) -> tuple[str, ...]:
        """The texts that are never shown: secrets, and texts that may have a key."""
        path, _, query = self.path.partition("?")
        return (path, query, *self.secrets)

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{self.host}{port}/…"

    def connection(self, timeout: float) -> HTTPConnection:
        """Return a connection that is not open yet.

        :param timeout: Seconds for each wait for the other side.
        """
        kind = HTTPSConnection if self.scheme == "https" else HTTPConnection
        return kind(self.host, self.port, timeout=timeout)

    def request_of(
        self, event: Event[t.Any], now: float
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of the request that sends *event*.

        :param now: The time in seconds since 1970.
        """
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "flask-durable",
            "Connection": "close",
        }
        if not self.secrets:
            at = (event.at - _EPOCH) // timedelta(milliseconds=1)
            headers[SEED_HEADER] = str(Seed.of_event(event.id, at))
            fields = {"id": event.id, "name": event.name, "data": event.data, "ts": at}
            return _encode(fields), headers
        timestamp = event.at.isoformat(timespec="milliseconds")
        body = _encode({"type": event.name, "timestamp": timestamp, "data": event.data})
        when = int(now)
        headers["webhook-id"] = event.id
        headers["webhook-timestamp"] = str(when)
        headers["webhook-signature"] = " ".join(
            sign(secret, id=event.id, timestamp=when, body=body)
            for secret in self.secrets
        )
        return body, headers


def _is_secret(secret: t.Any) -> bool:
    try:
        return isinstance(secret, str) and bool(secret_bytes(secret))
    except ValueError:
        return False


def _encode(fields: dict[str, t.Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _parse(to: t.Any) -> tuple[str, str, int | None, str] | None:
    if not isinstance(to, str) or not _PRINTABLE.fullmatch(to):
        return None
    try:
        parts = urlsplit(to)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("https", "http") or "@" in parts.netloc or parts.fragment:
        return None
    if not parts.hostname:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port, path
