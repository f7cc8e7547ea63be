"""Who may send events over HTTP."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t
from urllib.parse import urlsplit

from .keys import hash_event_key
from .keys import matches_event_key
from .keys import secret_bytes
from .signatures import verify

if t.TYPE_CHECKING:
    from ..config import Settings


@dataclasses.dataclass(frozen=True, repr=False)
class Credentials:
    """What a request is checked against; any one of them opens the endpoint.

    :param key_hashes: SHA-256 of each event key.
    :param secrets: The bytes of each signing secret.
    """

    key_hashes: tuple[bytes, ...]
    secrets: tuple[bytes, ...]

    @classmethod
    def of(cls, settings: Settings) -> Credentials:
        """Return the credentials that *settings* name."""
        return cls(
            tuple(hash_event_key(key) for key in settings.event_keys),
            tuple(secret_bytes(secret) for secret in settings.signing_secrets),
        )

    def __bool__(self) -> bool:
        return bool(self.key_hashes or self.secrets)

    def has_key(self, headers: t.Mapping[str, str]) -> bool:
        """Say whether the request shows one of the event keys as its bearer token."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and matches_event_key(
            key.strip(), self.key_hashes
        )

    def signed_id(
        self, headers: t.Mapping[str, str], read_body: t.Callable[[], bytes]
    ) -> str | None:
        """Return the ``webhook-id`` of a request that one of the secrets signed.

        The body is read only when there is a signature to check.
        """
        if not self.secrets or "webhook-signature" not in headers:
            return None
        return verify(headers, read_body(), self.secrets)


def is_local(peer: str | None, host: str) -> bool:
    """Say whether a request comes from this machine and was meant for it.

    The ``Host`` header is looked at too: behind a tunnel or a proxy, and with a page
    whose name was rebound to 127.0.0.1, the peer alone looks local.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return _is_loopback(peer or "") and (
        name == "localhost" or name.endswith(".localhost") or _is_loopback(name)
    )


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)
