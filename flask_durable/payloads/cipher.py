"""Encryption with a list of keys: the first encrypts, all of them decrypt."""

from __future__ import annotations

import base64
import importlib
import os
import re
import typing as t

from ..errors import ConfigurationError
from ..errors import PayloadLocked
from . import ENCRYPTED

_KEY = re.compile(r"[A-Za-z0-9_\-]{43}=")


def new_encryption_key() -> str:
    """Return a new key: 32 random bytes in URL-safe base64, as Fernet takes it."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def check_encryption_key(key: str) -> str:
    """Return *key* when it has the form that :func:`new_encryption_key` gives.

    :raises ValueError: It has not; the text never repeats the key.
    """
    if not _KEY.fullmatch(key):
        raise ValueError("32 bytes in URL-safe base64, which are 44 characters")
    return key


class Cipher:
    """Encrypts texts with Fernet: AES-128 in CBC mode, authenticated by HMAC-SHA256.

    :param keys: At least one; the first encrypts.
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

    def encrypt(self, text: str) -> str:
        """Return *text* encrypted, with "encrypted:" before it."""
        token: bytes = self._fernet.encrypt(text.encode())
        return ENCRYPTED + token.decode()

    def decrypt(self, sealed: str) -> str:
        """Return the text that :meth:`encrypt` was given.

        :raises PayloadLocked: None of the keys fits, or it was changed since: both look
            the same.
        """
        try:
            text: bytes = self._fernet.decrypt(sealed.removeprefix(ENCRYPTED).encode())
        except self._invalid:
            raise PayloadLocked(
                "The data is encrypted, and no key of DURABLE_ENCRYPTION_KEYS fits.",
                hint="Add the key that it was encrypted with to the list.",
            ) from None
        return text.decode()
