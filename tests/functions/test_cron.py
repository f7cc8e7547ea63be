"""Schedules: what is accepted, and when they come true."""

from __future__ import annotations

import importlib
import typing as t
import zoneinfo
from datetime import datetime
from datetime import timedelta
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_durable import ConfigurationError
from flask_durable import Cron
from flask_durable import CronTick
from flask_durable import DefinitionError
from flask_durable import Durable
from flask_durable import Event
from flask_durable.functions.cron import MAX_JITTER
from flask_durable.functions.triggers import MAX_CRONS


def texts(cron: Cron, start: datetime, **duration: float) -> list[str]:
    end = start + timedelta(**duration)
    return [f"{instant:%d %H:%M}" for instant in cron.instants(start, end)]


def at(*parts: int) -> datetime:
    return datetime(*t.cast("tuple[int, int, int]", parts), tzinfo=UTC)


# -- What is accepted -------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("* * * *", "five fields"),
        ("0 * * * * *", "five fields"),
        ("@daily", "five fields"),
        (None, "five fields"),
        (5, "five fields"),
        ("* * * * " + "1," * 200 + "1", "five fields"),
        ("61 * * * *", "Bad minute"),
        ("* 24 * * *", "Bad hour"),
        ("* * 0 * *", "Bad day-of-month"),
        ("* * * JANUARY *", "Bad month"),
        ("* * * * 5#9", "Bad day-of-week"),
        ("*/0 * * * *", "Bad minute"),
        ("٣ * * * *", "Bad minute"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("0 0 */31 2 MON#5", "never comes true"),
    ],
)
def test_an_expression_that_means_nothing_is_refused(
    expression: t.Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message) as raised:
        Cron(expression)
    assert raised.value.hint


@given(st.text(alphabet="0123456789*/,-#LW MONJA", max_size=30))
def test_any_text_is_a_schedule_or_refused(expression: str) -> None:
    try:
        cron = Cron(expression)
    except DefinitionError:
        return
    assert cron.next_after(at(2026, 1, 1))


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../etc/passwd", "Europe", "/etc/localtime", None, 7]
)
def test_a_time_zone_that_is_none_is_refused(zone: t.Any) -> None:
    with pytest.raises(DefinitionError, match="no time zone"):
        Cron("* * * * *", timezone=zone)


@pytest.mark.parametrize("jitter", ["often", -1, MAX_JITTER + 1, None])
def test_a_jitter_that_is_no_duration_or_too_long_is_refused(jitter: t.Any) -> None:
    with pytest.raises(DefinitionError, match="jitter="):
        Cron("* * * * *", jitter=jitter)


def test_without_the_package_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_module(name: str) -> t.NoReturn:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", no_module)
    with pytest.raises(ConfigurationError, match=r"flask-durable\[cron\]"):
        Cron("* * * * *")


def test_a_schedule_is_made_again_from_what_is_published_of_it() -> None:
    cron = Cron("30  4 * * MON-FRI", timezone="Europe/Berlin", jitter="5m")
    assert Cron(**cron.spec()) == cron
    assert str(cron) == "30 4 * * MON-FRI (Europe/Berlin)"
    assert cron.jitter == 300


# -- When -------------------------------------------------------------------------


def test_an_instant_comes_after_the_start_and_may_be_the_end() -> None:
    cron = Cron("*/20 * * * *")
    start = at(2026, 5, 1, 10, 20)
    assert texts(cron, start, hours=1) == ["01 10:40", "01 11:00", "01 11:20"]
    assert texts(cron, start - timedelta(milliseconds=1), minutes=1) == ["01 10:20"]
    assert cron.next_after(start) == at(2026, 5, 1, 10, 40)


def test_the_fields_are_in_the_time_zone() -> None:
    cron = Cron("0 9 * * *", timezone="Asia/Kolkata")
    assert texts(cron, at(2026, 5, 1), days=1) == ["01 03:30"]


def test_a_fixed_time_in_the_hour_that_is_left_out_comes_right_after_it() -> None:
    cron = Cron("30 2 * * *", timezone="Europe/Berlin")
    assert texts(cron, at(2026, 3, 28, 2), days=2) == ["29 01:00", "30 00:30"]


def test_a_fixed_time_in_the_hour_that_comes_twice_comes_once() -> None:
    cron = Cron("30 2 * * *", timezone="Europe/Berlin")
    assert texts(cron, at(2026, 10, 24, 12), days=2) == ["25 00:30", "26 01:30"]
    # Also for a process that begins to look in the second of the two hours.
    assert texts(cron, at(2026, 10, 25, 1, 10), hours=20) == []


def test_intervals_run_on_in_real_time_when_clocks_are_changed() -> None:
    cron = Cron("*/30 * * * *", timezone="Europe/Berlin")
    assert len(texts(cron, at(2026, 10, 24, 23, 50), hours=3)) == 6
    assert len(texts(cron, at(2026, 3, 28, 23, 50), hours=3)) == 6


@given(
    st.sampled_from(["30 2 * * *", "*/30 * * * *", "15,45 1-3 * * *", "0 */2 * * SUN"]),
    st.sampled_from(
        [
            *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"),
            *("Pacific/Chatham", "America/Havana", "Africa/Casablanca"),
        ]
    ),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1)),
    st.lists(st.integers(1, 7200), min_size=1, max_size=6),
)
def test_looking_in_pieces_finds_each_instant_once(
    expression: str, zone: str, start: datetime, pieces: list[int]
) -> None:
    cron = Cron(expression, timezone=zone)
    start = start.replace(tzinfo=UTC)
    found: list[datetime] = []
    look = start
    for minutes in pieces:
        following = look + timedelta(minutes=minutes)
        found += cron.instants(look, following)
        look = following
    assert found == list(cron.instants(start, look))
    assert all(cron.has(instant) for instant in found)


#: A zone, and a day on which its clocks are changed: by half an hour, at a quarter to
#: three, at midnight, and for a month.
CHANGES = [
    ("Australia/Lord_Howe", at(2026, 10, 3)),
    ("Australia/Lord_Howe", at(2026, 4, 4)),
    ("Pacific/Chatham", at(2026, 9, 26)),
    ("Pacific/Chatham", at(2026, 4, 4)),
    ("America/Havana", at(2026, 3, 8)),
    ("America/Havana", at(2026, 11, 1)),
    ("Africa/Casablanca", at(2026, 2, 15)),
]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize(
    ("expression", "minutes", "hours"),
    [
        ("0 */2 * * *", {0}, set(range(0, 24, 2))),
        ("*/7 2 * * *", set(range(0, 60, 7)), {2}),
        ("*/20 0,1,3 * * *", {0, 20, 40}, {0, 1, 3}),
        ("50 * * * *", {50}, set(range(24))),
    ],
)
def test_where_clocks_change_each_minute_that_fits_is_an_instant(
    zone: str, day: datetime, expression: str, minutes: set[int], hours: set[int]
) -> None:
    cron = Cron(expression, timezone=zone)
    local = zoneinfo.ZoneInfo(zone)
    every = [day + timedelta(minutes=minute) for minute in range(1, 30 * 60)]
    right = [
        minute
        for minute in every
        if (time := minute.astimezone(local)).minute in minutes and time.hour in hours
    ]
    halves = timedelta(seconds=30)
    small = [
        instant
        for minute in every
        for half in (minute - 2 * halves, minute - halves)
        for instant in cron.instants(half, half + halves)
    ]
    assert list(cron.instants(day, every[-1])) == right == small


def test_a_change_between_two_rare_instants_is_not_passed_by() -> None:
    cron = Cron("*/30 2 25 10 *", timezone="Europe/Berlin")
    found = texts(cron, at(2025, 12, 1), days=400)
    assert found == ["25 00:00", "25 00:30", "25 01:00", "25 01:30"]


def test_a_delay_is_the_same_everywhere_and_spread_over_the_jitter() -> None:
    cron = Cron("* * * * *", jitter=60)
    instants = list(cron.instants(at(2026, 1, 1), at(2026, 1, 2)))
    delays = [cron.delay("report", instant) for instant in instants]
    assert delays == [cron.delay("report", instant) for instant in instants]
    assert all(0 <= delay < 60 for delay in delays)
    assert min(delays) < 5
    assert max(delays) > 55
    assert cron.delay("other", instants[0]) != delays[0]
    assert Cron("* * * * *").delay("report", instants[0]) == 0


# -- As a trigger -----------------------------------------------------------------


def body(event: t.Any, step: t.Any) -> None: ...


def test_schedules_and_events_start_one_function() -> None:
    durable = Durable()
    function = durable.function(
        on=["order/placed", Cron("0 4 * * *"), Cron("0 5 * * *")], id="report"
    )(body)

    assert function.triggers == ("order/placed",)
    assert function.started_by == "order/placed, 0 4 * * *, 0 5 * * *"
    assert [spec["expression"] for spec in function.spec()["crons"]] == [
        "0 4 * * *",
        "0 5 * * *",
    ]
    assert durable.functions.matching("durable/cron.tick") == []


def test_the_data_of_a_tick_is_a_model() -> None:
    def annotated(event: Event[CronTick], step: t.Any) -> None: ...

    function = Durable().function(on=Cron("0 4 * * *"))(annotated)
    assert function.schemas == {"durable/cron.tick": CronTick}


def test_an_annotation_that_says_another_event_is_refused() -> None:
    def annotated(event: CronTick, step: t.Any) -> None: ...

    with pytest.raises(DefinitionError, match="CronTick"):
        Durable().function(on="order/placed")(annotated)


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (CronTick, "and no other"),
        ("durable/cron.tick", "and no other"),
        ([Cron("0 4 * * *"), Cron("0  4 * * *", jitter=5)], "twice"),
        ([Cron(f"{n} 4 * * *") for n in range(MAX_CRONS + 1)], "11 schedules"),
    ],
)
def test_other_uses_are_refused_when_they_are_declared(on: t.Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Durable().function(on=on)(body)
