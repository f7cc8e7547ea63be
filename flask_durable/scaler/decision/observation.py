"""The facts a decision is made from. All times are seconds, all counts are whole."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True)
class ServiceTime:
    """The duration of one delivery of a function, as far as it is known.

    :param mean: The mean, seconds.
    :param variance: Square seconds.
    :param samples: The number of deliveries that were measured; 0 for a guess.
    :param p95: The 95th percentile, seconds, where it is known.
    :param source: The name of the source that measured it, where that matters.
    :param computing: The share of the time spent computing, where it is known.
    :param sizes: The mean, seconds, by the size of the worker, as far as measured.
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
    """Waiting jobs of one function whose ages are spread evenly over a range.

    :param function: The function's id.
    :param jobs: The number of jobs.
    :param oldest: The age of the oldest, seconds.
    :param newest: The age of the newest, seconds.
    """

    function: str
    jobs: int
    oldest: float = 0.0
    newest: float = 0.0


@dataclass(frozen=True)
class Sample:
    """Jobs of a queue that were drawn at random, to stand for all that wait in it.

    :param jobs: The number of jobs that wait.
    :param drawn: The number of jobs that were looked at, by function.
    """

    jobs: int
    drawn: t.Mapping[str, int]

    @property
    def size(self) -> int:
        """Return how many jobs were looked at."""
        return sum(self.drawn.values())


@dataclass(frozen=True)
class Running:
    """A job that holds a slot of a worker.

    :param function: The function's id.
    :param age: Seconds for which it has been running.
    :param process: The id of the process that runs it, if that is known.
    """

    function: str
    age: float = 0.0
    process: str = ""


@dataclass(frozen=True)
class Fleet:
    """The workers of a pool.

    :param ready: The number of workers that take jobs and are not told to drain.
    :param booting: For each worker that was asked for and is not ready, the seconds
        until it is.
    :param busy: The number that have a job, or may have one: they are not given back.
    :param missing: Workers that the platform has or starts and that report nothing.
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
    :param waiting: The jobs that wait, in any order.
    :param running: The jobs that hold a slot.
    :param fleet: The workers of the pool.
    :param service_times: Durations by function. An absent function gets the mean of
        the others, or :attr:`Goal.guess`.
    :param arrival_rates: Jobs a second, by function.
    :param wakeups: Work that is known to come: function and the seconds until it is
        due (sleeping runs, retries, schedules).
    :param waits: Seconds within which a job of a function is to start, where that is
        not :attr:`Goal.desired_wait`.
    :param samples: Samples of queues that are too long to be looked at as a whole;
        their jobs are counted in *waiting*.
    :param failure: The sensor that failed, and the error; its part is absent here.
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
    """The goal of a queue.

    :param desired_wait: Seconds within which a job is to start; the shortest, where
        each of several queues has its own.
    :param minimum: Workers that are always kept.
    :param maximum: Workers that are never exceeded.
    :param completion: Seconds within which a job is to be done, where that matters.
    :param window: Seconds for which a need is remembered before workers are given back.
        Without it a need is remembered for two looks. Some workers are then also kept
        for the recent need where new ones would come too late.
    :param margin: The number of standard deviations that are added to the work. 1.28
        covers nine of ten cases; 0 is the plain rule.
    :param headroom: The share of jobs that may wait too long in steady state, for which
        idle workers are kept (Halfin and Whitt, 1981). Without it none are kept.
    :param guess: Seconds assumed for a job if nothing at all is known.
    :param fallback: The fewest workers kept while a sensor fails.
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
    """The abilities of a platform, and how often it is asked.

    :param slots: Jobs that one worker runs at a time.
    :param boot: Seconds from asking for a worker until it takes jobs; the 90th
        percentile of the measured times.
    :param period: Seconds between two decisions.
    :param maximum: The most workers that the platform gives, where it is known.
    :param picks_victims: True if the workers to give back can be chosen, or drain
        before they stop. Otherwise none is given back while one is busy.
    """

    slots: int = 1
    boot: float = 0.0
    period: float = 15.0
    maximum: int | None = None
    picks_victims: bool = True


@dataclass(frozen=True)
class Size:
    """The size of a pool as its platform reports it.

    :param asked: Workers that were asked for.
    :param running: Workers that run.
    :param booting: Workers that were asked for and do not run yet.
    """

    asked: int
    running: int
    booting: int

    @classmethod
    def of(cls, asked: int, running: int) -> Size:
        """Return the size of a pool from these two numbers alone.

        A worker that does not run is on its way: it boots, or is started again after
        a crash. Workers beyond the number asked for are on their way out.
        """
        running = min(running, asked)
        return cls(asked, running, asked - running)
