"""Event keys and secrets: a client shows a key, or signs with a secret."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import itertools
import re
import secrets
import typing as t

#: Text that an event key begins with; 32 random bytes in URL-safe base64 follow.
EVENT_KEY_PREFIX = "evk_"

#: The same of a push secret, which a client shows that hands messages to a push worker.
PUSH_SECRET_PREFIX = "psh_"

#: The same of a metrics secret, which a client shows that reads the metrics.
METRICS_SECRET_PREFIX = "mtr_"

#: Text that a signing secret begins with; base64 follows, as in Standard Webhooks.
SIGNING_SECRET_PREFIX = "whsec_"

#: Bytes of a signing secret, at least and at most.
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64

#: Fewest characters of an event key of another product.
MIN_FOREIGN_KEY = 32

_FOREIGN = re.compile(rf"[!-~]{{{MIN_FOREIGN_KEY},1024}}")
_RANDOM = re.compile(r"[A-Za-z0-9_\-]{43}")


def new_event_key() -> str:
    """Return a new event key: 256 random bits behind ``evk_``."""
    return EVENT_KEY_PREFIX + secrets.token_urlsafe(32)


def new_push_secret() -> str:
    """Return a new push secret: 256 random bits behind ``psh_``."""
    return PUSH_SECRET_PREFIX + secrets.token_urlsafe(32)


def new_metrics_secret() -> str:
    """Return a new metrics secret: 256 random bits behind ``mtr_``."""
    return METRICS_SECRET_PREFIX + secrets.token_urlsafe(32)


def new_signing_secret() -> str:
    """Return a new Standard Webhooks secret: 256 random bits behind ``whsec_``."""
    return SIGNING_SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_event_key(key: str) -> str:
    """Return *key* if it cannot be guessed.

    It has the form that :func:`new_event_key` gives. Or it comes from elsewhere, as
    with a team that moves here and keeps the key that its clients have.

    :raises ValueError: The key is too short, or like a pattern; the text never repeats
        it.
    """
    if key.startswith(EVENT_KEY_PREFIX):
        return _check_form(key, EVENT_KEY_PREFIX)
    if not _FOREIGN.fullmatch(key):
        raise ValueError(
            f'"{EVENT_KEY_PREFIX}" and 43 characters of URL-safe base64, or of other '
            f"text: at least {MIN_FOREIGN_KEY} characters of ASCII without spaces"
        )
    if _is_pattern(key):
        raise ValueError("random characters, which a pattern is not")
    return key


def _is_pattern(key: str) -> bool:
    """Return whether *key* repeats itself, or counts, as no random key does.

    Fewer than one in a million of the poorest texts that are taken, 32 random digits,
    look like that.
    """
    start = key[:64]
    pairs = list(itertools.pairwise(start))
    distances = {ord(second) - ord(first) for first, second in pairs}
    return min(len(set(start)), len(distances)) < 6 or len(set(pairs)) * 2 < len(pairs)


def check_push_secret(secret: str) -> str:
    """Return *secret* when it has the form that :func:`new_push_secret` gives.

    :raises ValueError: The form is another; the text never repeats the secret.
    """
    return _check_form(secret, PUSH_SECRET_PREFIX)


def check_metrics_secret(secret: str) -> str:
    """Return *secret* when it has the form that :func:`new_metrics_secret` gives.

    :raises ValueError: The form is another; the text never repeats the secret.
    """
    return _check_form(secret, METRICS_SECRET_PREFIX)


def _check_form(key: str, prefix: str) -> str:
    if not key.startswith(prefix) or not _RANDOM.fullmatch(key[len(prefix) :]):
        raise ValueError(f'"{prefix}" and 43 characters of URL-safe base64')
    return key


def secret_bytes(secret: str) -> bytes:
    """Return the bytes of a ``whsec_`` secret.

    :raises ValueError: The secret is malformed; the text never repeats it.
    """
    raw = b""
    if secret.startswith(SIGNING_SECRET_PREFIX):
        with contextlib.suppress(ValueError):
            raw = base64.b64decode(secret[len(SIGNING_SECRET_PREFIX) :], validate=True)
    if not MIN_SECRET_BYTES <= len(raw) <= MAX_SECRET_BYTES:
        raise ValueError(
            f'"whsec_" and the base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes'
        )
    return raw


def bearer_of(authorization: str) -> str:
    """Return the bearer token of the header ``Authorization``; empty for none."""
    scheme, _, shown = authorization.partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""


def hash_event_key(key: str) -> bytes:
    """Return the SHA-256 of *key*, the only form that is kept to compare with."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def matches_event_key(key: str, hashes: t.Iterable[bytes]) -> bool:
    """Return whether one of *hashes* is that of *key*.

    All of them are compared, so that the time taken does not tell which one it is.
    """
    shown = hash_event_key(key)
    found = [hmac.compare_digest(shown, known) for known in hashes]
    return any(found)
