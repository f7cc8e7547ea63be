"""Standard Webhooks signatures: HMAC-SHA256 over id, time and the raw body.

The rules are those of the Standard Webhooks specification, version 1.0.0: the headers
``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``, where the last one
holds one or more signatures ``v1,<base64>`` with spaces between.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
import typing as t

from .keys import secret_bytes

#: Seconds that a signature's time may differ from now, in both directions.
TOLERANCE = 300

#: Most characters of a ``webhook-id``.
MAX_ID = 255

#: Most signatures of one request that are looked at; a sender has one for each secret.
MAX_SIGNATURES = 16

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def sign(secret: str, *, id: str, timestamp: int, body: bytes) -> str:
    """Return the ``webhook-signature`` of *body*.

    :param secret: A ``whsec_`` secret.
    :param id: The ``webhook-id``, which becomes the event's id.
    :param timestamp: The ``webhook-timestamp``: seconds since 1970.
    :raises ValueError: *secret* is malformed.
    """
    return _signature(secret_bytes(secret), id, str(timestamp), body)


def verify(
    headers: t.Mapping[str, str],
    body: bytes,
    secrets: t.Iterable[bytes],
    *,
    now: float | None = None,
) -> str | None:
    """Return the ``webhook-id`` if one of *secrets* signed *body*, or ``None``.

    :param headers: The request's headers; names in lower case must be found in it.
    :param body: The body exactly as it was received.
    :param secrets: The bytes of each secret, see :func:`.keys.secret_bytes`.
    :param now: The time in seconds since 1970.
    """
    id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "").split()[:MAX_SIGNATURES]
    if not 1 <= len(id) <= MAX_ID or not _is_recent(timestamp, now):
        return None
    expected = [_signature(secret, id, timestamp, body).encode() for secret in secrets]
    # Every pair is compared, so that the time taken tells nothing about a match.
    found = [
        hmac.compare_digest(signature.encode(), known)
        for signature in given
        for known in expected
    ]
    return id if any(found) else None


def _is_recent(timestamp: str, now: float | None) -> bool:
    if not _TIMESTAMP.fullmatch(timestamp):
        return False
    return abs((time.time() if now is None else now) - int(timestamp)) <= TOLERANCE


def _signature(secret: bytes, id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
