"""Rates of arrivals, from counts of some minutes."""

from __future__ import annotations

from flask_durable.scaler.decision import arrivals


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
