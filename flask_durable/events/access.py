"""Who may send events over HTTP."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
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


#: Headers in which a proxy says whom it speaks for, as WSGI calls them.
_SPOKEN_FOR = ("HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP")

#: Headers by which a proxy is known, and which nobody sends to his own machine.
_PROXIED = ("HTTP_FORWARDED", "HTTP_VIA")


def is_local(environ: t.Mapping[str, t.Any]) -> bool:
    """Say whether a request comes from this machine and was meant for it.

    The ``Host`` header is looked at too: behind a tunnel or a proxy, and with a page
    whose name was rebound to 127.0.0.1, the peer alone looks local. And where a proxy
    names others that it speaks for, all of them have to be this machine: what a caller
    adds to these headers can only make him a stranger. HTTP/1.0 is how nginx passes
    requests on that was told nothing but where to: its ``Host`` is the address of the
    app, and it names nobody.

    :param environ: Of the request, as WSGI has it.
    """
    # What the connection says, also where ProxyFix has put a header in its place.
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
