"""The decision on the number of workers, from one look and the memory of earlier ones.

Growing is immediate; giving back waits. The need that each look finds is remembered for
a window of time, and the pool shrinks only to the highest one in it. So a look that
falls between two bursts does not empty the pool. The window runs from the last need,
not from the last change, which a steady trickle would put off for ever.

If workers asked for at the next look still come in time for the jobs that arrive until
then, keeping workers costs more than it saves. Possible arrivals are then not counted,
and an idle worker goes at the first look that finds it so. If they would come too late,
only workers that are already up can keep the wait. The pool then does not shrink below
a multiple of its recent mean need.

Work is never killed: workers that have a job stay. Where the platform itself chooses
which workers go, none goes while any is busy.
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

#: A pool larger than this many workers is not shrunk by less than a tenth.
_LARGE = 10
_TOLERANCE = 0.1
#: The looks in a row that find nothing before the last worker goes, unless a new one
#: would come in time. One look may be wrong: counts of SQS are approximate.
_EMPTY_LOOKS = 2
#: The multiple of the mean need that is kept where new workers come too late, and the
#: seconds over which the mean is taken, roughly. In simulations, this misses a quarter
#: less than giving back, for a sixth more worker-hours.
_WARM = 2
_OF_LATE = 1800.0

Action = t.Literal["up", "down", "hold"]


@dataclass(frozen=True)
class PolicyMemory:
    """The memory that a decision leaves for the next one.

    :param needs: Pairs of a time (seconds since 1970) and the workers that were needed
        then, without limits, for the time of the window. If no window is given, the
        need is 0 where the busy workers were enough.
    :param empty_looks: The number of looks in a row that found nothing to do.
    :param mean_need: The mean of the needs beyond the busy workers, each at most the
        maximum. Older needs count less and less.
    """

    needs: tuple[tuple[float, int], ...] = ()
    empty_looks: int = 0
    mean_need: float = 0.0


@dataclass(frozen=True)
class Decision:
    """The decision on the number of workers, with its reasons.

    :param action: ``"up"``, ``"down"`` or ``"hold"``.
    :param workers: The number of workers from now on.
    :param needed: The number that the work needs, before limits and memory.
    :param reason: The deciding rule, in a word or two.
    :param terms: The numbers behind it: seconds of work, workers by each rule.
    :param verdicts: The obstacles to the goal.
    :param memory: The memory for the next decision.
    """

    action: Action
    workers: int
    needed: int
    reason: str
    memory: PolicyMemory
    terms: t.Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()


def decide(
    observation: Observation,
    goal: Goal,
    pool: Pool,
    memory: PolicyMemory | None = None,
    floor: int = 0,
) -> Decision:
    """Return how many workers there should be.

    Pure: the same arguments give the same decision.

    :param observation: The look at the queue and its pool.
    :param goal: The goal of the queue.
    :param pool: The abilities of the workers' platform.
    :param memory: The memory of the last decision; ``None`` at the first one.
    :param floor: The fewest workers at this time of the week.
    """
    memory = memory or PolicyMemory()
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
    observation: Observation, goal: Goal, pool: Pool, memory: PolicyMemory
) -> Decision:
    """Hold, or go up to the fallback: blindness is no reason to give workers back."""
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
    memory: PolicyMemory,
    observation: Observation,
    needed: int,
    work: Work,
    goal: Goal,
    pool: Pool,
) -> PolicyMemory:
    now = observation.now
    # Busy workers stay until they have done the work they are needed for.
    beyond = needed if needed > occupied(work, observation.fleet, pool) else 0
    need = beyond if goal.window is None else needed
    mean = _mean(memory, now, min(beyond, limit_of(goal, pool)), pool)
    idle = not work.jobs and not work.residuals
    return PolicyMemory(
        (*_recalled(memory, now, goal, pool), (now, need)),
        memory.empty_looks + 1 if idle else 0,
        mean,
    )


def _recalled(
    memory: PolicyMemory, now: float, goal: Goal, pool: Pool
) -> tuple[tuple[float, int], ...]:
    """Return the needs of the window; without a window, at least the last look's."""
    # One of two looks may miss waiting jobs.
    window = 1.5 * pool.period if goal.window is None else goal.window
    found = tuple((time, need) for time, need in memory.needs if time > now - window)
    return found if found or goal.window is not None else memory.needs[-1:]


def _lets_idle_go(goal: Goal, pool: Pool) -> bool:
    """Return whether a worker goes at the first look that finds it idle.

    It stays where a worker with a job might go instead, if the look was wrong.
    """
    return goal.window is None and pool.picks_victims and _comes_in_time(goal, pool)


def _comes_in_time(goal: Goal, pool: Pool) -> bool:
    return pool.period + pool.boot <= goal.desired_wait


def _mean(memory: PolicyMemory, now: float, needed: int, pool: Pool) -> float:
    """Return the mean need, exponentially weighted by the time of each look.

    After a long time without a look, the present need says little about that time.
    """
    if not memory.needs:
        return 0.0
    passed = min(max(now - memory.needs[-1][0], 0.0), 2 * pool.period)
    return needed + (memory.mean_need - needed) * math.exp(-passed / _OF_LATE)


def _recent(
    memory: PolicyMemory, fleet: Fleet, needed: int, goal: Goal, pool: Pool
) -> int:
    """Return how many workers to keep: the busy ones, and some for recent needs."""
    highest = max(need for _, need in memory.needs)
    if _lets_idle_go(goal, pool):
        # An idle worker shows that no job waits for it. A booting one shows nothing:
        # this look may only have missed the job it was asked for.
        not_idle = fleet.busy + len(fleet.booting)
        return max(needed, min(highest, not_idle), fleet.busy)
    if goal.window is None and not _comes_in_time(goal, pool):
        highest = max(highest, round(_WARM * memory.mean_need))
    last = int(memory.empty_looks < _EMPTY_LOOKS)
    return max(needed, highest, fleet.busy, last)


def _settle(
    fleet: Fleet, needed: int, memory: PolicyMemory, goal: Goal, pool: Pool
) -> tuple[Action, int, str]:
    """Return the action on *needed*, the new size, and the deciding rule."""
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
