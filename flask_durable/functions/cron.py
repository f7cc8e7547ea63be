"""Schedules: functions that a time of day starts, as cron does it.

The expressions are evaluated by cronsim, which follows Debian's cron. Nothing here
reads a clock: instants are found between two that the caller gives.
"""

from __future__ import annotations

import hashlib
import importlib
import typing as t
import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from datetime import timezone as fixed_timezone
from datetime import tzinfo

from ..common.durations import Duration
from ..common.durations import format_seconds
from ..common.durations import to_seconds
from ..errors import ConfigurationError
from ..errors import DefinitionError

#: Most seconds that a tick may be put off by.
MAX_JITTER = 3600.0

#: Characters of an expression.
MAX_EXPRESSION = 255

_UTC = fixed_timezone.utc
_SECOND = timedelta(seconds=1)

#: Any time will do: an expression has instants after each moment, or has none at all.
_SOME_TIME = datetime(2024, 1, 1, tzinfo=_UTC)


@dataclass(frozen=True, init=False)
class Cron:
    """A schedule that starts a function: ``on=Cron("*/5 * * * *")``.

    Five fields (minute, hour, day of month, month, day of week) as in Debian's cron,
    with lists, ranges, steps and English names, ``L`` (the last day of a month, or
    ``5L`` the last Friday) and ``5#2`` (the second Friday). When clocks go forward, a
    tick that would fall into the gap runs right after it; when they go back, a fixed
    time runs once, and ``*/5`` and the like run on in real time.

    Needs the extra ``cron``.

    :param expression: The five fields, such as ``"30 4 * * MON-FRI"``.
    :param timezone: The zone that the fields are in, such as ``"Europe/Berlin"``.
    :param jitter: The longest delay of a tick, at most an hour. Each tick has a delay
        of its own, always the same, so that functions with one schedule do not all
        start at once.
    :raises DefinitionError: The expression, the zone or the jitter is not valid, or the
        expression never comes true.
    :raises ConfigurationError: The extra ``cron`` is not installed.
    """

    expression: str
    timezone: str
    #: Seconds.
    jitter: float

    def __init__(
        self, expression: str, *, timezone: str = "UTC", jitter: Duration = 0
    ) -> None:
        put = object.__setattr__
        put(self, "expression", _checked_expression(expression))
        put(self, "timezone", timezone)
        put(self, "jitter", _checked_jitter(jitter))
        put(self, "_zone", _zone(timezone))
        if self.next_after(_SOME_TIME) is None:
            raise DefinitionError(
                f"The schedule {expression!r} never comes true.",
                hint="Look at its day of month and its month.",
            )

    def __str__(self) -> str:
        zone = "" if self.timezone == "UTC" else f" ({self.timezone})"
        return f"{self.expression}{zone}"

    def spec(self) -> dict[str, t.Any]:
        """Return the arguments that make this schedule, as a JSON object."""
        return {
            "expression": self.expression,
            "timezone": self.timezone,
            "jitter": self.jitter,
        }

    def instants(self, start: datetime, end: datetime) -> t.Iterator[datetime]:
        """Yield the instants after *start*, up to *end* and including it, in UTC."""
        for instant in self._after(start):
            if instant > end:
                return
            yield instant

    def next_after(self, start: datetime) -> datetime | None:
        """Return the first instant after *start*, or ``None`` if there is none."""
        return next(self._after(start), None)

    def has(self, instant: datetime) -> bool:
        """Return whether *instant* is one of this schedule."""
        return instant in self.instants(instant - timedelta(minutes=1), instant)

    def delay(self, function_id: str, instant: datetime) -> float:
        """Return the seconds that the tick of a function is put off by.

        They depend on the arguments alone, so every process finds the same delay.
        """
        text = f"{function_id} {instant.timestamp():.0f}"
        digest = hashlib.sha256(text.encode()).digest()
        return self.jitter * int.from_bytes(digest[:8], "big") / 2**64

    def _after(self, start: datetime) -> t.Iterator[datetime]:
        zone: zoneinfo.ZoneInfo | fixed_timezone = vars(self)["_zone"]
        minute, hour = self.expression.split(" ")[:2]
        if zone is not _UTC and (minute[0] == "*" or hour[0] == "*"):
            return self._in_real_time(start, zone)
        return self._at_fixed_times(start, zone)

    def _in_real_time(self, start: datetime, zone: tzinfo) -> t.Iterator[datetime]:
        """Yield each instant after *start* whose local time fits the fields.

        The simulation walks in whole hours. Past a change that is not at a whole hour,
        or not by one, it leaves some out. So it walks with one offset at a time.
        """
        last = start
        while True:
            offset = _offset(zone, last)
            for found in _simulator(self.expression, last.astimezone(offset)):
                instant = found.astimezone(_UTC)
                change = _next_change(zone, last, instant)
                if change is not None:
                    last = change
                    break
                last = instant
                yield instant
            else:
                return

    def _at_fixed_times(self, start: datetime, zone: tzinfo) -> t.Iterator[datetime]:
        last = start
        for found in _simulator(self.expression, start.astimezone(zone)):
            instant = found.astimezone(_UTC)
            # The simulation knows only one pass of an hour that comes twice, which may
            # be before *start*; and two times of a gap become one instant.
            if instant > last:
                last = instant
                yield instant


def _offset(zone: tzinfo, moment: datetime) -> fixed_timezone:
    """Return the offset that *zone* has in the second after *moment*."""
    local = (moment + _SECOND).astimezone(zone)
    return fixed_timezone(local.utcoffset() or timedelta())


def _next_change(zone: tzinfo, start: datetime, end: datetime) -> datetime | None:
    """Return the last second after *start* before *zone* changes its offset.

    :param end: The time after which a change does not matter.
    :returns: The moment of that second; ``None`` if nothing changes until *end*.
    """
    start, end = start.replace(microsecond=0), end - _SECOND
    offset = _offset(zone, start)
    while start < end:
        # Day by day: no zone changes its offset and changes it back in a day.
        later = min(start + timedelta(days=1), end)
        if _offset(zone, later) != offset:
            while later - start > _SECOND:
                middle = start + (later - start) / 2
                middle = middle.replace(microsecond=0)
                same = _offset(zone, middle) == offset
                start, later = (middle, later) if same else (start, middle)
            return later
        start = later
    return None


def _simulator(expression: str, start: datetime) -> t.Iterator[datetime]:
    cronsim = _cronsim()
    try:
        yield from cronsim.CronSim(expression, start)
    except cronsim.CronSimError as error:
        raise DefinitionError(
            f"The schedule {expression!r} is not valid: {error}.",
            hint='Write minute, hour, day of month, month and day of week, such as "30 '
            '4 * * MON-FRI".',
        ) from None


def _cronsim() -> t.Any:
    try:
        return importlib.import_module("cronsim")
    except ImportError:
        raise ConfigurationError(
            "Cron schedules need the package cronsim.",
            hint='Install it with: pip install "flask-durable[cron]".',
        ) from None


def _checked_expression(expression: t.Any) -> str:
    fields = expression.split() if isinstance(expression, str) else []
    if len(fields) != 5 or len(expression) > MAX_EXPRESSION:
        raise DefinitionError(
            f"The schedule {expression!r} does not have five fields.",
            hint='Write minute, hour, day of month, month and day of week, such as "30 '
            '4 * * MON-FRI".',
        )
    return " ".join(fields)


def _checked_jitter(jitter: t.Any) -> float:
    try:
        seconds = to_seconds(jitter)
    except ValueError as error:
        raise DefinitionError(f"Cron: jitter={jitter!r}: {error}.") from None
    if seconds > MAX_JITTER:
        raise DefinitionError(
            f"Cron: jitter={jitter!r} is more than {format_seconds(MAX_JITTER)}."
        )
    return seconds


def _zone(name: t.Any) -> zoneinfo.ZoneInfo | fixed_timezone:
    if name == "UTC":
        return _UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except Exception:  # whatever a file of that name leads to
        raise DefinitionError(
            f"Cron: there is no time zone {name!r}.",
            hint='Write a name of the IANA database, such as "Europe/Berlin".',
        ) from None
