"""Floors: times at which a pool has workers whatever waits."""

from __future__ import annotations

from datetime import datetime
from datetime import timezone

import pytest

from flask_durable.scaler.decision.floors import Floor
from flask_durable.scaler.decision.floors import floor_at


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("when", "moment", "holds"),
    [
        ("mon-fri 08:00-18:00", "2026-11-26T08:00", True),  # a Thursday
        ("mon-fri 08:00-18:00", "2026-11-26T18:00", False),
        ("mon-fri 08:00-18:00", "2026-11-28T12:00", False),
        ("sat-mon 08:00-18:00", "2026-11-29T12:00", True),
        ("thu 22:00-02:00", "2026-11-27T01:59", True),
        ("thu 22:00-02:00", "2026-11-26T01:59", False),
        ("thu 00:00-24:00", "2026-11-26T23:59", True),
        ("thu 08:00-18:00 Europe/Berlin", "2026-11-26T07:00", True),
        ("wed 08:00-18:00 Europe/Berlin", "2026-07-01T06:00", True),
    ],
)
def test_a_floor_holds_at_its_times(when: str, moment: str, holds: bool) -> None:
    assert Floor.parse(when, 3).holds(at(moment)) is holds


def test_the_highest_floor_counts() -> None:
    floors = [Floor.parse("mon-sun 00:00-24:00", n) for n in (1, 4, 2)]
    assert floor_at(floors, 0) == 4
    assert floor_at([], 0) == 0


@pytest.mark.parametrize(
    "wrong",
    ["", "monday 08:00-18:00", "mon 8-18", "mon 08:00-25:00", "mon 08:00-18:00 Mars/X"],
)
def test_a_floor_that_is_written_otherwise_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"written as|not a time"):
        Floor.parse(wrong, 1)
