"""Encryption with a list of keys: the first encrypts, all of them decrypt."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import re
import typing as t

from ..errors import ConfigurationError
from ..errors import PayloadLocked
from ..messages import ENCRYPTED

_KEY = re.compile(r"[A-Za-z0-9_\-]{43}=")

#: The first character of a digest that was made with a key.
KEYED = "k"


def new_encryption_key() -> str:
    """Return a new key: 32 random bytes in URL-safe base64, as Fernet takes it."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def check_encryption_key(key: str) -> str:
    """Return *key* if it has the form of :func:`new_encryption_key`.

    :raises ValueError: The key has another form; the text never repeats it.
    """
    if not _KEY.fullmatch(key):
        raise ValueError("32 bytes in URL-safe base64, which are 44 characters")
    return key


class Cipher:
    """Encrypts texts with Fernet: AES-128 in CBC mode, authenticated by HMAC-SHA256.

    :param keys: The keys, at least one; the first encrypts.
    :raises ConfigurationError: ``cryptography`` is not installed.
    """

    def __init__(self, keys: t.Sequence[str]) -> None:
        try:
            fernet = importlib.import_module("cryptography.fernet")
        except ImportError:
            raise ConfigurationError(
                "DURABLE_ENCRYPTION_KEYS is set, and cryptography is not installed.",
                hint='Run `pip install "flask-durable[encryption]"`.',
            ) from None
        self._fernet: t.Any = fernet.MultiFernet([fernet.Fernet(key) for key in keys])
        self._invalid: type[Exception] = fernet.InvalidToken
        #: By the beginning of the digests of each key; the first key makes new ones.
        self._digest_keys = {
            f"{KEYED}{_digest(b'which', key.encode(), 2)}-": key.encode()
            for key in keys
        }

    def encrypt(self, text: str) -> str:
        """Return *text* encrypted, with "encrypted:" before it."""
        token: bytes = self._fernet.encrypt(text.encode())
        return ENCRYPTED + token.decode()

    def digest(self, content: bytes) -> str:
        """Return a digest that tells nothing of *content* without the key."""
        name, key = next(iter(self._digest_keys.items()))
        return name + _digest(content, key, 5)

    def index_digests(self, content: bytes) -> list[str]:
        """Return a digest of *content* with each key, long enough for an index."""
        return [_digest(content, key, 16) for key in self._digest_keys.values()]

    def knows(self, digest: str) -> bool:
        """Return whether *digest* was made with one of the keys."""
        return digest.partition("-")[0] + "-" in self._digest_keys

    def is_digest_of(self, digest: str, content: bytes) -> bool:
        """Return whether *digest*, made with a known key, is that of *content*."""
        name = digest.partition("-")[0] + "-"
        return digest == name + _digest(content, self._digest_keys[name], 5)

    def decrypt(self, sealed: str) -> str:
        """Return the text that was given to :meth:`encrypt`.

        :raises PayloadLocked: None of the keys fits, or the text was changed: the two
            cannot be told apart.
        """
        try:
            text: bytes = self._fernet.decrypt(sealed.removeprefix(ENCRYPTED).encode())
        except self._invalid:
            raise PayloadLocked(
                "The data is encrypted, and no key of DURABLE_ENCRYPTION_KEYS fits.",
                hint="Add the key that it was encrypted with to the list.",
            ) from None
        return text.decode()


def _digest(content: bytes, key: bytes, size: int) -> str:
    return hashlib.blake2b(content, key=key, digest_size=size).hexdigest()
