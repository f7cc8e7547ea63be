"""Policies on the same jobs, and the same policy on other pools."""

from __future__ import annotations

import dataclasses
import math
import typing as t
from dataclasses import dataclass

from ...common.durations import to_seconds
from ..decision.observation import Pool
from ..introspectors.own import SLOTS
from ..options import PoolOptions
from .clock import Simulation
from .clock import World
from .outcome import Outcome
from .policies import DurablePolicy
from .policies import FixedPolicy
from .policies import POLICIES
from .policies import Policy
from .workloads import Arrival

#: The policies that are compared by default.
STANDARD_POLICIES = (*POLICIES, "fixed")

#: The options of a pool that ``--what-if`` may change, by their names there.
_OF_GOAL = {
    "wait": "desired_wait",
    "min": "minimum",
    "max": "maximum",
    "window": "window",
    "margin": "margin",
}
_OF_POOL = {"boot": "boot", "period": "period", "threads": "slots"}
_COUNTS = ("min", "max", "threads")


@dataclass(frozen=True)
class Result:
    """The result of a policy on a pool.

    :param policy: The policy's name.
    :param pool: ``"configured"``, or the changes to the configured pool.
    :param options: The options of the pool.
    :param outcome: The numbers.
    """

    policy: str
    pool: str
    options: PoolOptions
    outcome: Outcome

    @property
    def name(self) -> str:
        """The name of the result beside others."""
        if self.pool == "configured":
            return self.policy
        return f"{self.policy}, {self.pool}"

    @property
    def missed(self) -> float:
        """The share of jobs that waited for longer than wanted."""
        return self.outcome.missed(self.options.goal.desired_wait)

    @property
    def most(self) -> int:
        """The largest number of workers at any time."""
        return max(workers for _, workers in self.outcome.sizes)

    def to_json(self) -> dict[str, t.Any]:
        """Return the numbers as a JSON object; a wait without an end is ``None``."""
        out = self.outcome
        p50, p95, p99 = out.percentiles(0.5, 0.95, 0.99)
        return {
            "policy": self.policy,
            "pool": self.pool,
            "desired_wait": self.options.goal.desired_wait,
            "missed": round(self.missed, 6),
            "p50": _rounded(p50),
            "p95": _rounded(p95),
            "p99": _rounded(p99),
            "worker_hours": round(out.worker_seconds / 3600, 3),
            "most_workers": self.most,
            "kills": out.kills,
            "lost_seconds": round(out.lost, 1),
            "flaps": out.turns,
        }


def _rounded(seconds: float) -> float | None:
    return round(seconds, 3) if math.isfinite(seconds) else None


def changed(options: PoolOptions, what: str) -> PoolOptions:
    """Return *options* with the changes of a text such as ``wait=15s,max=50``.

    :raises ValueError: The text is written in another way, or a value makes no sense.
    """
    goal, pool = {}, {}
    for change in what.split(","):
        key, _, text = change.partition("=")
        key = key.strip()
        if key not in _OF_GOAL and key not in _OF_POOL:
            known = ", ".join((*_OF_GOAL, *_OF_POOL))
            raise ValueError(f"{change!r} is not KEY=VALUE with a key of {known}")
        value = _value(key, text.strip())
        if key in _OF_GOAL:
            goal[_OF_GOAL[key]] = value
        else:
            pool[_OF_POOL[key]] = value
    return dataclasses.replace(
        options,
        goal=dataclasses.replace(options.goal, **t.cast(t.Any, goal)),
        **t.cast(t.Any, pool),
    )


def _value(key: str, text: str) -> float:
    if key in _COUNTS:
        if not text.isdecimal() or (key == "threads" and not int(text)):
            raise ValueError(f"{key}={text} is not a whole number")
        return int(text)
    return float(text) if key == "margin" else to_seconds(text)


@dataclass(frozen=True)
class Comparison:
    """The conditions that are the same for all policies compared.

    :param jobs: The jobs that arrive.
    :param lag: The age of the counts of jobs at a decision, seconds.
    :param noise: The largest error of a count, in jobs.
    :param prefetch: Jobs that a worker fetches besides those it runs.
    :param seed: The seed: the same one gives the same results.
    """

    jobs: t.Sequence[Arrival]
    lag: float = 0.0
    noise: int = 0
    prefetch: int = 0
    seed: int = 1

    def run(
        self, policies: t.Iterable[str], pools: t.Mapping[str, PoolOptions]
    ) -> t.Iterator[Result]:
        """Yield the result of each policy on each pool.

        :param policies: Names from :data:`STANDARD_POLICIES`, or ``fixed:20``.
            ``fixed`` alone is the number of workers that costs as much as our policy.
        :param pools: The pools' options, by a label for the result.
        """
        for label, options in pools.items():
            for name in policies:
                yield Result(name, label, options, self._outcome(name, options))

    def _outcome(self, name: str, options: PoolOptions) -> Outcome:
        kind, _, number = name.partition(":")
        if kind == "fixed":
            workers = int(number) if number else self._for_the_same_money(options)
            return self._simulate(FixedPolicy(workers), options, workers)
        policy = POLICIES[name](options.goal, _pool(options))
        return self._simulate(policy, options, options.goal.minimum)

    def _for_the_same_money(self, options: PoolOptions) -> int:
        ours = DurablePolicy(options.goal, _pool(options))
        outcome = self._simulate(ours, options, options.goal.minimum)
        return max(round(outcome.worker_seconds / max(outcome.end, 1.0)), 1)

    def _simulate(self, policy: Policy, options: PoolOptions, workers: int) -> Outcome:
        world = World(
            _slots(options),
            (options.boot / 2, options.boot),
            options.period,
            self.lag,
            noise=self.noise,
            prefetch=self.prefetch,
            measured=True,
        )
        return Simulation(self.jobs, policy, world, workers, self.seed).run()


def _slots(options: PoolOptions) -> int:
    return options.slots or SLOTS


def _pool(options: PoolOptions) -> Pool:
    return Pool(_slots(options), options.boot, options.period)
