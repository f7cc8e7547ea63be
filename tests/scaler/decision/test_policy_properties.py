"""Properties of the decision that hold for every observation."""

from __future__ import annotations

import dataclasses
import math
import typing as t

from hypothesis import given
from hypothesis import strategies as st

from flask_durable.scaler import decide
from flask_durable.scaler import Fleet
from flask_durable.scaler import Goal
from flask_durable.scaler import Observation
from flask_durable.scaler import PolicyMemory
from flask_durable.scaler import Pool
from flask_durable.scaler import Running
from flask_durable.scaler import ServiceTime
from flask_durable.scaler import Waiting
from flask_durable.scaler.decision.capacity import MOST_PLANNED

FUNCTIONS = ("resize", "transcode", "unknown")
MANY = 1_000_000

seconds = st.floats(0, 600)
means = st.floats(0.01, 500)
counts = st.one_of(st.integers(0, 50), st.integers(0, 3 * MOST_PLANNED))


@st.composite
def observations(
    draw: st.DrawFn, functions: tuple[str, ...] = FUNCTIONS
) -> Observation:
    names = st.sampled_from(functions)
    waiting = []
    for function in draw(st.lists(names, max_size=4)):
        newest, range_ = draw(seconds), draw(seconds)
        waiting.append(Waiting(function, draw(counts), newest + range_, newest))
    slots = draw(st.lists(st.builds(Running, names, seconds)))
    ready = draw(st.integers(len(slots), len(slots) + 20))
    booting = tuple(draw(st.lists(st.floats(0, 60), max_size=5)))
    times = {
        function: ServiceTime(draw(means), draw(means) ** 2, draw(st.integers(1, 1000)))
        for function in FUNCTIONS[:2]
    }
    rates = draw(st.dictionaries(names, st.floats(0, 5)))
    fleet = Fleet(ready, booting, len(slots))
    return Observation(0, tuple(waiting), tuple(slots), fleet, times, rates)


pools = st.builds(Pool, st.just(1), st.floats(0, 120), st.floats(5, 300))
goals = st.builds(
    Goal,
    st.floats(1, 600),
    st.integers(0, 3),
    st.just(MANY),
    margin=st.sampled_from([0, 1.28]),
)


def needed(seen: Observation, goal: Goal, pool: Pool) -> int:
    return decide(seen, goal, pool).needed


def savable(seen: Observation) -> Observation:
    """Return *seen* without jobs that could be late already.

    Those are given a new deadline, which is later than that of what can be saved.
    """
    waiting = [dataclasses.replace(w, oldest=0, newest=0) for w in seen.waiting]
    return dataclasses.replace(seen, waiting=tuple(waiting))


def more_jobs(seen: Observation, more: int) -> Observation:
    waiting = tuple(
        dataclasses.replace(group, jobs=group.jobs + more) for group in seen.waiting
    )
    return dataclasses.replace(seen, waiting=waiting)


@given(observations(), goals, pools)
def test_there_is_never_more_than_a_slot_for_each_job(
    seen: Observation, goal: Goal, pool: Pool
) -> None:
    decision = decide(seen, goal, pool)
    jobs = seen.jobs + len(seen.running) + decision.terms["coming"]
    assert decision.needed <= jobs


@given(observations(), goals, pools)
def test_no_worker_that_has_a_job_goes(
    seen: Observation, goal: Goal, pool: Pool
) -> None:
    memory = PolicyMemory(empty_looks=5)
    decision = decide(seen, dataclasses.replace(goal, window=0), pool, memory)
    assert decision.workers >= min(seen.fleet.busy, seen.fleet.size)


@given(
    observations(),
    st.builds(
        Goal,
        st.floats(1, 600),
        st.integers(0, 3),
        st.integers(3, 60),
        window=st.sampled_from([None, 0, 300]),
    ),
    st.builds(
        Pool,
        st.integers(1, 8),
        st.floats(0, 120),
        st.floats(5, 300),
        st.one_of(st.none(), st.integers(0, 60)),
        st.booleans(),
    ),
    st.builds(
        PolicyMemory,
        st.lists(st.tuples(st.floats(-400, 0), st.integers(0, 90))).map(tuple),
        st.integers(0, 3),
        st.floats(0, 60),
    ),
    st.integers(0, 20),
)
def test_no_worker_that_has_a_job_goes_and_no_limit_is_exceeded_whatever_the_pool_is(
    seen: Observation, goal: Goal, pool: Pool, memory: PolicyMemory, floor: int
) -> None:
    decision = decide(seen, goal, pool, memory, floor)
    size, busy = seen.fleet.size, seen.fleet.busy
    compared = (decision.workers > size) - (decision.workers < size)
    assert compared == {"up": 1, "hold": 0, "down": -1}[decision.action]
    if decision.action == "up":
        most = goal.maximum if pool.maximum is None else pool.maximum
        assert decision.workers <= min(most, goal.maximum)
    if decision.action == "down":
        assert decision.workers >= busy
        assert pool.picks_victims or not busy


@given(observations(), goals, pools)
def test_it_goes_up_at_once_and_never_up_and_down(
    seen: Observation, goal: Goal, pool: Pool
) -> None:
    decision = decide(seen, goal, pool)
    if decision.needed > seen.fleet.size:
        assert decision.action == "up"
        assert decision.workers == max(decision.needed, goal.minimum)
    assert goal.minimum <= decision.workers or decision.action == "hold"


@given(observations(), goals, pools)
def test_the_same_look_again_changes_nothing(
    seen: Observation, goal: Goal, pool: Pool
) -> None:
    first = decide(seen, goal, pool)
    second = decide(seen, goal, pool, first.memory)
    assert second.needed == first.needed
    assert second.action == first.action or first.memory.empty_looks == 1


@given(observations(), goals, pools, st.integers(0, 400))
def test_slower_functions_never_need_fewer_workers(
    seen: Observation, goal: Goal, pool: Pool, more: int
) -> None:
    goal = dataclasses.replace(goal, margin=0)
    pool = dataclasses.replace(pool, boot=0)
    slower = {
        name: dataclasses.replace(known, mean=known.mean * (1 + more / 100))
        for name, known in seen.service_times.items()
    }
    seen = dataclasses.replace(seen, running=(), arrival_rates={})
    worse = dataclasses.replace(seen, service_times=slower)
    assert needed(worse, goal, pool) >= needed(seen, goal, pool)


@given(observations(("resize", "transcode")), goals, pools, st.integers(1, 400))
def test_more_jobs_never_need_fewer_workers(
    seen: Observation, goal: Goal, pool: Pool, more: int
) -> None:
    goal = dataclasses.replace(goal, margin=0)
    pool = dataclasses.replace(pool, boot=0)
    seen = savable(seen)
    worse = more_jobs(seen, more)
    if (seen.jobs <= MOST_PLANNED - 600) == (worse.jobs <= MOST_PLANNED - 600):
        assert needed(worse, goal, pool) >= needed(seen, goal, pool)


@given(observations(), goals, pools, st.floats(1, 10))
def test_a_longer_wait_never_needs_more_workers(
    seen: Observation, goal: Goal, pool: Pool, factor: float
) -> None:
    pool = dataclasses.replace(pool, boot=0)
    seen = savable(seen)
    patient = dataclasses.replace(goal, desired_wait=goal.desired_wait * factor)
    assert needed(seen, patient, pool) <= needed(seen, goal, pool)


@given(st.integers(MOST_PLANNED + 1, 10**6), means, st.floats(1, 600))
def test_a_long_queue_of_short_jobs_alone_gets_what_the_rule_of_thumb_says(
    jobs: int, mean: float, wait: float
) -> None:
    seen = Observation(0, (Waiting("a", jobs),), service_times={"a": ServiceTime(mean)})
    decision = decide(seen, Goal(wait, maximum=MANY, margin=0), Pool())
    rule = math.ceil(jobs * mean / wait - 1e-9)
    assert decision.needed == min(rule, jobs)


def eighths(least: int, most: int) -> st.SearchStrategy[float]:
    """Return seconds whose sums are exact, so that two orders of jobs are the same."""
    return st.integers(8 * least, 8 * most).map(lambda number: number / 8)


def starts(seen: Observation, workers: int, boot: float) -> t.Iterator[float]:
    """Yield the wait of each job of *seen*, by a queue written in the plainest way.

    Less what its queue has longer than a minute.
    """

    def more(group: Waiting) -> float:
        return seen.waits.get(group.function, 60.0) - 60.0

    free = [0.0] * seen.fleet.ready + [boot] * (workers - seen.fleet.ready)
    for group in sorted(seen.waiting, key=lambda g: (more(g) - g.oldest, -g.oldest)):
        for _ in range(group.jobs):
            free.sort()
            yield free[0] + group.oldest - more(group)
            free[0] += seen.service_times[group.function].mean


@given(
    st.lists(st.tuples(st.integers(1, 30), means, eighths(0, 20)), max_size=3),
    st.integers(0, 4),
    st.floats(0, 20),
    st.dictionaries(st.sampled_from("012"), eighths(60, 900)),
)
def test_what_is_decided_suffices_and_one_fewer_does_not(
    groups: list[tuple[int, float, float]],
    ready: int,
    boot: float,
    waits: dict[str, float],
) -> None:
    wait = 60.0
    waiting = tuple(
        Waiting(str(n), jobs, age, age) for n, (jobs, _, age) in enumerate(groups)
    )
    times = {str(n): ServiceTime(mean) for n, (_, mean, _) in enumerate(groups)}
    seen = Observation(0, waiting, (), Fleet(ready), times, waits=waits)
    decision = decide(seen, Goal(wait, maximum=MANY, margin=0), Pool(boot=boot))
    enough = max(decision.needed, ready)
    assert all(late <= wait + 1e-6 for late in starts(seen, enough, boot))
    if decision.needed > max(ready, 1):
        fewer = starts(seen, decision.needed - 1, boot)
        assert any(late > wait - 1e-6 for late in fewer)
