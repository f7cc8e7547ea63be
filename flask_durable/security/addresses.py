"""Signatures of the addresses that runs make, with the app's own secret keys.

An address names the run and the step that made it, and has 128 random bits that the run
keeps: with the signing key alone nobody can make the address of another run.

The event keys and the signing secrets of webhooks sign no addresses, since the senders
of events know them.
"""

from __future__ import annotations

import hashlib
import secrets
import typing as t

from itsdangerous import BadData
from itsdangerous import URLSafeSerializer

#: Most characters of a token that is looked at.
MAX_TOKEN = 8000

#: Text that the keys are derived with, so that no other signature passes for one.
_SALT = "flask-durable.address.v1"


class AddressSigner:
    """Makes and reads the tokens of addresses.

    :param keys: The secret keys, the newest last: it signs, and all of them verify.
    """

    def __init__(self, keys: t.Sequence[str | bytes]) -> None:
        self._serializer = URLSafeSerializer(
            [key.encode() if isinstance(key, str) else key for key in keys],
            salt=_SALT,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def sign(self, run_id: str, step: str) -> str:
        """Return a new token for an address that a step of a run makes."""
        token = self._serializer.dumps([run_id, step, secrets.token_urlsafe(16)])
        return token if isinstance(token, str) else token.decode()

    def read(self, token: str) -> tuple[str, str] | None:
        """Return run and step of a token; ``None`` if it was not signed with a key."""
        if len(token) > MAX_TOKEN:
            return None
        try:
            run_id, step, _ = self._serializer.loads(token)
        except BadData:
            return None
        return run_id, step
