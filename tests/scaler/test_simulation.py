"""The policy against others, on seeded workloads in simulated time."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.scaler import Goal
from flask_durable.scaler import Observation
from flask_durable.scaler import Pool
from flask_durable.scaler.simulation.clock import Simulation
from flask_durable.scaler.simulation.clock import World
from flask_durable.scaler.simulation.outcome import Outcome
from flask_durable.scaler.simulation.policies import DurablePolicy
from flask_durable.scaler.simulation.policies import FixedPolicy
from flask_durable.scaler.simulation.policies import Policy
from flask_durable.scaler.simulation.policies import Proportional
from flask_durable.scaler.simulation.policies import RuleOfThumb
from flask_durable.scaler.simulation.policies import Steps
from flask_durable.scaler.simulation.trace import read_trace
from flask_durable.scaler.simulation.workloads import Arrival
from flask_durable.scaler.simulation.workloads import generate
from flask_durable.scaler.simulation.workloads import WORKLOADS

WORLD = World(boot=(10, 40), period=15)
POOL = Pool(slots=1, boot=37, period=15)


def goal_of(workload: str) -> Goal:
    return Goal(WORKLOADS[workload][1], maximum=200)


def outcome(workload: str, policy: Policy, world: World = WORLD) -> Outcome:
    return Simulation(generate(workload, 1), policy, world, seed=1).run()


@pytest.mark.parametrize("workload", ["burst", "bursty", "crowd", "mixed"])
@pytest.mark.parametrize("other", [RuleOfThumb, Proportional, Steps])
def test_it_misses_fewer_waits_than_others_and_kills_nothing(
    workload: str, other: t.Callable[[Goal, Pool], Policy]
) -> None:
    goal = goal_of(workload)
    ours = outcome(workload, DurablePolicy(goal, POOL))
    theirs = outcome(workload, other(goal, POOL))
    assert ours.missed(goal.desired_wait) < theirs.missed(goal.desired_wait)
    assert ours.kills == 0


@pytest.mark.parametrize("workload", ["bursty", "mixed"])
@pytest.mark.parametrize("other", [Proportional, Steps])
def test_it_costs_less_than_others_that_grow_and_shrink_slowly(
    workload: str, other: t.Callable[[Goal, Pool], Policy]
) -> None:
    goal = goal_of(workload)
    ours = outcome(workload, DurablePolicy(goal, POOL))
    theirs = outcome(workload, other(goal, POOL))
    assert ours.worker_seconds < theirs.worker_seconds


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("workload", ["bursty", "mixed"])
def test_counts_that_are_late_and_wrong_do_no_harm(workload: str, slots: int) -> None:
    world = World(slots, boot=(10, 40), period=15, lag=8, noise=1)
    goal = goal_of(workload)
    ours = outcome(workload, DurablePolicy(goal, Pool(slots, 37, 15)), world)
    assert ours.missed(goal.desired_wait) < 0.05
    assert ours.kills == 0


# -- The simulator itself ------------------------------------------------------------


class Scripted:
    """Decides what it is told to, by the time."""

    name = "scripted"

    def __init__(self, sizes: dict[float, int], protects: bool = True) -> None:
        self.protects = protects
        self._sizes = sizes
        self.seen: list[Observation] = []

    def decide(self, observation: Observation) -> int:
        self.seen.append(observation)
        return [n for time, n in self._sizes.items() if time <= observation.now][-1]


def test_one_worker_takes_one_job_after_the_other() -> None:
    jobs = [Arrival(0, "a", 10)] * 3
    out = Simulation(jobs, FixedPolicy(1), World(lag=0), workers=1).run()
    assert sorted(out.waits) == [0, 10, 20]
    assert out.worker_seconds == 30


def test_a_worker_that_boots_is_paid_and_does_nothing() -> None:
    world = World(boot=(20, 20), lag=5)
    out = Simulation([Arrival(0, "a", 10)], FixedPolicy(1), world).run()
    assert out.waits == [25]
    assert out.worker_seconds == 30


def test_a_worker_that_drains_ends_its_job_and_takes_no_other() -> None:
    jobs = [Arrival(0, "a", 100), Arrival(1, "a", 1)]
    policy = Scripted({0: 1, 15: 0, 45: 1})
    out = Simulation(jobs, policy, World(boot=(5, 5), lag=0), workers=1).run()
    assert out.waits == [49, 0]  # 45 to decide, 5 to boot, arrived at 1
    assert out.kills == 0


def test_a_job_of_a_worker_that_is_stopped_is_done_again_from_its_beginning() -> None:
    policy = Scripted({0: 1, 15: 0, 30: 1}, protects=False)
    world = World(boot=(5, 5), lag=0, visibility=60)
    out = Simulation([Arrival(0, "a", 20)], policy, world, workers=1).run()
    assert (out.waits, out.kills, out.lost) == ([75], 1, 15)


def test_a_job_that_was_fetched_waits_for_its_worker_while_others_are_idle() -> None:
    jobs = [Arrival(0, "a", 100), Arrival(1, "b", 1)]
    world = World(boot=(5, 5), lag=0, prefetch=1)
    out = Simulation(jobs, Scripted({0: 1, 15: 2}), world, workers=1).run()
    assert out.waits == [0, 99]


def test_what_a_worker_fetched_goes_back_at_once_if_it_drains() -> None:
    jobs = [Arrival(0, "a", 100), Arrival(1, "b", 1)]
    world = World(boot=(5, 5), lag=0, visibility=60, prefetch=1)
    drained = Scripted({0: 1, 15: 0, 30: 1})
    out = Simulation(jobs, drained, world, workers=1).run()
    assert sorted(out.waits) == [0, 34]  # 30 to decide, 5 to boot, arrived at 1
    stopped = Scripted({0: 1, 15: 0, 30: 1}, protects=False)
    out = Simulation(jobs, stopped, world, workers=1).run()
    assert sorted(out.waits) == [74, 76]  # both are received again at 75
    assert (out.kills, out.lost) == (1, 15)


def test_a_policy_sees_the_jobs_their_ages_and_the_workers() -> None:
    jobs = [Arrival(0, "a", 50), Arrival(3, "a", 1), Arrival(10, "b", 1)]
    policy = Scripted({0: 1, 15: 2})
    Simulation(jobs, policy, World(boot=(100, 100), lag=0), workers=1).run()
    seen = policy.seen[1]
    assert {(w.function, w.jobs, w.oldest) for w in seen.waiting} == {
        ("a", 1, 12),
        ("b", 1, 5),
    }
    assert [(job.function, job.age) for job in seen.running] == [("a", 15)]
    assert (seen.fleet.ready, seen.fleet.busy, seen.fleet.booting) == (1, 1, ())
    assert policy.seen[2].fleet.booting == (85,)


def test_counts_of_jobs_may_be_old_and_those_of_workers_are_not() -> None:
    jobs = [Arrival(0, "a", 50), Arrival(10, "b", 1)]
    policy = Scripted({0: 1, 15: 2})
    world = World(boot=(100, 100), lag=20)
    Simulation(jobs, policy, world, workers=1).run()
    at_20, at_35, at_50 = policy.seen[:3]
    assert [seen.now for seen in (at_20, at_35, at_50)] == [20, 35, 50]
    assert [seen.jobs for seen in (at_20, at_35, at_50)] == [0, 1, 1]
    assert at_35.waiting[0].oldest == 5
    assert (at_35.fleet.booting, at_50.fleet.booting) == ((85,), (70,))


def test_a_policy_that_never_gets_to_the_end_is_given_up() -> None:
    out = Simulation([Arrival(0, "a", 1)], FixedPolicy(0), WORLD).run()
    assert out.missed(1e9) == 1


def test_a_recorded_trace_begins_at_its_first_job() -> None:
    lines = [
        '{"at": 1795292250, "function": "b", "seconds": 2}',
        "",
        '{"at": 1795292240.5, "function": "a", "seconds": 0.3}',
    ]
    jobs = [Arrival(0, "a", 0.3), Arrival(9.5, "b", 2)]
    assert read_trace(lines) == jobs
    assert read_trace([]) == []


def test_a_recorded_trace_may_be_a_table_with_dates() -> None:
    lines = [
        "at, seconds, function, user",
        '2026-11-25T10:00:09.5Z,2,"b, c",1',
        "2026-11-25T10:00:00+00:00,0.3,a,2",
    ]
    assert read_trace(lines) == [Arrival(0, "a", 0.3), Arrival(9.5, "b, c", 2)]


@pytest.mark.parametrize(
    "line",
    ['{"at": 1}', "[1]", "{", '{"at": "x", "function": "b", "seconds": 2}'],
)
def test_a_line_of_a_trace_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is no job: it takes at, function"):
        read_trace(['{"at": 1, "function": "b", "seconds": 2}', line])


def test_a_job_that_takes_less_than_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1 is no job: seconds is -2"):
        read_trace(['{"at": 1, "function": "b", "seconds": -2}'])
