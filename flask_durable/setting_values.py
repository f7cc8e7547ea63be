"""What the values of settings may be, from Python or as text of the environment.

Every reader raises :exc:`ValueError` with the rest of a sentence that begins with the
name of the setting.
"""

from __future__ import annotations

import json
import re
import typing as t
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic import BeforeValidator

from .durations import format_seconds
from .durations import to_seconds
from .payloads.blobs import BlobAddress
from .queue.options import SQSAddress
from .redis_client import is_cluster
from .redis_client import node_urls
from .scaler.options import parse_pools
from .scaler.options import PoolOptions

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,39}")
_METRIC_PREFIX = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|")
_URL_PREFIX = re.compile(r"/|(?:/[A-Za-z0-9._~\-]+)+")


def _text_or_none(value: t.Any) -> str | None:
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    raise ValueError("must be text")


def read_texts(value: t.Any) -> tuple[str, ...]:
    """Return the texts of a list, or of text with commas between."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple, set, frozenset)) or not all(
        isinstance(part, str) for part in parts
    ):
        raise ValueError("must be a list of text, or text with commas between")
    return tuple(part.strip() for part in parts if part.strip())


def _whole(value: t.Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,18}\s*", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _seconds(value: t.Any) -> float:
    try:
        return to_seconds(value)
    except (ValueError, OverflowError):
        raise ValueError(
            "must be a duration: seconds, a timedelta, or text such as '90s' or '7d'"
        ) from None


def _flag(value: t.Any) -> bool:
    if isinstance(value, str):
        value = {"1": True, "true": True, "0": False, "false": False}.get(
            value.strip().lower()
        )
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def between(low: float, high: float, unit: str = "") -> AfterValidator:
    """Return what refuses numbers outside of a range."""

    def check(value: t.Any) -> t.Any:
        if not low <= value <= high:
            raise ValueError(f"must be between {show(low)} and {show(high)}{unit}")
        return value

    show = str if unit or isinstance(low, int) else format_seconds
    return AfterValidator(check)


def url_among(schemes: tuple[str, ...]) -> AfterValidator:
    """Return what refuses URLs of other *schemes*, and malformed ones."""

    def check(url: str | None) -> str | None:
        if url is None:
            return None
        scheme = url.partition("://")[0].lower()
        if "://" not in url or scheme not in schemes:
            names = ", ".join(f"{name}://" for name in schemes)
            raise ValueError(f"must begin with one of {names}")
        _check_place(url, scheme)
        return url

    return AfterValidator(check)


def _check_place(url: str, scheme: str) -> None:
    try:
        places = [urlsplit(one) for one in node_urls(url)]
        reachable = all(place.hostname and place.port != 0 for place in places)
    except ValueError:
        raise ValueError(
            "is not a well-formed URL: quote special characters of its password "
            "with urllib.parse.quote, and give the port as a number"
        ) from None
    if scheme == "sqs":
        SQSAddress.parse(url)
    if scheme == "unix" and not places[0].path:
        raise ValueError("must name a socket, as in unix:///run/valkey.sock")
    if scheme.startswith("redis") and not reachable:
        raise ValueError(f"must name a host, as in {scheme}://localhost:6379/0")
    if is_cluster(url) and places[0].path not in ("", "/", "/0"):
        raise ValueError("must not select a database: a cluster has one only, 0")


def read_namespace(value: t.Any) -> str:
    """Return *value* if it may stand before every key."""
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise ValueError("must be 1 to 40 letters, digits, hyphens and underscores")
    return value


def read_url_prefix(value: t.Any) -> str | None:
    """Return the path that routes begin with, ``None`` for no routes."""
    text = _text_or_none(value)
    if text is None:
        return None
    path = text.rstrip("/") or "/"
    if not _URL_PREFIX.fullmatch(path):
        raise ValueError("must be a path that begins with '/', or None for no routes")
    return path


def _fsync(value: t.Any) -> str:
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in ("off", "ack", "step"):
        raise ValueError('must be "off", "ack" or "step"')
    return text


def secrets_of(
    kind: str, noun: str, check: t.Callable[[str], t.Any]
) -> BeforeValidator:
    """Return what reads secrets that *check* accepts."""

    def read(value: t.Any) -> tuple[str, ...]:
        values = read_texts(value)
        try:
            for secret in values:
                check(secret)
        except ValueError as error:
            raise ValueError(
                f"must hold {noun} made of {error}: "
                f"make one with `flask durable secret --kind {kind}`"
            ) from None
        return values

    return BeforeValidator(read)


def refuse_set(value: t.Any) -> t.Any:
    """Return *value* unless it has no order."""
    if isinstance(value, (set, frozenset)):
        raise ValueError("must be a list, since the first key encrypts")
    return value


def check_blob_url(url: str | None) -> str | None:
    """Return *url* if it names a store of objects."""
    if url is not None:
        BlobAddress.parse(url)
    return url


def check_statsd_url(url: str | None) -> str | None:
    """Return *url* if it is a place of statsd."""
    if url is None:
        return None
    try:
        place = urlsplit(url)
        good = place.scheme == "statsd" and bool(place.hostname) and place.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be a URL, as in statsd://localhost:8125")
    return url


def read_metric_prefix(value: t.Any) -> str:
    """Return *value* if it may stand before the name of a metric."""
    if not isinstance(value, str) or not _METRIC_PREFIX.fullmatch(value):
        raise ValueError("must be of letters, digits, hyphens, underscores and dots")
    return value


def read_instance_size(value: t.Any) -> str | None:
    """Return *value* if workers may be called so."""
    text = _text_or_none(value)
    if text is not None and not (len(text) <= 64 and text.isprintable()):
        raise ValueError("must be of at most 64 characters that can be printed")
    return text


def read_tag_style(value: t.Any) -> str | None:
    """Return *value* if it is a way to write tags."""
    text = _text_or_none(value)
    if text not in (None, "dogstatsd", "influx"):
        raise ValueError('must be "dogstatsd", "influx" or None')
    return text


def read_pools(value: t.Any) -> tuple[PoolOptions, ...]:
    """Return the pools of workers, also of JSON text."""
    if isinstance(value, str):
        value = json.loads(value)
    return parse_pools(value)


#: Text without space around it, ``None`` if it is empty.
TEXT = BeforeValidator(_text_or_none)
#: A whole number.
WHOLE = BeforeValidator(_whole)
#: A duration, in seconds.
SECONDS = BeforeValidator(_seconds)
#: True or false.
FLAG = BeforeValidator(_flag)
#: When the server must have written to disk.
FSYNC = BeforeValidator(_fsync)
