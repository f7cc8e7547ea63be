"""The checks of a client that sends events over HTTP."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import typing as t
from urllib.parse import urlsplit

from ..security.keys import hash_event_key
from ..security.keys import matches_event_key
from ..security.keys import secret_bytes
from ..security.signatures import verify

if t.TYPE_CHECKING:
    from ..config.settings import Settings


@dataclasses.dataclass(frozen=True, repr=False)
class Credentials:
    """The keys and secrets that open the endpoint; any one of them does.

    :param key_hashes: The SHA-256 of each event key.
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
        """Return whether the request has one of the event keys as its bearer token."""
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


#: Headers in which a proxy names the client it speaks for, as WSGI calls them.
_SPOKEN_FOR = ("HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP")

#: Headers of a proxy, which a client never sends to its own machine.
_PROXIED = ("HTTP_FORWARDED", "HTTP_VIA")


def is_local(environ: t.Mapping[str, t.Any]) -> bool:
    """Return whether a request comes from this machine and was meant for it.

    The ``Host`` header counts too: behind a tunnel or a proxy, and with a page whose
    name was rebound to 127.0.0.1, the peer alone looks local. If a proxy names clients
    that it speaks for, each of them has to be this machine: an entry that a caller adds
    can only make the caller a stranger. HTTP/1.0 is refused: an nginx that knows
    nothing but its upstream passes requests on in it, with the app's address as
    ``Host`` and without the client's.

    :param environ: The request's WSGI environment.
    """
    # The connection's own values, also where ProxyFix has put a header in their place.
    original = environ.get("werkzeug.proxy_fix.orig", environ)
    named = [environ[name].split(",") for name in _SPOKEN_FOR if name in environ]
    callers = [original.get("REMOTE_ADDR") or "", *itertools.chain(*named)]
    return (
        environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
        and not any(name in environ for name in _PROXIED)
        and all(_is_loopback(caller.strip()) for caller in callers)
        and _is_local_host(original.get("HTTP_HOST") or "")
    )


def _is_local_host(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)
