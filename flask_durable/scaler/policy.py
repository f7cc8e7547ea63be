"""The decision: how many workers, from one look at a queue and what was seen before.

Growing is immediate; giving back waits. The need that each look finds is remembered for
a window of time, and the pool shrinks only to the highest one in it: a look that falls
between two bursts does not empty the pool, and the window runs from the last need, not
from the last change (which a steady trickle would put off for ever).

Where workers that are asked for at the next look come in time for what arrives until
then, waiting costs more than it saves: what may arrive is not counted, and a worker
that is idle goes at the first look that finds it so. Where they come too late, only
those that are there already can keep the wait: the pool does not shrink below some
times its mean need of late.

Work is never killed: workers that have a job stay, and where the platform chooses
itself which ones go, none goes while any of them is busy.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass
from dataclasses import field

from .capacity import occupied
from .capacity import workers_needed
from .observation import Fleet
from .observation import Goal
from .observation import Observation
from .observation import Pool
from .observation import ServiceTime
from .queueing import steady_servers
from .verdicts import limit_of
from .verdicts import load_of
from .verdicts import Verdict
from .verdicts import verdicts_of
from .work import assess
from .work import typical
from .work import Work

#: A pool larger than this is not shrunk by less than a tenth.
_LARGE = 10
_TOLERANCE = 0.1
#: The looks that have to find nothing before the last worker goes, unless another one
#: would come in time. One may be wrong: counts of SQS are approximate.
_EMPTY_LOOKS = 2
#: Where new workers come too late, so many times the mean need is kept; the mean is
#: that of about so many seconds. In simulations, this misses a quarter less than giving
#: back, for a sixth more worker-hours.
_WARM = 2
_OF_LATE = 1800.0

Action = t.Literal["up", "down", "hold"]


@dataclass(frozen=True)
class Memory:
    """What a decision leaves for the next one.

    :param needs: Pairs of a time (seconds since 1970) and the workers that were needed
        then, unclamped; those of the window. If no window is given, 0 where those that
        were busy were enough.
    :param empty_looks: How many looks in a row found nothing to do.
    :param mean_need: The mean of the needs that those which were busy did not cover, as
        far as the maximum, of which older ones count less and less.
    """

    needs: tuple[tuple[float, int], ...] = ()
    empty_looks: int = 0
    mean_need: float = 0.0


@dataclass(frozen=True)
class Decision:
    """How many workers there should be, and why.

    :param action: ``"up"``, ``"down"`` or ``"hold"``.
    :param workers: How many there should be from now on.
    :param needed: How many the work needs, before limits and memory.
    :param reason: What decided, in a word or two.
    :param terms: The numbers behind it: seconds of work, workers by each rule.
    :param verdicts: What keeps the goal from being met.
    :param memory: For the next decision.
    """

    action: Action
    workers: int
    needed: int
    reason: str
    memory: Memory
    terms: t.Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()


def decide(
    observation: Observation,
    goal: Goal,
    pool: Pool,
    memory: Memory | None = None,
    floor: int = 0,
) -> Decision:
    """Return how many workers there should be.

    Pure: the same arguments give the same decision.

    :param observation: What was seen.
    :param goal: What is wanted of the queue.
    :param pool: What its workers are like.
    :param memory: What the last decision returned; nothing at the first one.
    :param floor: The fewest workers at this time of the week.
    """
    memory = memory or Memory()
    if observation.failure is not None:
        return _blind(observation, goal, pool, memory)
    work = assess(observation, goal, pool)
    terms = _terms(observation, work, goal, pool, floor)
    by_work = max(int(terms["by_deadline"]), int(terms["headroom"]))
    needed = max(by_work, floor)
    memory = _remember(memory, observation, by_work, work, goal, pool)
    action, workers, reason = _settle(observation.fleet, needed, memory, goal, pool)
    if workers == floor > by_work:
        reason = "floor"
    verdicts = verdicts_of(observation, work, by_work, goal, pool)
    return Decision(action, workers, needed, reason, memory, terms, verdicts)


def _blind(
    observation: Observation, goal: Goal, pool: Pool, memory: Memory
) -> Decision:
    """Hold, or go up to the fallback: what is not seen is no reason to give back."""
    current = observation.fleet.size
    workers = max(current, min(goal.fallback, limit_of(goal, pool)))
    action: Action = "up" if workers > current else "hold"
    return Decision(action, workers, workers, "a sensor failed", memory)


def _terms(
    observation: Observation, work: Work, goal: Goal, pool: Pool, floor: int
) -> dict[str, float]:
    busy = sum(min(left, goal.desired_wait) for left in work.residuals)
    return {
        "work": work.seconds,
        "running": busy,
        "margin": work.margin,
        "sampling": work.sampling,
        "coming": work.coming,
        "rule_of_thumb": math.ceil(work.rule_of_thumb / pool.slots - 1e-9),
        "by_deadline": workers_needed(work, observation.fleet, pool),
        "headroom": _headroom(observation, goal, pool),
        "floor": floor,
    }


def _headroom(observation: Observation, goal: Goal, pool: Pool) -> int:
    """Return the workers that keep waits short in steady state, if that is wanted."""
    load = load_of(observation, goal)
    if goal.headroom is None or not load:
        return 0
    rates = observation.arrival_rates
    unknown = typical(observation, goal)
    times = {name: observation.service_times.get(name, unknown) for name in rates}
    total = sum(rates.values())
    mean = load / total
    square = sum(
        rate * (times[name].variance + times[name].mean ** 2)
        for name, rate in rates.items()
    )
    mixed = ServiceTime(mean, max(square / total - mean**2, 0.0))
    servers = steady_servers(load, mixed, goal.desired_wait, goal.headroom)
    return math.ceil(servers / pool.slots)


def _remember(
    memory: Memory,
    observation: Observation,
    needed: int,
    work: Work,
    goal: Goal,
    pool: Pool,
) -> Memory:
    now = observation.now
    # Those that are busy do not go before they have done what they are needed for.
    beyond = needed if needed > occupied(work, observation.fleet, pool) else 0
    need = beyond if goal.window is None else needed
    mean = _mean(memory, now, min(beyond, limit_of(goal, pool)), pool)
    idle = not work.jobs and not work.residuals
    return Memory(
        (*_recalled(memory, now, goal, pool), (now, need)),
        memory.empty_looks + 1 if idle else 0,
        mean,
    )


def _recalled(
    memory: Memory, now: float, goal: Goal, pool: Pool
) -> tuple[tuple[float, int], ...]:
    """Return the needs of the window; if none is given, the last look's at least."""
    # Of two looks, one may miss what waits.
    window = 1.5 * pool.period if goal.window is None else goal.window
    found = tuple((time, need) for time, need in memory.needs if time > now - window)
    return found if found or goal.window is not None else memory.needs[-1:]


def _lets_idle_go(goal: Goal, pool: Pool) -> bool:
    """Return whether a worker goes at the first look that finds it idle.

    Not where one that has a job might go instead, should the look be wrong.
    """
    return goal.window is None and pool.picks_victims and _comes_in_time(goal, pool)


def _comes_in_time(goal: Goal, pool: Pool) -> bool:
    return pool.period + pool.boot <= goal.desired_wait


def _mean(memory: Memory, now: float, needed: int, pool: Pool) -> float:
    """Return the mean need: an exponentially weighted one, by the time of each look.

    Where it was not looked for long, what is needed now says little of that time.
    """
    if not memory.needs:
        return 0.0
    passed = min(max(now - memory.needs[-1][0], 0.0), 2 * pool.period)
    return needed + (memory.mean_need - needed) * math.exp(-passed / _OF_LATE)


def _recent(memory: Memory, fleet: Fleet, needed: int, goal: Goal, pool: Pool) -> int:
    """Return how many workers are kept: the busy ones, and some for needs of late."""
    highest = max(need for _, need in memory.needs)
    if _lets_idle_go(goal, pool):
        # An idle worker shows that nothing waits for it, one that boots does not: what
        # it was asked for may only have been missed by this look.
        not_idle = fleet.busy + len(fleet.booting)
        return max(needed, min(highest, not_idle), fleet.busy)
    if goal.window is None and not _comes_in_time(goal, pool):
        highest = max(highest, round(_WARM * memory.mean_need))
    last = int(memory.empty_looks < _EMPTY_LOOKS)
    return max(needed, highest, fleet.busy, last)


def _settle(
    fleet: Fleet, needed: int, memory: Memory, goal: Goal, pool: Pool
) -> tuple[Action, int, str]:
    """Return what is done about *needed*, and what decided it."""
    current, limit = fleet.size, limit_of(goal, pool)
    wanted = min(max(needed, goal.minimum), limit)
    if wanted > current:
        return "up", wanted, _because(needed, wanted)
    recent = _recent(memory, fleet, needed, goal, pool)
    keep = max(min(max(recent, goal.minimum), limit), fleet.busy)
    if keep < current and not pool.picks_victims and fleet.busy:
        return "hold", current, "a busy worker might go"
    if keep >= current:
        return "hold", current, _holding(fleet, needed, recent)
    if current > _LARGE and keep > (1 - _TOLERANCE) * current and current <= limit:
        return "hold", current, "tolerance"
    return "down", keep, _because(recent, keep)


def _holding(fleet: Fleet, needed: int, recent: int) -> str:
    if needed >= fleet.size:
        return "enough" if needed == fleet.size else "maximum"
    if recent < fleet.size:
        return "minimum"
    return "busy" if fleet.busy >= fleet.size else "recent need"


def _because(needed: int, workers: int) -> str:
    if workers > needed:
        return "minimum"
    return "maximum" if workers < needed else "work"
