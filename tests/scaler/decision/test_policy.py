"""The decision from an observation that is written out."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from flask_durable.scaler import decide
from flask_durable.scaler import Observation
from flask_durable.scaler import Pool
from flask_durable.scaler import Running
from flask_durable.scaler import Sample
from flask_durable.scaler import ServiceTime
from flask_durable.scaler import Waiting
from flask_durable.scaler.decision.work import assess

from ..seeing import goal
from ..seeing import look
from ..seeing import settle

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
