"""What a decision is made from. All times are seconds, all counts are whole."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True)
class ServiceTime:
    """How long one delivery of a function takes, as far as it is known.

    :param mean: Seconds.
    :param variance: Square seconds.
    :param samples: How many deliveries were measured; 0 for a guess.
    :param p95: The 95th percentile, seconds, where it is known.
    :param source: Who knows it, where that matters to somebody.
    :param computing: The share of the time that it computes, where that is known.
    :param sizes: The mean, seconds, by the size of the worker, as far as was measured.
    """

    mean: float
    variance: float = 0.0
    samples: float = 0
    p95: float | None = None
    source: str = ""
    computing: float | None = None
    sizes: t.Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Waiting:
    """Jobs of one function that wait and whose ages lie evenly in a range.

    :param function: The function's id.
    :param jobs: How many.
    :param oldest: How long the oldest has waited, seconds.
    :param newest: How long the newest has waited, seconds.
    """

    function: str
    jobs: int
    oldest: float = 0.0
    newest: float = 0.0


@dataclass(frozen=True)
class Sample:
    """Jobs of a queue that were drawn at random, to stand for all that wait in it.

    :param jobs: How many wait.
    :param drawn: How many were looked at, by function.
    """

    jobs: int
    drawn: t.Mapping[str, int]

    @property
    def size(self) -> int:
        """Return how many were looked at."""
        return sum(self.drawn.values())


@dataclass(frozen=True)
class Running:
    """A job that holds a slot of a worker.

    :param function: The function's id.
    :param age: How long it has been running, seconds.
    :param process: Which process has it, if that is known.
    """

    function: str
    age: float = 0.0
    process: str = ""


@dataclass(frozen=True)
class Fleet:
    """The workers there are.

    :param ready: Workers that take jobs, and are not told to drain.
    :param booting: For each worker that was asked for and is not ready, the seconds
        until it is.
    :param busy: How many have a job, or may have one: they do not go.
    :param missing: Workers that the platform has or starts and that are not heard of.
    :param missing_for: Seconds for which some were missing and none came.
    """

    ready: int = 0
    booting: tuple[float, ...] = ()
    busy: int = 0
    missing: int = 0
    missing_for: float = 0.0

    @property
    def size(self) -> int:
        """Return the number of workers that were asked for."""
        return self.ready + len(self.booting)


@dataclass(frozen=True)
class Observation:
    """One look at a queue and at its pool.

    :param now: Seconds since 1970.
    :param waiting: What waits, in any order.
    :param running: What holds a slot.
    :param fleet: The workers there are.
    :param service_times: By function. One that is absent here gets the mean of the
        others, or :attr:`Goal.guess`.
    :param arrival_rates: Jobs a second, by function.
    :param wakeups: Work that is known to come: function and the seconds until it is
        due (sleeping runs, retries, schedules).
    :param waits: Seconds within which a job of a function is to start, where that is
        not :attr:`Goal.desired_wait`.
    :param samples: What stands for queues that are too long to be looked at as a whole;
        their jobs are counted in *waiting*.
    :param failure: Which sensor failed, and how; what it should have seen is not here.
    """

    now: float
    waiting: tuple[Waiting, ...] = ()
    running: tuple[Running, ...] = ()
    fleet: Fleet = field(default_factory=Fleet)
    service_times: t.Mapping[str, ServiceTime] = field(default_factory=dict)
    arrival_rates: t.Mapping[str, float] = field(default_factory=dict)
    wakeups: tuple[tuple[str, float], ...] = ()
    waits: t.Mapping[str, float] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    failure: str | None = None

    @property
    def jobs(self) -> int:
        """Return how many jobs wait."""
        return sum(group.jobs for group in self.waiting)


@dataclass(frozen=True)
class Goal:
    """What is wanted of a queue.

    :param desired_wait: Seconds within which a job is to start; the shortest, where
        several queues have each their own.
    :param minimum: Workers that are always kept.
    :param maximum: Workers that are never exceeded.
    :param completion: Seconds within which a job is to be done, where that matters.
    :param window: Seconds for which a need is remembered before workers are given back.
        Without it two looks are, and where new workers would come too late, some are
        kept for what was needed of late.
    :param margin: How many standard deviations of the work are added to it. 1.28 covers
        nine of ten cases; 0 is the plain rule.
    :param headroom: The share of jobs that may wait too long in steady state, for which
        idle workers are kept (Halfin and Whitt, 1981). Without it none are kept.
    :param guess: Seconds that a job takes of which nothing at all is known.
    :param fallback: Workers that are kept at least while a sensor fails.
    """

    desired_wait: float
    minimum: int = 0
    maximum: int = 100
    completion: float | None = None
    window: float | None = None
    margin: float = 1.28
    headroom: float | None = None
    guess: float = 10.0
    fallback: int = 0

    def __post_init__(self) -> None:
        if not self.desired_wait > 0:
            raise ValueError("the desired wait is not a positive number of seconds")
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError("the range of workers is not 0 <= minimum <= maximum")
        if self.completion is not None and not self.completion > 0:
            raise ValueError("completion is not a positive number of seconds")
        if not 0 <= self.margin < math.inf:
            raise ValueError("margin is not a number from 0")
        if self.headroom is not None and not 0 < self.headroom < 1:
            raise ValueError("headroom is not a share between 0 and 1")


@dataclass(frozen=True)
class Pool:
    """What a platform can do, and how often it is asked.

    :param slots: Jobs that one worker runs at a time.
    :param boot: Seconds from asking for a worker until it takes jobs; the 90th
        percentile of what was measured.
    :param period: Seconds between two decisions.
    :param maximum: The most workers that the platform gives, where it is known.
    :param picks_victims: Whether the workers that are given back can be chosen, or
        drain before they stop. Else none are given back while one is busy.
    """

    slots: int = 1
    boot: float = 0.0
    period: float = 15.0
    maximum: int | None = None
    picks_victims: bool = True
