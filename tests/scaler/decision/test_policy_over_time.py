"""A pool from look to look: what is kept, and what is given back."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from flask_durable.scaler import decide
from flask_durable.scaler import Decision
from flask_durable.scaler import Fleet
from flask_durable.scaler import Goal
from flask_durable.scaler import PolicyMemory
from flask_durable.scaler import Pool
from flask_durable.scaler import Running
from flask_durable.scaler import ServiceTime

from ..seeing import goal
from ..seeing import later
from ..seeing import look
from ..seeing import settle


def test_workers_go_only_when_the_need_has_been_low_for_the_window() -> None:
    pool, wanted = Pool(period=15), goal(window=100)
    memory = decide(look(7500), wanted, pool).memory
    calm = look(0, ready=75)
    for seconds in (15, 60, 99):
        decision = decide(later(seconds, calm), wanted, pool, memory)
        memory = decision.memory
        assert (decision.action, decision.workers) == ("hold", 75)
        assert decision.reason == "recent need"
    decision = decide(later(101, calm), wanted, pool, memory)
    assert (decision.action, decision.workers) == ("down", 0)


def test_the_window_runs_from_the_last_need_not_from_the_last_change() -> None:
    pool, wanted = Pool(period=15), goal(window=100)
    memory = decide(look(7500), wanted, pool).memory
    for seconds in (90, 180):  # something small each time
        decision = decide(later(seconds, look(400, ready=75)), wanted, pool, memory)
        memory = decision.memory
    assert (decision.action, decision.workers) == ("down", 4)


def after_a_burst(seconds: float, wanted: Goal, pool: Pool) -> Decision:
    """Decide when 75 workers were needed for a minute, and so long nothing."""
    memory, time = PolicyMemory(), 0.0
    while time <= 60 + seconds:
        seen = look(7500 if time <= 60 else 0, ready=75)
        decision = decide(later(time, seen), wanted, pool, memory)
        memory, time = decision.memory, time + pool.period
    return decision


def test_some_workers_are_kept_for_a_time_where_new_ones_are_late() -> None:
    late, in_time = Pool(boot=30, period=15), Pool(boot=10, period=15)
    assert after_a_burst(120, goal(), in_time).workers == 0
    unchosen = dataclasses.replace(in_time, picks_victims=False)
    assert after_a_burst(120, goal(), unchosen).workers == 0
    soon, later = (after_a_burst(s, goal(), late).workers for s in (120, 1800))
    assert 75 / 4 > soon > later > 0
    assert after_a_burst(7200, goal(), late).workers == 0
    assert after_a_burst(120, goal(window=60), late).workers == 0


def test_a_worker_that_has_a_job_is_never_given_back() -> None:
    running = [Running("resize", 0.2)] * 7
    decision = settle(look(0, ready=20, running=running), goal(), Pool())
    assert (decision.action, decision.workers) == ("down", 7)


def test_none_goes_while_one_is_busy_where_the_platform_chooses() -> None:
    seen = look(0, ready=20, running=[Running("resize", 0.2)])
    decision = settle(seen, goal(), Pool(picks_victims=False))
    assert (decision.action, decision.reason) == ("hold", "a busy worker might go")
    idle = settle(look(0, ready=20), goal(), Pool(picks_victims=False))
    assert (idle.action, idle.workers) == ("down", 0)


def test_the_last_worker_goes_only_after_two_looks_that_find_nothing() -> None:
    pool, wanted = Pool(), goal(window=0)
    first = decide(look(0, ready=3), wanted, pool)
    assert (first.action, first.workers) == ("down", 1)
    second = decide(later(15, look(0, ready=1)), wanted, pool, first.memory)
    assert (second.action, second.workers) == ("down", 0)
    phantom = decide(later(15, look(1, ready=1)), wanted, pool, first.memory)
    assert phantom.workers == 1
    assert phantom.memory.empty_looks == 0


def test_where_new_workers_come_in_time_idle_ones_go_at_the_first_look() -> None:
    pool, memory = Pool(boot=10, period=15), PolicyMemory(((0.0, 20),))
    seen = later(15, look(0, ready=12, busy=4, booting=(5.0, 8.0)))
    decision = decide(seen, goal(60), pool, memory)
    assert (decision.action, decision.workers) == ("down", 4 + 2)
    assert decide(seen, goal(60, window=20), pool, memory).action == "hold"
    late = Pool(boot=50, period=15)
    assert decide(seen, goal(60), late, memory).action == "hold"


def test_where_new_workers_come_in_time_those_that_boot_go_at_the_second_look() -> None:
    pool, memory = Pool(boot=10, period=15), PolicyMemory(((0.0, 3),))
    first = decide(later(15, look(0, booting=(5.0,) * 3)), goal(60), pool, memory)
    assert (first.action, first.workers) == ("hold", 3)
    second = later(30, look(0, booting=(5.0,) * 3))
    assert decide(second, goal(60), pool, first.memory).workers == 0


def test_none_goes_at_the_first_look_where_the_platform_chooses_which() -> None:
    pool = Pool(boot=10, period=15, picks_victims=False)
    memory = decide(look(7500, ready=9), goal(60), pool).memory
    first = decide(later(15, look(0, ready=9)), goal(60), pool, memory)
    assert first.action == "hold"
    second = decide(later(30, look(0, ready=9)), goal(60), pool, first.memory)
    assert (second.action, second.workers) == ("down", 0)


def test_where_new_workers_come_in_time_the_last_one_goes_at_the_first_look() -> None:
    seen = look(0, ready=1)
    assert decide(seen, goal(60), Pool(boot=10, period=15)).workers == 0
    assert decide(seen, goal(60), Pool(boot=50, period=15)).workers == 1
    assert decide(seen, goal(60, window=0), Pool(boot=10, period=15)).workers == 1


def test_what_may_arrive_is_counted_only_if_the_next_look_would_be_too_late() -> None:
    seen = look(0, arrival_rates={"resize": 20.0})
    assert decide(seen, goal(40), Pool(boot=18, period=15)).terms["coming"] == 0
    assert decide(seen, goal(38), Pool(boot=18, period=15)).terms["coming"] == 660


def test_a_pool_shrinks_to_a_maximum_that_was_lowered_though_more_are_needed() -> None:
    decision = decide(look(9000, ready=50, busy=30), goal(maximum=40), Pool())
    assert (decision.action, decision.workers) == ("down", 40)
    assert (decision.needed, decision.reason) == (90, "maximum")
    assert decide(look(9000, ready=50, busy=45), goal(maximum=40), Pool()).workers == 45
    there = decide(look(9000, ready=40), goal(maximum=40), Pool())
    assert (there.action, there.reason) == ("hold", "maximum")
    running = [Running("resize", 0.1)] * 45
    idle = decide(look(0, ready=45, running=running), goal(maximum=40), Pool())
    assert (idle.needed, idle.verdicts) == (45, ())
    just = decide(look(9000, ready=90), goal(maximum=90), Pool())
    assert (just.action, just.reason) == ("hold", "enough")


def test_workers_that_have_a_job_count_as_needed() -> None:
    running = [Running("resize", 0.1)] * 22
    seen = look(394, ready=22, running=running, age=8)
    decision = decide(seen, goal(), Pool(boot=30))
    assert (decision.needed, decision.reason) == (22, "enough")
    assert decide(seen, goal(), Pool(slots=2, boot=30)).needed == 11
    # As a need they are not remembered: they have done it when they can go.
    assert decision.memory.needs == ((0.0, 0),)


def test_a_window_remembers_what_busy_workers_did_as_well() -> None:
    pool, wanted, memory = Pool(boot=30), goal(window=600), PolicyMemory()
    busy = look(0, ready=20, running=[Running("resize", 0.1)] * 20)
    for number in range(40):
        memory = decide(later(15 * number, busy), wanted, pool, memory).memory
    idle = look(0, ready=20)
    soon = decide(later(15 * 40, idle), wanted, pool, memory)
    assert (soon.action, soon.workers, soon.reason) == ("hold", 20, "recent need")
    assert decide(later(15 * 40 + 600, idle), wanted, pool, memory).workers == 1


def test_no_more_is_kept_for_bursts_than_the_maximum() -> None:
    late, wanted, memory = Pool(boot=30, period=60), goal(maximum=20), PolicyMemory()
    for number in range(60):
        seen = look(200_000, ready=20, age=60.0 * number)
        memory = decide(later(60 * number, seen), wanted, late, memory).memory
    assert 10 < memory.mean_need <= 20


def test_one_look_after_a_long_time_does_not_stand_for_all_of_it() -> None:
    late, wanted = Pool(boot=30, period=60), goal()
    memory = decide(look(0), wanted, late).memory
    memory = decide(later(36_000, look(5000)), wanted, late, memory).memory
    assert 0 < memory.mean_need < 5


def test_the_need_of_the_last_look_is_remembered_however_long_ago_that_was() -> None:
    pool = Pool(boot=30, period=60)
    first = decide(look(2000), goal(), pool)
    second = decide(later(300, look(0, ready=20)), goal(), pool, first.memory)
    assert (second.action, second.reason) == ("hold", "recent need")
    third = decide(later(600, look(0, ready=20)), goal(), pool, second.memory)
    assert third.workers < 20


def test_a_minimum_above_what_the_platform_gives_does_not_make_it_flap() -> None:
    pool, wanted = Pool(maximum=3), goal(minimum=5)
    up = decide(look(0), wanted, pool)
    assert (up.action, up.workers) == ("up", 3)
    assert decide(look(0, ready=3), wanted, pool, up.memory).action == "hold"


def test_a_floor_is_named_and_is_not_taken_for_work() -> None:
    pool = Pool(boot=60, period=60)
    up = decide(look(0), goal(), pool, floor=4)
    assert (up.action, up.workers, up.reason, up.verdicts) == ("up", 4, "floor", ())
    there = decide(later(60, look(0, ready=4)), goal(), pool, up.memory, floor=4)
    assert (there.action, there.reason) == ("hold", "floor")
    assert there.memory.mean_need == 0, "it is no need, and nothing is left of it"
    capped = decide(look(0), goal(maximum=3), pool, floor=4)
    assert (capped.workers, capped.reason, capped.verdicts) == (3, "maximum", ())


@pytest.mark.parametrize(
    ("ready", "outcome"), [(3, ("hold", 3, "busy")), (5, ("down", 3, "work"))]
)
@pytest.mark.parametrize("window", [None, 0])
def test_busy_workers_are_the_reason_for_which_a_pool_stays_or_is_not_smaller(
    ready: int, outcome: tuple[str, int, str], window: float | None
) -> None:
    seen = look(0, ready=ready, running=[Running("resize", 0.1)] * 3)
    decision = settle(seen, goal(window=window), Pool(slots=8))
    assert (decision.action, decision.workers, decision.reason) == outcome


def test_a_large_pool_is_not_shrunk_by_less_than_a_tenth() -> None:
    times = {"resize": ServiceTime(30)}
    wanted = goal(30, window=0)
    near = look(0, ready=100, running=[Running("resize", 1)] * 93, service_times=times)
    assert decide(near, wanted, Pool()).reason == "tolerance"
    far = look(0, ready=100, running=[Running("resize", 1)] * 80, service_times=times)
    assert decide(far, wanted, Pool()).workers == 80


def test_a_second_look_at_the_same_thing_changes_nothing() -> None:
    seen, wanted, pool = look(500, ready=5), goal(), Pool()
    first = decide(seen, wanted, pool)
    grown = dataclasses.replace(
        seen, fleet=Fleet(5, (0.0,) * (first.workers - 5), seen.fleet.busy)
    )
    second = decide(later(1, grown), wanted, pool, first.memory)
    assert (second.action, second.workers) == ("hold", first.workers)


def test_a_sensor_that_fails_never_shrinks_a_pool() -> None:
    blind = look(0, ready=8, failure="Redis does not answer")
    decision = settle(blind, goal(window=0), Pool())
    assert (decision.action, decision.workers) == ("hold", 8)
    decision = settle(blind, goal(fallback=10, maximum=9), Pool())
    assert (decision.action, decision.workers) == ("up", 9)


@pytest.mark.parametrize(
    "wrong", [{"wait": 0}, {"minimum": 3, "maximum": 2}, {"minimum": -1}]
)
def test_a_goal_that_makes_no_sense_is_refused(wrong: dict[str, t.Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        goal(**wrong)
