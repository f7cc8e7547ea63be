"""The URLs of Redis-protocol servers: their parts, and the options they may have.

redis-py takes every option of a URL, also a misspelt one, and prefers it to the code's
own. So a URL is read here first, and refused with advice. No text of an error holds a
part of a password: one that was not quoted is split in the wrong place and looks like a
host, a path or an option.
"""

from __future__ import annotations

import difflib
import re
import typing as t
from urllib.parse import parse_qsl
from urllib.parse import SplitResult
from urllib.parse import urlencode
from urllib.parse import urlsplit

_CLUSTER = "+cluster"

_WHOLE = r"[0-9]{1,9}"
_FLAG = r"(?i:1|true|yes|on|0|false|no|off)"
_ANY = r"(?s:.+)"

#: Options of any URL, and the form of their values.
_OPTIONS = {
    "db": _WHOLE,
    "username": _ANY,
    "password": _ANY,
    "client_name": r"[!-~]+",
    "max_connections": r"[1-9][0-9]{0,8}",
    "protocol": "2",
}
#: Options of servers on a network.
_NETWORK_OPTIONS = {"socket_keepalive": _FLAG}
#: Options of TLS.
_TLS_OPTIONS = {
    "ssl_ca_certs": _ANY,
    "ssl_ca_path": _ANY,
    "ssl_ca_data": _ANY,
    "ssl_certfile": _ANY,
    "ssl_keyfile": _ANY,
    "ssl_password": _ANY,
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": _FLAG,
    "ssl_ciphers": r"[!-~]+",
    "ssl_min_version": "771|772",
}
#: Expected values of options whose names do not tell them.
_EXPECTED = {
    "db": "the number of a database",
    "protocol": "2, the only one that Flask-Durable speaks",
    "ssl_cert_reqs": '"required", "optional" or "none"',
    "ssl_min_version": "771 for TLS 1.2 or 772 for TLS 1.3",
    "max_connections": "a whole number from 1 on",
    "client_name": "text without spaces",
    "ssl_ciphers": "text without spaces",
    "ssl_check_hostname": "true or false",
    "socket_keepalive": "true or false",
}
#: Options that only the code may set, because it depends on their values.
_OWN = frozenset(
    {
        *("socket_timeout", "socket_connect_timeout", "socket_read_size", "timeout"),
        *("retry", "retry_on_timeout", "retry_on_error", "health_check_interval"),
        *("decode_responses", "encoding", "encoding_errors", "legacy_responses"),
        *("connection_class", "parser_class", "single_connection_client"),
        *("host", "port", "path"),
    }
)

_CERT_REQS = "ssl_cert_reqs"

_QUOTE = (
    "is not a well-formed URL: quote special characters of its password with "
    'urllib.parse.quote(password, safe=""), and give the port as a number'
)


def is_cluster(url: str) -> bool:
    """Return whether *url* names the nodes of a cluster."""
    return url.partition("://")[0].lower().endswith(_CLUSTER)


def node_urls(url: str) -> list[str]:
    """Return the URL of each server that *url* names: a cluster's may name several.

    :raises ValueError: The URL is malformed.
    """
    if not is_cluster(url):
        return [url]
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix(_CLUSTER)
    credentials, at, hosts = parts.netloc.rpartition("@")
    return [
        parts._replace(scheme=scheme, netloc=f"{credentials}{at}{host}").geturl()
        for host in hosts.split(",")
    ]


def check_redis_url(url: str) -> str:
    """Return *url* with its scheme in lower case.

    :raises ValueError: The URL cannot be used; the text says what to change, as the
        rest of a sentence, and has no part of a password.
    """
    try:
        whole, places = urlsplit(url), [urlsplit(one) for one in node_urls(url)]
        well_formed = not re.search(r"[\s\x00-\x1f]", url)
        reachable = all(place.hostname and place.port != 0 for place in places)
    except ValueError:
        raise ValueError(_QUOTE) from None
    rest = (whole.path if whole.scheme != "unix" else "") + whole.query
    # Nothing behind the host has an @ or a #, unless a password has an @, a /, a ? or a
    # # and this is the rest of it.
    if not well_formed or "@" in rest or "#" in url:
        raise ValueError(_QUOTE)
    if whole.scheme == "unix":
        _check_socket(whole)
    else:
        if not reachable:
            scheme = whole.scheme
            raise ValueError(f"must name a host, as in {scheme}://localhost:6379/0")
        _check_database(whole)
    _check_options(whole)
    if is_cluster(url) and dict(parse_qsl(whole.query)).get("db", "0") != "0":
        raise ValueError(_ONE_DATABASE)
    return whole.scheme + url[len(whole.scheme) :]


_ONE_DATABASE = "must not select a database: a cluster has one only, 0"


def without_other_options(url: str) -> str:
    """Return *url* with only those options that are known here.

    The URL of another library's queues has that library's options, which say nothing
    about the server.

    :raises ValueError: The URL is malformed.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(_QUOTE) from None
    known = _known(parts.scheme)
    options = []
    for name, given in parse_qsl(parts.query):
        # Celery writes the value as Python's ssl module does.
        value = given.removeprefix("CERT_").lower() if name == _CERT_REQS else given
        if name in known and re.fullmatch(known[name], value):
            options.append((name, value))
    return parts._replace(query=urlencode(options)).geturl()


def _check_socket(parts: SplitResult) -> None:
    if not parts.path.strip("/"):
        raise ValueError("must name a socket, as in unix:///run/valkey.sock")
    if parts.netloc and not parts.netloc.endswith("@"):
        # A host that would be ignored, or a password that ends at its first slash.
        raise ValueError(
            "must have its socket behind three slashes, as in unix:///run/valkey.sock, "
            'and a password quoted with urllib.parse.quote(password, safe="")'
        )


def _check_database(parts: SplitResult) -> None:
    if is_cluster(f"{parts.scheme}://"):
        if parts.path not in ("", "/", "/0"):
            raise ValueError(_ONE_DATABASE)
    elif not re.fullmatch(rf"/?|/{_WHOLE}/?", parts.path):
        raise ValueError(
            "must name its database by a number, as in "
            f"{parts.scheme}://localhost:6379/0"
        )


def _check_options(parts: SplitResult) -> None:
    known = _known(parts.scheme)
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise ValueError(_unknown(name, known))
        if not re.fullmatch(known[name], value):
            expected = _EXPECTED.get(name, "a value")
            raise ValueError(f'must give the option "{name}" {expected}')


def _known(scheme: str) -> dict[str, str]:
    known = dict(_OPTIONS)
    if scheme != "unix":
        known |= _NETWORK_OPTIONS
    if scheme.startswith("rediss"):
        known |= _TLS_OPTIONS
    return known


def _unknown(name: str, known: t.Mapping[str, str]) -> str:
    if not re.fullmatch(r"[a-z_]{1,40}", name):
        return f"has an option that is not known: it may have {', '.join(known)}"
    if name in _OWN:
        return f'must not have the option "{name}", which Flask-Durable sets itself'
    if name in _TLS_OPTIONS:
        return f'must not have the option "{name}": it is for rediss:// only'
    if name in _NETWORK_OPTIONS:
        return f'must not have the option "{name}": it is not for unix://'
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f'has the option "{name}", which is not known: did you mean "{near}"?'
