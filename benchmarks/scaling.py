"""The scaler against other policies, on random queues in simulated time.

Nothing of a scenario was chosen by hand: functions, mix, load, bursts, boot times, how
often and by how old and wrong counts it is decided, and the wait that is desired are
all drawn. In some of them no worker that is asked for can be up in time; those are
counted apart.
"""

from __future__ import annotations

import math
import random
import typing as t
from dataclasses import dataclass

from flask_durable.scaler import Goal
from flask_durable.scaler import Pool
from flask_durable.scaler.simulation.clock import Simulation
from flask_durable.scaler.simulation.clock import World
from flask_durable.scaler.simulation.outcome import Outcome
from flask_durable.scaler.simulation.policies import Fixed
from flask_durable.scaler.simulation.policies import POLICIES
from flask_durable.scaler.simulation.workloads import Arrival
from flask_durable.scaler.simulation.workloads import lognormal

from .model import Figure
from .model import Options

KINDS = ("bursty", "mixed")
OURS, *OTHERS = (*POLICIES, "fixed")

#: A policy may cost so many times what another one does.
DEARER = 1.1


@dataclass(frozen=True)
class Scenario:
    """Jobs, the world they are in, and what is wanted."""

    jobs: t.Sequence[Arrival]
    world: World
    goal: Goal
    pool: Pool
    seed: int

    @property
    def in_reach(self) -> bool:
        """Whether a worker that is asked for after a burst can be up in time."""
        world = self.world
        return self.goal.desired_wait >= world.period + world.lag + world.boot[1]


@dataclass(frozen=True)
class Function:
    """What one function's jobs are like: mean in seconds, deviation by mean."""

    name: str
    mean: float
    variation: float

    def job(self, chance: random.Random, time: float) -> Arrival:
        """Return a job."""
        seconds = lognormal(chance, self.mean, self.variation)
        return Arrival(time, self.name, seconds)


def scenario(kind: str, seed: int) -> Scenario:
    """Return the scenario of a number."""
    chance = random.Random(f"{kind} {seed}")
    fastest = _between(chance, 5, 60)
    boot = (fastest, min(fastest * chance.uniform(1, 3), 120.0))
    world = World(
        slots=chance.choice((1, 1, 2, 4, 8)),
        boot=boot,
        period=chance.choice((15, 15, 30, 60)),
        lag=chance.choice((0, 1, 5, 15, 30)),
        noise=chance.choice((0, 0, 1, 2)),
        prefetch=chance.choice((0, 0, 0, 1)),
        measured=True,
    )
    pool = Pool(world.slots, boot[0] + 0.9 * (boot[1] - boot[0]), world.period)
    goal = Goal(chance.choice((30, 60, 60, 120, 300)), maximum=200)
    hours = chance.choice((2, 3, 4))
    jobs = sorted(_jobs(kind, chance, hours * 3600))
    return Scenario(jobs, world, goal, pool, seed)


def _between(chance: random.Random, low: float, high: float) -> float:
    """Return a number of which each order of magnitude is as likely."""
    return math.exp(chance.uniform(math.log(low), math.log(high)))


def _jobs(kind: str, chance: random.Random, end: float) -> t.Iterator[Arrival]:
    bursty = kind == "bursty"
    longest = 20 if bursty else 400
    functions = [
        Function(str(n), _between(chance, 0.2, longest), chance.uniform(0.2, 2))
        for n in range(chance.randint(1, 2) if bursty else chance.randint(2, 5))
    ]
    load = _between(chance, 0.05, 2) if bursty else _between(chance, 0.5, 15)
    for function in functions:
        yield from _steady(chance, function, load / len(functions), end)
    every = _between(chance, 240, 1800) if bursty else _between(chance, 900, 5400)
    work = _between(chance, 300, 4000)
    time = chance.uniform(60, every)
    while time < end:
        yield from _burst(chance, functions, work * chance.uniform(0.3, 1.7), time)
        time += 60 + chance.expovariate(1 / every)


def _steady(
    chance: random.Random, function: Function, load: float, end: float
) -> t.Iterator[Arrival]:
    """Yield jobs at random, so many seconds of work a second."""
    time = chance.expovariate(load / function.mean)
    while time < end:
        yield function.job(chance, time)
        time += chance.expovariate(load / function.mean)


def _burst(
    chance: random.Random, functions: t.Sequence[Function], work: float, begin: float
) -> t.Iterator[Arrival]:
    """Yield so many seconds of work within some seconds."""
    spread = chance.choice((0, 10, 30))
    while work > 0:
        time = begin + chance.uniform(0, spread)
        job = chance.choice(functions).job(chance, time)
        work -= job.seconds
        yield job


def outcomes(given: Scenario) -> dict[str, Outcome]:
    """Return what comes of each policy; the fixed pool costs what ours does."""
    found = {
        name: _run(given, policy(given.goal, given.pool), 0)
        for name, policy in POLICIES.items()
    }
    ours = found[OURS]
    workers = max(round(ours.worker_seconds / ours.end), 1)
    return {**found, "fixed": _run(given, Fixed(workers), workers)}


def _run(given: Scenario, policy: t.Any, workers: int) -> Outcome:
    return Simulation(given.jobs, policy, given.world, workers, given.seed).run()


class Score:
    """Some scenarios, added up."""

    def __init__(self) -> None:
        self.scenarios = 0
        self.kills = 0
        self.missed = dict.fromkeys((OURS, *OTHERS), 0.0)
        self.hours = dict.fromkeys((OURS, *OTHERS), 0.0)
        #: In how many ours misses fewer jobs than another policy, or neither any; and
        #: in how many of those it is not dearer than :data:`DEARER` allows.
        self.better = dict.fromkeys(OTHERS, 0)
        self.better_and_cheap = dict.fromkeys(OTHERS, 0)

    def add(self, wait: float, found: t.Mapping[str, Outcome]) -> None:
        """Add the outcomes of a scenario."""
        self.scenarios += 1
        self.kills += found[OURS].kills
        missed = {name: outcome.missed(wait) for name, outcome in found.items()}
        for name, outcome in found.items():
            self.missed[name] += missed[name]
            self.hours[name] += outcome.worker_seconds / 3600
        for name in OTHERS:
            better = missed[OURS] < missed[name] or missed[OURS] == missed[name] == 0
            limit = DEARER * found[name].worker_seconds
            self.better[name] += better
            self.better_and_cheap[name] += (
                better and found[OURS].worker_seconds <= limit
            )

    def mean_missed(self, name: str) -> float:
        """Return the mean share of jobs that wait for too long."""
        return self.missed[name] / max(self.scenarios, 1)


def measure(options: Options) -> t.Iterator[Figure]:
    """Run the scenarios, and yield what came of them by kind and by reach."""
    for kind in KINDS:
        scores = {True: Score(), False: Score()}
        for seed in range(10 if options.quick else 60):
            given = scenario(kind, seed)
            found = outcomes(given)
            scores[given.in_reach].add(given.goal.desired_wait, found)
        for in_reach, score in scores.items():
            yield from _figures(
                f"{kind}, {'in' if in_reach else 'out of'} reach", score
            )


def _figures(title: str, score: Score) -> t.Iterator[Figure]:
    yield Figure(f"{title}: kills", 0, score.kills, "jobs")
    for name in OTHERS:
        theirs = score.missed[name]
        yield Figure(
            f"{title}: {name}",
            None,
            score.missed[OURS] / theirs if theirs else 1.0,
            "x its misses",
            detail=_detail(score, name),
        )


def _detail(score: Score, name: str) -> str:
    return (
        f"misses {score.mean_missed(OURS):.2%}, not {score.mean_missed(name):.2%}; "
        f"hours {score.hours[OURS]:.0f}, not {score.hours[name]:.0f}; "
        f"better in {score.better[name]} of {score.scenarios}, "
        f"in {score.better_and_cheap[name]} of them at most {DEARER} x as dear"
    )
