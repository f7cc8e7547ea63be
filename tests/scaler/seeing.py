"""Observations for the policy's tests: a queue of resize jobs, and its goal."""

from __future__ import annotations

import dataclasses
import typing as t

from flask_durable.scaler import decide
from flask_durable.scaler import Decision
from flask_durable.scaler import Fleet
from flask_durable.scaler import Goal
from flask_durable.scaler import Observation
from flask_durable.scaler import PolicyMemory
from flask_durable.scaler import Pool
from flask_durable.scaler import Running
from flask_durable.scaler import ServiceTime
from flask_durable.scaler import Waiting

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


def settle(seen: Observation, wanted: Goal, pool: Pool, looks: int = 4) -> Decision:
    """Decide so often in a row, with nothing changing but the time."""
    memory = PolicyMemory()
    for number in range(looks):
        decision = decide(later(number * pool.period, seen), wanted, pool, memory)
        memory = decision.memory
    return decision
