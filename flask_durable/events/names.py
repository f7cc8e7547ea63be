"""The form of event names, event ids and trigger patterns."""

from __future__ import annotations

import re
import typing as t

#: Most characters of an event name and of an event id.
MAX_NAME = 255
MAX_ID = 128

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:\-]*")
_ID = re.compile(r"[A-Za-z0-9_.:\-]+")


def check_event_name(name: t.Any) -> str | None:
    """Return the fault of *name*, as the rest of a sentence, or ``None``."""
    if not isinstance(name, str) or not name:
        return "must be text that is not empty"
    if len(name) > MAX_NAME:
        return f"must have at most {MAX_NAME} characters"
    if not _NAME.fullmatch(name):
        return "may only have letters, digits and the characters _ . / : -"
    return None


def check_event_id(id: t.Any) -> str | None:
    """Return the fault of *id*, as the rest of a sentence, or ``None``."""
    if not isinstance(id, str) or not id:
        return "must be text that is not empty"
    if len(id) > MAX_ID:
        return f"must have at most {MAX_ID} characters"
    if not _ID.fullmatch(id):
        return "may only have letters, digits and the characters _ . : -"
    return None


def check_pattern(pattern: str) -> str | None:
    """Return the fault of a trigger's name or wildcard, or ``None``."""
    if pattern == "*":
        return None
    if not pattern.endswith("*"):
        return check_event_name(pattern)
    if pattern[-2:] not in ("/*", ".*") or "*" in pattern[:-1]:
        return 'may have one "*", at the end, after "/" or "."'
    return check_event_name(pattern[:-1])
