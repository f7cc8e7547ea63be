"""The values that settings may have, from Python or as text of the environment.

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

from ..common.durations import format_seconds
from ..common.durations import to_seconds
from ..payloads.blobs import BlobAddress
from ..queue.sqs.options import SQSAddress
from ..redis.urls import check_redis_url
from ..scaler.options import parse_pools
from ..scaler.options import PoolOptions

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,39}")
_METRIC_PREFIX = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_URL_PREFIX = re.compile(r"/|(?:/[A-Za-z0-9._~\-]+)+")


def _text_or_none(value: t.Any) -> str | None:
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    raise ValueError("must be text")


def read_texts(value: t.Any) -> tuple[str, ...]:
    """Return the texts of a list, of JSON text of one, or of text with commas."""
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("[") else value.split(",")
    parts = value
    if not isinstance(parts, (list, tuple, set, frozenset)) or not all(
        isinstance(part, str) for part in parts
    ):
        raise ValueError("must be a list of text, or text with commas between")
    return tuple(part.strip() for part in parts if part.strip())


def _json(text: str) -> t.Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # RecursionError: brackets within brackets. Neither repeats the text.
        problem = str(error) if isinstance(error, ValueError) else "it is too deep"
        raise ValueError(f"must be JSON text: {problem}") from None


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
    if isinstance(value, (str, int)):
        value = {"1": True, "true": True, "0": False, "false": False}.get(
            str(value).strip().lower()
        )
    if not isinstance(value, bool):
        raise ValueError("must be True or False, or 1 or 0")
    return value


def between(low: float, high: float, unit: str = "") -> AfterValidator:
    """Return a validator that refuses numbers outside of a range."""

    def check(value: t.Any) -> t.Any:
        if not low <= value <= high:
            raise ValueError(f"must be between {show(low)} and {show(high)}{unit}")
        return value

    show = str if unit or isinstance(low, int) else format_seconds
    return AfterValidator(check)


def url_among(schemes: tuple[str, ...]) -> AfterValidator:
    """Return a validator that refuses URLs of other *schemes*, and malformed ones."""

    def check(url: str | None) -> str | None:
        if url is None:
            return None
        scheme = url.partition("://")[0].lower()
        if "://" not in url or scheme not in schemes:
            names = ", ".join(f"{name}://" for name in schemes)
            raise ValueError(f"must begin with one of {names}")
        if scheme != "sqs":
            return check_redis_url(url)
        SQSAddress.parse(url)
        return url

    return AfterValidator(check)


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


def read_external_url(url: str | None) -> str | None:
    """Return *url* without a slash at its end, if other hosts may be sent there."""
    if url is None:
        return None
    try:
        place = urlsplit(url)
        good = place.scheme in ("http", "https") and bool(place.hostname)
        good = good and place.port != 0
    except ValueError:
        good = False
    odd = "@" in url or place.query or place.fragment if good else True
    if odd or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be a URL of a site, as in https://shop.example")
    return url.rstrip("/")


def _fsync(value: t.Any) -> str:
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in ("off", "ack", "step"):
        raise ValueError('must be "off", "ack" or "step"')
    return text


def secrets_of(
    kind: str, noun: str, check: t.Callable[[str], t.Any]
) -> BeforeValidator:
    """Return a reader of secrets that *check* accepts."""

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


def refuse_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return *values* unless there are none: that would lift a protection."""
    if not values:
        raise ValueError("must not be empty: leave it out, or give it a value")
    return values


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
    """Return *url* if it is the address of a statsd."""
    if url is None:
        return None
    try:
        place = urlsplit(url)
        good = place.scheme == "statsd" and bool(place.hostname) and place.port != 0
    except ValueError:
        good = False
    if not good or "@" in url or place.path.strip("/") or place.query or place.fragment:
        raise ValueError("must be a URL of a host, as in statsd://localhost:8125")
    return url


def read_metric_prefix(value: t.Any) -> str:
    """Return *value* if it may stand before the name of a metric."""
    if not isinstance(value, str) or not _METRIC_PREFIX.fullmatch(value):
        raise ValueError("must be of letters, digits, hyphens, underscores and dots")
    return value


def read_instance_size(value: t.Any) -> str | None:
    """Return *value* if it may name a size of workers."""
    text = _text_or_none(value)
    if text is not None and not (len(text) <= 64 and text.isprintable()):
        raise ValueError("must be of at most 64 characters that can be printed")
    return text


def read_tag_style(value: t.Any) -> str | None:
    """Return *value* if it is a known style of tags."""
    text = _text_or_none(value)
    if text not in (None, "dogstatsd", "influx"):
        raise ValueError('must be "dogstatsd", "influx" or None')
    return text


def read_pools(value: t.Any) -> tuple[PoolOptions, ...]:
    """Return the pools of workers, also of JSON text."""
    if isinstance(value, str):
        value = _json(value)
    return parse_pools(value)


#: Text without space around it, ``None`` if it is empty.
TEXT = BeforeValidator(_text_or_none)
#: A whole number.
WHOLE = BeforeValidator(_whole)
#: A duration, in seconds.
SECONDS = BeforeValidator(_seconds)
#: True or false.
FLAG = BeforeValidator(_flag)
#: The setting for when the server must have written to disk.
FSYNC = BeforeValidator(_fsync)
