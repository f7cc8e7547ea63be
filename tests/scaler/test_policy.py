"""What is decided, from an observation that is written out."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from flask_durable.scaler import decide
from flask_durable.scaler import Decision
from flask_durable.scaler import Fleet
from flask_durable.scaler import Goal
from flask_durable.scaler import Memory
from flask_durable.scaler import Observation
from flask_durable.scaler import Pool
from flask_durable.scaler import Running
from flask_durable.scaler import Sample
from flask_durable.scaler import ServiceTime
from flask_durable.scaler import Waiting
from flask_durable.scaler.work import assess

RESIZE = {"resize": ServiceTime(0.3, 0.099, samples=48211)}
MANY = 10_000


def look(
    jobs: int = 0,
    ready: int = 0,
    running: t.Sequence[Running] = (),
    busy: int | None = None,
    age: float = 0.0,
    **given: t.Any,
) -> Observation:
    """Return what is seen of a queue of resize jobs."""
    booting = given.pop("booting", ())
    fleet = Fleet(ready, booting, len(running) if busy is None else busy)
    waiting = (Waiting("resize", jobs, age, age),) if jobs else ()
    given = {"service_times": RESIZE, "now": 0.0, **given}
    return Observation(waiting=waiting, running=tuple(running), fleet=fleet, **given)


def goal(wait: float = 30, **given: t.Any) -> Goal:
    return Goal(wait, **{"maximum": MANY, "margin": 0, **given})


def later(seconds: float, seen: Observation) -> Observation:
    return dataclasses.replace(seen, now=seen.now + seconds)


# -- How many --------------------------------------------------------------------------


def test_without_boot_time_and_margin_it_is_the_rule_of_thumb() -> None:
    decision = decide(look(7500), goal(), Pool(boot=0))
    assert decision.needed == decision.terms["rule_of_thumb"] == 75
    assert (decision.action, decision.workers) == ("up", 75)


@pytest.mark.parametrize(
    ("wait", "margin", "running", "workers"),
    [
        (30, 0, (), 215),
        (30, 1.28, (Running("resize", 0.1),) * 5, 219),
        # Just enough time for new workers: the horizon is the wait; else wait and boot.
        (27, 0, (), 308),
        (26, 0, (), 83),
    ],
)
def test_time_that_a_worker_boots_is_time_in_which_it_does_not_work(
    wait: float, margin: float, running: tuple[Running, ...], workers: int
) -> None:
    decision = decide(
        look(7500, ready=5, running=running), goal(wait, margin=margin), Pool(boot=20)
    )
    assert decision.needed == workers


def test_the_margin_is_the_spread_of_the_work_and_the_error_of_the_mean() -> None:
    decision = decide(look(7500), goal(margin=1.28), Pool())
    assert decision.terms["margin"] == pytest.approx(37.5, abs=0.05)
    exact = {"resize": ServiceTime(0.3, 0.099, samples=1e12)}
    decision = decide(look(7500, service_times=exact), goal(margin=1.28), Pool())
    assert decision.terms["margin"] == pytest.approx(34.9, abs=0.05)


def test_the_margin_grows_with_what_a_sample_leaves_to_guess() -> None:
    exact = {name: ServiceTime(mean, 0, 1e12) for name, mean in (("a", 1), ("b", 3))}
    waiting = tuple(Waiting(name, 5_000) for name in exact)

    def terms(*samples: Sample) -> t.Mapping[str, float]:
        seen = look(service_times=exact, samples=samples)
        seen = dataclasses.replace(seen, waiting=waiting)
        return decide(seen, goal(margin=1.28), Pool()).terms

    # 10,000 x sqrt(100/99 / 100 x 0.99): both are drawn 50 times, and half of 2 s off.
    drawn = terms(Sample(10_000, {"a": 50, "b": 50}))
    assert drawn["sampling"] == pytest.approx(1_000)
    assert drawn["margin"] == pytest.approx(1_280)
    assert drawn["by_deadline"] > terms()["by_deadline"]
    assert terms()["sampling"] == 0
    assert terms(Sample(10_000, {"a": 5_000, "b": 5_000}))["sampling"] == 0
    assert terms(Sample(10_000, {"a": 100}))["sampling"] == 0


@pytest.mark.parametrize("jobs", [1, 4, 5000])
def test_there_is_no_more_than_a_slot_for_each_job(jobs: int) -> None:
    long = {"resize": ServiceTime(1140)}
    decision = decide(look(jobs, service_times=long), goal(60), Pool(slots=4))
    assert decision.needed == -(-jobs // 4)


def test_jobs_that_run_hold_their_slots() -> None:
    long = {"resize": ServiceTime(1140)}
    running = [Running("resize", 10)] * 3
    seen = look(2, ready=3, running=running, service_times=long)
    assert decide(seen, goal(60), Pool()).needed == 5


def test_the_oldest_job_has_less_time_left() -> None:
    fresh = decide(look(100, service_times={"resize": ServiceTime(3)}), goal(), Pool())
    aged = look(100, age=20, service_times={"resize": ServiceTime(3)})
    assert decide(aged, goal(), Pool()).needed > 2 * fresh.needed


@pytest.mark.parametrize(
    ("urgent", "patient", "workers"),
    [
        # Two slots start thirty jobs of 10 s each in 300 s, besides four of 1 s.
        (4, 60, 2),
        (4, 0, 1),
        # All of 100 s of work within 10 s, or of 6,100 s within 300 s.
        (100, 60, 10),
        (100, 600, 21),
        # More than are placed one by one.
        (4000, 600, 364),
        (100, 6000, 201),
    ],
)
def test_of_several_queues_each_job_has_the_wait_of_its_queue(
    urgent: int, patient: int, workers: int
) -> None:
    seen = Observation(
        0.0,
        (Waiting("mail", urgent), Waiting("media", patient)),
        service_times={"mail": ServiceTime(1), "media": ServiceTime(10)},
        waits={"mail": 10, "media": 300},
    )
    decision = decide(seen, goal(10), Pool())
    assert decision.needed == pytest.approx(workers, rel=0.1)


def test_a_job_that_takes_as_long_as_the_wait_need_not_be_done_by_then() -> None:
    """It has to start: each slot starts one at once, and another one in time."""
    seen = look(10, service_times={"resize": ServiceTime(29)})
    assert decide(seen, goal(30), Pool()).needed == 5


def test_workers_that_boot_are_not_asked_for_again() -> None:
    first = decide(look(7500, ready=5), goal(), Pool(boot=20))
    booting = (20.0,) * (first.workers - 5)
    second = decide(look(7500, ready=5, booting=booting), goal(), Pool(boot=20))
    assert (second.action, second.needed) == ("hold", first.needed)


def test_a_function_that_nobody_measured_takes_as_long_as_the_others() -> None:
    seen = dataclasses.replace(
        look(100), waiting=(Waiting("resize", 100), Waiting("new", 100))
    )
    assert decide(seen, goal(), Pool()).terms["work"] == pytest.approx(60)


def test_where_nothing_is_known_the_guess_counts() -> None:
    seen = look(6, service_times={})
    assert decide(seen, goal(guess=100), Pool()).terms["work"] == 600


def test_runs_that_will_wake_up_soon_are_counted_and_later_ones_are_not() -> None:
    long = {"resize": ServiceTime(1000)}
    wakeups = (("resize", 5.0), ("resize", 34.0), ("resize", 36.0))
    seen = look(0, service_times=long, wakeups=wakeups)
    assert decide(seen, goal(), Pool(boot=20, period=15)).needed == 2


def test_many_runs_that_wake_up_are_some_batches() -> None:
    wakeups = [("resize", n / 1000) for n in range(10_000)] + [("other", 5.0)]
    seen = look(0, wakeups=tuple(reversed(wakeups)))
    work = assess(seen, goal(), Pool(boot=20, period=15))
    assert work.coming == 10_001
    assert len(work.batches) == 33
    assert {(b.first, b.last) for b in work.batches} > {(0.0, 0.312), (5.0, 5.0)}


def test_a_steady_load_keeps_the_workers_that_serve_it() -> None:
    seen = look(0, ready=10, arrival_rates={"resize": 20.0})
    decision = decide(seen, goal(1), Pool(boot=20, period=15))
    assert decision.needed >= 6


def test_headroom_is_as_much_as_steady_waits_need() -> None:
    times = {"resize": ServiceTime(60, 3600)}
    seen = look(0, service_times=times, arrival_rates={"resize": 0.05})
    assert decide(seen, goal(30, headroom=0.05), Pool(boot=0)).needed == 6


def test_a_floor_of_the_week_is_a_need() -> None:
    assert decide(look(0), goal(), Pool(), floor=4).workers == 4


# -- Limits ----------------------------------------------------------------------------


def test_the_maximum_and_the_platform_s_limit_hold_and_are_named() -> None:
    decision = decide(look(7500, ready=5), goal(maximum=100), Pool(boot=20, maximum=80))
    assert (decision.workers, decision.reason) == (80, "maximum")
    codes = {verdict.code for verdict in decision.verdicts}
    assert {"maximum-too-low", "platform-limit"} <= codes


def test_the_minimum_is_kept_where_nothing_is_needed() -> None:
    decision = decide(look(0), goal(minimum=2), Pool())
    assert (decision.action, decision.workers, decision.reason) == ("up", 2, "minimum")
    there = settle(look(0, ready=2), goal(minimum=2), Pool())
    assert (there.action, there.workers, there.reason) == ("hold", 2, "minimum")
    gone = settle(look(0, ready=3), goal(minimum=2), Pool())
    assert (gone.action, gone.workers, gone.reason) == ("down", 2, "minimum")


@pytest.mark.parametrize(
    ("given", "of_pool", "code"),
    [
        ({"wait": 15}, {"boot": 20}, "boot-too-long"),
        ({"wait": 30}, {"boot": 20, "period": 300}, "period-too-long"),
        ({"completion": 0.5}, {}, "job-too-long"),
        ({"maximum": 2}, {}, "overload"),
    ],
)
def test_a_goal_that_no_number_of_workers_meets_is_said(
    given: dict[str, t.Any], of_pool: dict[str, t.Any], code: str
) -> None:
    decision = decide(
        look(7500, arrival_rates={"resize": 10.0}), goal(**given), Pool(**of_pool)
    )
    assert code in {verdict.code for verdict in decision.verdicts}
    calm = decide(look(0), goal(**given), Pool(**of_pool))
    assert not calm.verdicts


@pytest.mark.parametrize(
    ("known", "advice"),
    [
        ({}, "Split it into steps, or use workers that are 3.0 times as fast."),
        (
            {"computing": 0.93, "sizes": {"2 CPUs": 25.0, "8 CPUs": 12.5}},
            "Alone on a worker, it computes for 93% of its time: split it into steps, "
            "or use workers that are 3.0 times as fast, with no more threads than "
            "processors. It took 25 s on 2 CPUs, 12.5 s on 8 CPUs since yesterday.",
        ),
        (
            {"computing": 0.04, "sizes": {"1 CPU": 25.0}},
            "Alone on a worker, it computes for 4% of its time and waits for the rest, "
            "which larger workers do not shorten: split it into steps. It took 25 s on "
            "1 CPU since yesterday.",
        ),
    ],
)
def test_what_helps_a_job_that_is_too_long_follows_from_what_was_measured(
    known: dict[str, t.Any], advice: str
) -> None:
    times = {"resize": ServiceTime(25, 4, 1000, p95=30.0, **known)}
    [verdict] = decide(
        look(1, ready=1, service_times=times), goal(completion=10), Pool()
    ).verdicts
    assert verdict.code == "job-too-long"
    assert verdict.text.endswith(f"to be done within 10 s. {advice}")


def test_the_time_until_too_few_workers_have_cleared_the_queue_is_said() -> None:
    decision = decide(
        look(7500, ready=5, running=[Running("resize", 0.1)] * 5),
        goal(maximum=100, margin=1.28),
        Pool(boot=20),
    )
    [text] = [v.text for v in decision.verdicts if v.code == "maximum-too-low"]
    assert "219 workers are needed, and 100 are allowed: it is cleared in 42 s" in text


# -- Over time -------------------------------------------------------------------------


def settle(seen: Observation, wanted: Goal, pool: Pool, looks: int = 4) -> Decision:
    """Decide so often in a row, with nothing changing but the time."""
    memory = Memory()
    for number in range(looks):
        decision = decide(later(number * pool.period, seen), wanted, pool, memory)
        memory = decision.memory
    return decision


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
    memory, time = Memory(), 0.0
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
    pool, memory = Pool(boot=10, period=15), Memory(((0.0, 20),))
    seen = later(15, look(0, ready=12, busy=4, booting=(5.0, 8.0)))
    decision = decide(seen, goal(60), pool, memory)
    assert (decision.action, decision.workers) == ("down", 4 + 2)
    assert decide(seen, goal(60, window=20), pool, memory).action == "hold"
    late = Pool(boot=50, period=15)
    assert decide(seen, goal(60), late, memory).action == "hold"


def test_where_new_workers_come_in_time_those_that_boot_go_at_the_second_look() -> None:
    pool, memory = Pool(boot=10, period=15), Memory(((0.0, 3),))
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
    pool, wanted, memory = Pool(boot=30), goal(window=600), Memory()
    busy = look(0, ready=20, running=[Running("resize", 0.1)] * 20)
    for number in range(40):
        memory = decide(later(15 * number, busy), wanted, pool, memory).memory
    idle = look(0, ready=20)
    soon = decide(later(15 * 40, idle), wanted, pool, memory)
    assert (soon.action, soon.workers, soon.reason) == ("hold", 20, "recent need")
    assert decide(later(15 * 40 + 600, idle), wanted, pool, memory).workers == 1


def test_no_more_is_kept_for_bursts_than_the_maximum() -> None:
    late, wanted, memory = Pool(boot=30, period=60), goal(maximum=20), Memory()
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
