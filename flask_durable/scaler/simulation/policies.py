"""Our policy, and those it is compared with. Each sees the same."""

from __future__ import annotations

import math
import typing as t

from ..decision.observation import Goal
from ..decision.observation import Observation
from ..decision.observation import Pool
from ..decision.policy import decide
from ..decision.policy import PolicyMemory
from ..decision.work import typical


class Policy(t.Protocol):
    """Decides on the size of a pool."""

    #: The policy's name in tables.
    name: str
    #: True if workers that are given back drain.
    protects: bool

    def decide(self, observation: Observation) -> int:
        """Return how many workers there should be."""


class DurablePolicy:
    """Our own policy, :func:`~flask_durable.scaler.decide`."""

    name = "durable"
    protects = True

    def __init__(self, goal: Goal, pool: Pool) -> None:
        self._goal = goal
        self._pool = pool
        self._memory = PolicyMemory()

    def decide(self, observation: Observation) -> int:
        """Return how many workers there should be."""
        decision = decide(observation, self._goal, self._pool, self._memory)
        self._memory = decision.memory
        return decision.workers


class FixedPolicy:
    """A fixed number of workers.

    :param workers: The number.
    """

    protects = True

    def __init__(self, workers: int) -> None:
        self.name = f"fixed {workers}"
        self._workers = workers

    def decide(self, observation: Observation) -> int:
        """Return the fixed number."""
        return self._workers


class _Baseline:
    """The common part of the policies that ours is compared with."""

    def __init__(self, goal: Goal, pool: Pool) -> None:
        self._goal = goal
        self._pool = pool

    def _mean(self, observation: Observation) -> float:
        return typical(observation, self._goal).mean

    def _in_range(self, workers: float) -> int:
        return min(
            max(math.ceil(workers - 1e-9), self._goal.minimum), self._goal.maximum
        )


class RuleOfThumb(_Baseline):
    """Jobs that wait, times their mean service time, divided by the desired wait.

    As in AppSignal's article of 2020: running jobs are not seen, and nothing is
    remembered.
    """

    name = "rule of thumb"
    protects = False

    def decide(self, observation: Observation) -> int:
        """Return the result of the rule, within the range."""
        unknown = typical(observation, self._goal)
        times = observation.service_times
        work = sum(
            group.jobs * times.get(group.function, unknown).mean
            for group in observation.waiting
        )
        return self._in_range(work / (self._goal.desired_wait * self._pool.slots))


class Proportional(_Baseline):
    """Kubernetes' autoscaler on the number of messages, waiting and in flight.

    The messages are divided by those that one worker may have. Grows by the larger of
    its size and 4 every 15 s; shrinks to the highest recommendation of the last 300 s
    (``autoscaling/v2``, defaults of its behaviour).
    """

    name = "proportional"
    protects = False

    def __init__(self, goal: Goal, pool: Pool) -> None:
        super().__init__(goal, pool)
        self._recommended: list[tuple[float, int]] = []

    def decide(self, observation: Observation) -> int:
        """Return the stabilized recommendation."""
        mean = self._mean(observation)
        each = max(self._goal.desired_wait * self._pool.slots / mean, 1.0)
        messages = observation.jobs + len(observation.running)
        now, current = observation.now, observation.fleet.size
        recommended = self._in_range(messages / each)
        self._recommended = [
            (time, workers) for time, workers in self._recommended if time > now - 300
        ]
        self._recommended.append((now, recommended))
        if recommended > current:
            return min(recommended, max(2 * current, current + 4))
        highest = max(workers for _, workers in self._recommended)
        return min(highest, current)


class Steps(_Baseline):
    """Steps by the age of the oldest job, as in Heroku add-ons.

    One tenth more, at least one, when it is older than half the wait, at most every
    120 s; one fewer when nothing waits, at most every 600 s. Busy workers are not
    stopped.
    """

    name = "steps"
    protects = True

    def __init__(self, goal: Goal, pool: Pool) -> None:
        super().__init__(goal, pool)
        self._grown = self._shrunk = -math.inf

    def decide(self, observation: Observation) -> int:
        """Return one step up, one step down, or the same."""
        now, current = observation.now, observation.fleet.size
        oldest = max((group.oldest for group in observation.waiting), default=0.0)
        late = oldest > self._goal.desired_wait / 2 or (
            observation.jobs and not current
        )
        if late and now - self._grown >= 120:
            self._grown = now
            return self._in_range(current + max(current // 10, 1))
        rested = now - max(self._grown, self._shrunk) >= 600
        if not observation.jobs and rested and current > self._goal.minimum:
            self._shrunk = now
            return self._in_range(current - 1)
        return self._in_range(current)


#: Policies by the name on the command line, without :class:`FixedPolicy`, which takes
#: a number.
POLICIES: dict[str, t.Callable[[Goal, Pool], Policy]] = {
    "durable": DurablePolicy,
    "rule-of-thumb": RuleOfThumb,
    "proportional": Proportional,
    "steps": Steps,
}
