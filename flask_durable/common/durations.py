"""Durations as users write them: seconds, ``timedelta`` or text such as ``"1h30m"``."""

from __future__ import annotations

import re
from datetime import timedelta

#: The values that a public argument named "duration", "delay" or "timeout" accepts.
Duration = float | timedelta | str

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")

#: The longest duration that is accepted, in seconds: ten years.
MAX_SECONDS = 10 * 365 * 86400.0


def to_seconds(value: Duration) -> float:
    """Return *value* in seconds.

    :param value: Seconds (``int`` or ``float``), a :class:`~datetime.timedelta`, or
        text made of numbers with the units ``ms``, ``s``, ``m``, ``h``, ``d``, ``w``.
    :raises ValueError: *value* is negative, not finite, longer than ten years, or text
        in another form.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _parse(value)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(
            f"{value!r} is not a duration: give seconds, a timedelta or text like '90s'"
        )
    else:
        seconds = float(value)
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"the duration {value!r} is not between 0 and ten years")
    return seconds


def _parse(text: str) -> float:
    compact = text.replace(" ", "").lower()
    if re.fullmatch(r"\d+(?:\.\d+)?", compact):
        return float(compact)
    if not _WHOLE.fullmatch(compact):
        raise ValueError(
            f"{text!r} is not a duration: write it like '90s', '10m', '1h30m' or '7d'"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact))


def format_seconds(seconds: float) -> str:
    """Return *seconds* as short text for a person, such as ``"1h30m"``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + "s"
    parts = []
    rest = round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])
