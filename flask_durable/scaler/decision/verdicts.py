"""Obstacles that no number of workers overcomes, in words."""

from __future__ import annotations

from dataclasses import dataclass

from .capacity import Slots
from .observation import Goal
from .observation import Observation
from .observation import Pool
from .observation import ServiceTime
from .work import SAVABLE
from .work import typical
from .work import Work

_NORMAL_95 = 1.645
#: Workers are late after this many boot times and at least this many seconds.
_LATE_BOOTS = 5
_LATE = 300.0
#: A job whose share of computing is smaller spends its time waiting.
_COMPUTES = 0.7


@dataclass(frozen=True)
class Verdict:
    """The reason why the goal cannot be met, and the remedy.

    :param code: A stable code, for alerts: ``"job-too-long"``, ``"boot-too-long"``,
        ``"period-too-long"``, ``"maximum-too-low"``, ``"overload"``,
        ``"platform-limit"`` or ``"workers-missing"``.
    :param text: One sentence for a person.
    """

    code: str
    text: str


def verdicts_of(
    observation: Observation, work: Work, wanted: int, goal: Goal, pool: Pool
) -> tuple[Verdict, ...]:
    """Return the obstacles to *goal*, if the work *wanted* this many workers."""
    found = (
        _job_too_long(observation, goal),
        _boot_too_long(observation, work, wanted, pool),
        _period_too_long(observation, work, wanted, pool),
        _maximum_too_low(observation, work, wanted, goal, pool),
        _overload(observation, goal, pool),
        _platform_limit(wanted, goal, pool),
        _workers_missing(observation, pool),
    )
    return tuple(verdict for verdict in found if verdict is not None)


def _job_too_long(observation: Observation, goal: Goal) -> Verdict | None:
    if goal.completion is None:
        return None
    names = {group.function for group in observation.waiting}
    names |= {job.function for job in observation.running}
    known = observation.service_times
    times = {}
    for name in names & known.keys():
        spread = _NORMAL_95 * known[name].variance ** 0.5
        times[name] = known[name].p95 or known[name].mean + spread
    if not times or max(times.values()) <= goal.completion:
        return None
    name = max(times, key=lambda name: times[name])
    return Verdict(
        "job-too-long",
        f"No number of workers can do it: one job of {name} takes up to"
        f" {times[name]:.0f} s (p95), and it is to be done within"
        f" {goal.completion:.0f} s."
        f" {_advice(known[name], times[name] / goal.completion)}{_speeds(known[name])}",
    )


def _advice(known: ServiceTime, factor: float) -> str:
    """Return the remedy for a job that takes *factor* times too long."""
    faster = f"workers that are {factor:.1f} times as fast"
    if known.computing is None:
        return f"Split it into steps, or use {faster}."
    share = f"{min(known.computing, 1):.0%} of its time"
    if known.computing < _COMPUTES:
        return (
            f"Alone on a worker, it computes for {share} and waits for the rest, which"
            " larger workers do not shorten: split it into steps."
        )
    return (
        f"Alone on a worker, it computes for {share}: split it into steps, or use"
        f" {faster}, with no more threads than processors."
    )


def _speeds(known: ServiceTime) -> str:
    """Return how long a job takes on workers of each size that was seen."""
    if not known.sizes:
        return ""
    means = sorted(known.sizes.items(), key=lambda pair: pair[1], reverse=True)
    seen = ", ".join(f"{seconds:.3g} s on {size}" for size, seconds in means)
    return f" It took {seen} since yesterday."


def _boot_too_long(
    observation: Observation, work: Work, wanted: int, pool: Pool
) -> Verdict | None:
    short = observation.jobs and wanted > observation.fleet.size
    if not short or work.wait >= SAVABLE * pool.boot:
        return None
    return Verdict(
        "boot-too-long",
        f"A worker takes {pool.boot:.0f} s to boot, too long for a wait of"
        f" {work.wait:.0f} s: what waits now will be late by about"
        f" {pool.boot:.0f} s. Keep a minimum of warm workers, or allow a longer wait.",
    )


def _period_too_long(
    observation: Observation, work: Work, wanted: int, pool: Pool
) -> Verdict | None:
    reaction = pool.period + pool.boot
    if wanted <= observation.fleet.size or reaction <= work.wait:
        return None
    return Verdict(
        "period-too-long",
        f"{pool.period:.0f} s to notice and {pool.boot:.0f} s to boot are more than"
        f" {work.wait:.0f} s: a burst that begins right after a decision is"
        f" late. Decide more often (--loop), or allow {reaction:.0f} s.",
    )


def limit_of(goal: Goal, pool: Pool) -> int:
    """Return the largest pool that both goal and platform allow."""
    if pool.maximum is None:
        return goal.maximum
    return min(goal.maximum, pool.maximum)


def _maximum_too_low(
    observation: Observation, work: Work, wanted: int, goal: Goal, pool: Pool
) -> Verdict | None:
    limit = limit_of(goal, pool)
    if wanted <= limit or not work.jobs:
        return None
    overloaded = load_of(observation, goal) >= limit * pool.slots
    clears = None if overloaded else clear_time(observation, work, limit, pool)
    when = f"it is cleared in {clears:.0f} s" if clears else "it is never cleared"
    return Verdict(
        "maximum-too-low",
        f"{wanted} workers are needed, and {limit} are allowed: {when}. Raise the"
        " maximum, or allow a longer wait.",
    )


def clear_time(
    observation: Observation, work: Work, workers: int, pool: Pool
) -> float | None:
    """Return the seconds until *workers* have done the waiting work, if ever."""
    slots = Slots(observation.fleet, pool, work.residuals)
    due = work.seconds + work.margin
    low, high = 0.0, 1.0
    while slots.done(workers, high) < due:
        low, high = high, 2 * high
        if high > 1e9:
            return None
    for _ in range(50):
        middle = (low + high) / 2
        if slots.done(workers, middle) < due:
            low = middle
        else:
            high = middle
    return high


def _overload(observation: Observation, goal: Goal, pool: Pool) -> Verdict | None:
    load = load_of(observation, goal)
    most = limit_of(goal, pool) * pool.slots
    if load < most or not observation.jobs:
        return None
    return Verdict(
        "overload",
        f"Each second {load:.1f} s of work arrive, and {most} slots are all that are"
        f" allowed: the queue grows by {load - most:.1f} s of work a second.",
    )


def load_of(observation: Observation, goal: Goal) -> float:
    """Return the seconds of work that arrive each second."""
    unknown = typical(observation, goal)
    return sum(
        rate * observation.service_times.get(function, unknown).mean
        for function, rate in observation.arrival_rates.items()
    )


def _platform_limit(wanted: int, goal: Goal, pool: Pool) -> Verdict | None:
    if pool.maximum is None or min(wanted, goal.maximum) <= pool.maximum:
        return None
    return Verdict(
        "platform-limit",
        f"The platform gives no more than {pool.maximum} workers.",
    )


def _workers_missing(observation: Observation, pool: Pool) -> Verdict | None:
    fleet = observation.fleet
    if not fleet.missing or fleet.missing_for < max(_LATE_BOOTS * pool.boot, _LATE):
        return None
    return Verdict(
        "workers-missing",
        f"{fleet.missing} of {fleet.size} workers that were asked for do not come up,"
        f" and none has for {fleet.missing_for / 60:.0f} min: look at what the platform"
        " says of them, and at their logs.",
    )
