"""Times as they are stored and sent: whole milliseconds since 1970."""

from __future__ import annotations

import time
from datetime import datetime
from datetime import UTC


def now_milliseconds() -> int:
    """Return the time by this process's clock."""
    return int(time.time() * 1000)


def to_milliseconds(seconds: float) -> int:
    """Return a duration in whole milliseconds."""
    return round(seconds * 1000)


def milliseconds_of(moment: datetime) -> int:
    """Return an aware datetime as milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def datetime_of(milliseconds: int) -> datetime:
    """Return a time as an aware datetime in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
