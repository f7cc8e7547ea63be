"""The fewest workers by the time of the week."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo
from zoneinfo import ZoneInfoNotFoundError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(
    r"(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+"
    r"(?P<from>\d\d:\d\d)-(?P<to>\d\d:\d\d)(?:\s+(?P<zone>\S+))?"
)
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True)
class Floor:
    """The fewest workers at some times of some days.

    :param workers: The number of workers.
    :param days: The days on which the time begins, 0 for Monday to 6 for Sunday.
    :param begin: Minutes after midnight.
    :param minutes: The length in minutes; it may go past midnight.
    :param zone: The time zone.
    """

    workers: int
    days: frozenset[int]
    begin: int
    minutes: int
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, workers: int) -> Floor:
        """Return the floor of a text such as ``"mon-fri 08:00-18:00 Europe/Berlin"``.

        Without a zone it is UTC. A time that ends before it begins ends on the next
        day.

        :raises ValueError: The text is written in another way.
        """
        found = _FORM.fullmatch(text.strip().lower())
        zone = _zone(text.split()[-1]) if found and found["zone"] else ZoneInfo("UTC")
        if found is None or zone is None:
            raise ValueError(
                f"{text!r} is not written as 'mon-fri 08:00-18:00 Europe/Berlin'"
            )
        begin, end = _minutes(found["from"]), _minutes(found["to"])
        days = _days(found["first"], found["last"] or found["first"])
        minutes = (end - begin) % _DAY_MINUTES or _DAY_MINUTES
        return cls(workers, days, begin, minutes, zone)

    def holds(self, now: float) -> bool:
        """Return whether the floor holds at *now*.

        :param now: Seconds since 1970.
        """
        local = datetime.fromtimestamp(now, self.zone)
        minute = local.hour * 60 + local.minute
        today, yesterday = local.weekday(), (local.weekday() - 1) % 7
        return (
            today in self.days and self.begin <= minute < self.begin + self.minutes
        ) or (
            yesterday in self.days and minute + _DAY_MINUTES < self.begin + self.minutes
        )


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return None


def _minutes(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if hours * 60 + minutes > _DAY_MINUTES or minutes > 59:
        raise ValueError(f"{text!r} is not a time of day")
    return hours * 60 + minutes


def _days(first: str, last: str) -> frozenset[int]:
    if first not in _DAYS or last not in _DAYS:
        raise ValueError(f"days are written as {', '.join(_DAYS)}")
    begin, end = _DAYS.index(first), _DAYS.index(last)
    count = (end - begin) % 7 + 1
    return frozenset((begin + number) % 7 for number in range(count))


def floor_at(floors: t.Iterable[Floor], now: float) -> int:
    """Return the highest floor that holds at *now*, seconds since 1970; 0 for none."""
    return max((floor.workers for floor in floors if floor.holds(now)), default=0)
