"""Fleets: the workers that are up, and those that boot."""

from __future__ import annotations

import typing as t

from flask_durable.scaler import Fleet
from flask_durable.scaler import Pool
from flask_durable.scaler.decision import fleet
from flask_durable.scaler.decision.fleet import Unit
from flask_durable.scaler.decision.observation import Size


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
