"""Rates, floors, fleets and options: what a decision is given."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import timezone

import pytest

from flask_durable.scaler import arrivals
from flask_durable.scaler import Fleet
from flask_durable.scaler import fleet
from flask_durable.scaler import Pool
from flask_durable.scaler.fleet import Unit
from flask_durable.scaler.floors import Floor
from flask_durable.scaler.floors import floor_at
from flask_durable.scaler.options import parse_pools
from flask_durable.scaler.platform import Size

ALWAYS = "mon-sun 00:00-24:00"

# -- Arrivals ------------------------------------------------------------------------


def history(*pairs: tuple[float, int]) -> arrivals.Totals:
    return tuple((time, {"a": count}) for time, count in pairs)


def test_the_rate_is_the_lower_one_of_the_last_minute_and_the_last_five() -> None:
    steady = history((0, 0), (240, 240))
    assert arrivals.rates(steady, 300, {"a": 300}) == {"a": 1}
    burst_that_is_over = history((0, 0), (240, 600))
    assert arrivals.rates(burst_that_is_over, 300, {"a": 600}) == {}
    burst_that_begins = history((0, 0), (240, 0))
    assert arrivals.rates(burst_that_begins, 300, {"a": 600}) == {"a": 2}


def test_without_history_enough_there_is_no_rate() -> None:
    assert arrivals.rates((), 300, {"a": 300}) == {}
    assert arrivals.rates(history((200, 0)), 300, {"a": 300}) == {}
    assert arrivals.rates(history((140, 0)), 300, {"a": 320}) == {"a": 2}


def test_what_was_not_counted_before_has_not_all_arrived_since() -> None:
    totals = history((0, 0), (240, 240))
    arrived = {"a": 300, "b": 1_000_000}
    assert arrivals.rates(totals, 300, arrived) == {"a": 1}
    totals = arrivals.remember(totals, 300, arrived)
    arrived = {"a": 450, "b": 1_000_300}
    assert arrivals.rates(totals, 450, arrived) == {"a": 1, "b": 2}


def test_counts_that_were_lost_are_no_negative_rate() -> None:
    assert arrivals.rates(history((0, 500), (240, 500)), 300, {"a": 3}) == {}


def test_the_history_keeps_one_entry_older_than_its_window() -> None:
    totals: arrivals.Totals = ()
    for time in range(0, 1000, 100):
        totals = arrivals.remember(totals, time, {"a": time})
    assert [time for time, _ in totals] == [600, 700, 800, 900]


# -- Floors --------------------------------------------------------------------------


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


# -- Fleets --------------------------------------------------------------------------


def worker(unit: str, busy: int = 0, **given: t.Any) -> dict[str, t.Any]:
    made = {
        "unit": unit,
        "host": "host",
        "queues": ["media"],
        "threads": 2,
        "ready_at": 10.0,
    }
    made["draining"] = False
    return {**made, "busy": busy, **given}


def test_processes_on_one_host_are_one_unit_where_a_unit_is_a_host() -> None:
    workers = [worker("one", 1), worker("two"), worker("three", host="another")]
    assert fleet.units_of(workers, ["media"], by="host") == [
        Unit("host", 4, 1, 10.0),
        Unit("another", 2, 0, 10.0),
    ]


def test_processes_of_one_supervisor_are_one_unit_and_others_on_its_host_are_not() -> (
    None
):
    workers = [worker("one", 1), worker("one", ready_at=12.0), worker("two")]
    assert fleet.units_of(workers, ["media"]) == [
        Unit("one", 4, 1, 12.0),
        Unit("two", 2, 0, 10.0),
    ]


def test_a_unit_has_no_slots_of_processes_that_drain_and_is_busy_with_their_runs() -> (
    None
):
    workers = [worker("one", 2, draining=True), worker("one"), worker("two", 1)]
    workers[2]["draining"] = True
    assert fleet.units_of(workers, ["media"]) == [
        Unit("one", 2, 2, 10.0),
        Unit("two", 2, 1, 10.0, draining=True),
    ]


def test_workers_of_other_queues_are_not_counted() -> None:
    others = [worker("one", queues=["default"])]
    assert fleet.units_of(others, ["media"]) == []


def test_slots_are_what_most_units_have() -> None:
    units = [Unit("a", 4, 0, 0), Unit("b", 4, 0, 0), Unit("c", 16, 0, 0)]
    assert fleet.slots_of(units, 8) == 4
    assert fleet.slots_of([], 8) == 8


POOL = Pool(slots=1, boot=30)


def test_what_was_asked_for_and_is_not_up_boots() -> None:
    units = [Unit("a", 1, 1, 0), Unit("b", 1, 0, 0)]
    found = fleet.fleet_of(units, Size(5, 3, 2), [100.0, 110.0], POOL, 115)
    assert found == Fleet(2, (15.0, 25.0, 30.0), 1)


def test_a_worker_that_boots_for_longer_than_usual_is_soon_expected() -> None:
    found = fleet.fleet_of([], Size(1, 0, 1), [100.0], POOL, 500)
    assert found.booting == (1.0,)


def test_no_worker_boots_for_longer_because_the_clock_went_back() -> None:
    found = fleet.fleet_of([], Size(1, 0, 1), [500.0], POOL, 100)
    assert found.booting == (30.0,)


def test_more_workers_than_were_asked_for_are_on_their_way_out() -> None:
    units = [Unit(name, 1, 1, 0) for name in "abc"]
    assert fleet.fleet_of(units, Size(1, 3, 0), [], POOL, 0) == Fleet(1, (), 1)


def test_workers_that_boot_for_longer_than_expected_are_waited_for() -> None:
    assert fleet.expected([100.0, 950.0], 2, boot=30, now=990) == (100.0, 950.0)
    assert fleet.expected([100.0, 950.0], 2, boot=30, now=1001) == (950.0,)
    assert fleet.expected([100.0, 950.0], 2, boot=300, now=1001) == (100.0, 950.0)


def test_workers_that_were_given_back_while_they_booted_are_not_waited_for() -> None:
    assert fleet.expected([100.0, 110.0], 1, boot=30, now=120) == (110.0,)
    assert fleet.expected([100.0, 110.0], 0, boot=30, now=120) == ()


def test_boot_times_are_measured_from_asking_to_ready() -> None:
    units = [Unit("old", 1, 0, 5.0), Unit("a", 1, 0, 130.0), Unit("b", 1, 0, 125.0)]
    waiting, boots = fleet.booted([100.0, 100.0, 120.0], units, since=110)
    assert waiting == (120.0,)
    assert boots == [25.0, 30.0]


def test_a_worker_that_was_not_heard_of_at_the_last_look_has_booted_since() -> None:
    units = [Unit("old", 1, 0, 5.0), Unit("a", 1, 0, 118.0)]
    assert fleet.booted([100.0], units, since=120, known=["old"]) == ((), [18.0])
    known = ["old", "a"]
    assert fleet.booted([100.0], units, since=120, known=known) == ((100.0,), [])


def test_the_boot_time_is_the_ninetieth_percentile() -> None:
    assert fleet.boot_time([], default=30) == 30
    assert fleet.boot_time([float(n) for n in range(10)], default=30) == 9
    assert len(fleet.remember([1.0] * 30, [2.0])) == 20


# -- Options -------------------------------------------------------------------------


def test_a_pool_is_called_as_its_queue_and_is_local_unless_it_says_otherwise() -> None:
    [pool] = parse_pools({"media": {"desired_wait": "30s"}})
    assert (pool.name, pool.queues) == ("media", {"media": 30})
    assert pool.platform == {"platform": "local"}
    assert pool.goal.desired_wait == 30
    assert pool.goal.maximum == 100


def test_all_options_are_understood() -> None:
    [pool] = parse_pools(
        {
            "jobs": {
                "queues": ["media", "default"],
                "desired_wait": 30,
                "completion": "10m",
                "minimum": 1,
                "maximum": 20,
                "window": "5m",
                "margin": 2,
                "headroom": 0.05,
                "slots": 4,
                "boot": "45s",
                "period": "15s",
                "floors": {"mon-fri 08:00-18:00": 2},
                "platform": {"platform": "heroku", "app": "a"},
            }
        }
    )
    assert pool.queues == {"media": 30, "default": 30}
    assert (pool.goal.completion, pool.goal.window) == (600, 300)
    assert (pool.slots, pool.boot, pool.period) == (4, 45, 15)
    assert pool.floors[0].workers == 2
    assert pool.platform["app"] == "a"


def test_queues_of_one_pool_may_have_a_wait_each() -> None:
    [pool] = parse_pools({"jobs": {"queues": {"mail": "10s", "media": "5m"}}})
    assert pool.queues == {"mail": 10, "media": 300}
    assert pool.goal.desired_wait == 10


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ([], "must be a dictionary"),
        ({"jobs": {"queues": {}}}, "queues is empty"),
        ({"jobs": {"queues": {"a": 1}, "desired_wait": 1}}, "leave out desired_wait"),
        ({"media": 30}, "must have a dictionary"),
        ({"media": {}}, "must have a desired_wait"),
        ({"media": {"desired_wait": 1, "maximun": 3}}, "did you mean 'maximum'"),
        ({"media": {"desired_wait": 0}}, "positive"),
        ({"media": {"desired_wait": 1, "minimum": 2, "maximum": 1}}, "range"),
        ({"media": {"desired_wait": 1, "maximum": "3"}}, "whole number"),
        ({"media": {"desired_wait": 1, "platform": {"app": "a"}}}, "'platform'"),
        ({"media": {"desired_wait": 1, "floors": {"never": 1}}}, "written as"),
        ({"media": {"desired_wait": 1, "floors": []}}, "floors is not"),
        (
            {"media": {"desired_wait": 1, "maximum": 1, "floors": {ALWAYS: 2}}},
            "a floor is above",
        ),
        ({"media": {"desired_wait": 1, "period": 0}}, "period is not a positive"),
        ({"media": {"desired_wait": 1, "slots": 0}}, "slots is 0"),
        ({"media": {"desired_wait": 1, "completion": 0}}, "completion is not"),
        ({"media": {"desired_wait": 1, "headroom": 0}}, "headroom is not a share"),
        ({"media": {"desired_wait": 1, "headroom": "nan"}}, "headroom is not a share"),
        ({"media": {"desired_wait": 1, "margin": -1}}, "margin is not"),
        ({"media": {"desired_wait": 1, "margin": "nan"}}, "margin is not"),
    ],
)
def test_what_is_wrong_with_a_pool_is_said(wrong: t.Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_pools(wrong)
