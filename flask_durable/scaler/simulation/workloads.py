"""Jobs by the time at which they arrive. All times are seconds."""

from __future__ import annotations

import math
import random
import typing as t
from dataclasses import dataclass

_DAY = 86400.0


@dataclass(frozen=True, order=True)
class Arrival:
    """One job.

    :param time: The time of arrival, seconds from the beginning.
    :param function: The id of its function.
    :param seconds: The time that it takes.
    """

    time: float
    function: str
    seconds: float


def lognormal(chance: random.Random, mean: float, variation: float) -> float:
    """Return a random duration.

    :param mean: The mean, seconds.
    :param variation: Standard deviation divided by the mean.
    """
    if variation <= 0:
        return mean
    spread = math.sqrt(math.log(1 + variation**2))
    return chance.lognormvariate(math.log(mean) - spread**2 / 2, spread)


def _poisson(
    chance: random.Random,
    duration: float,
    rate: t.Callable[[float], float],
    highest: float,
) -> t.Iterator[float]:
    """Yield the times of random arrivals.

    :param rate: A function from a time to the share of the *highest* rate then.
    :param highest: Arrivals a second.
    """
    time = chance.expovariate(highest)
    while time < duration:
        if chance.random() < rate(time):
            yield time
        time += chance.expovariate(highest)


def _burst(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield the queue of AppSignal's article: 7,500 small jobs at once."""
    for _ in range(7500):
        yield Arrival(60.0, "resize", lognormal(chance, 0.3, 1.05))


def _steady(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield two hours of jobs that come at random, at a steady rate."""
    for time in _poisson(chance, 7200, lambda _: 1.0, 2.0):
        yield Arrival(time, "resize", lognormal(chance, 3, 0.8))


def _bursty(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield 200 to 2,000 jobs of a second or two, every few minutes for three hours."""
    time = chance.uniform(60, 300)
    while time < 3 * 3600:
        for _ in range(chance.randint(200, 2000)):
            seconds = lognormal(chance, 1.5, 1.0)
            yield Arrival(time + chance.uniform(0, 10), "resize", seconds)
        time += chance.uniform(300, 1500)


def _by_day(time: float) -> float:
    """Return the share of the highest rate: 0 at midnight, 1 at noon."""
    return (1 + math.sin(2 * math.pi * (time / _DAY - 0.25))) / 2


def _daily(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield a day of transcriptions: about a minute each, heavy tail, busy at noon."""
    for time in _poisson(chance, _DAY, _by_day, 0.12):
        yield Arrival(time, "transcribe", lognormal(chance, 60, 2.0))


def _weekly(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield a week of such days; the last two are calm."""

    def rate(time: float) -> float:
        return _by_day(time) * (1.0 if time < 5 * _DAY else 0.2)

    for time in _poisson(chance, 7 * _DAY, rate, 0.06):
        yield Arrival(time, "transcribe", lognormal(chance, 60, 1.0))


def _long_tail(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield four hours of jobs that mostly take seconds, and some of them an hour."""
    for time in _poisson(chance, 4 * 3600, lambda _: 1.0, 0.2):
        yield Arrival(time, "import", lognormal(chance, 20, 6.0))


def _mixed(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield six hours of thumbnails, transcodings and some long transcriptions."""
    kinds = (("thumbnail", 1.0, 0.5, 0.5), ("transcode", 0.05, 30, 1.0))
    for function, rate, mean, variation in (*kinds, ("transcribe", 0.004, 400, 1.5)):
        busy = _poisson(chance, 6 * 3600, lambda _: 1.0, rate)
        for time in busy:
            yield Arrival(time, function, lognormal(chance, mean, variation))
    for start in (3600, 9000, 15000):
        for _ in range(chance.randint(300, 900)):
            time = start + chance.uniform(0, 30)
            function = chance.choice(("thumbnail", "thumbnail", "transcode"))
            mean = 0.5 if function == "thumbnail" else 30
            yield Arrival(time, function, lognormal(chance, mean, 0.8))


def _sparse(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield half a day with a job of about twenty minutes now and then."""
    for time in _poisson(chance, 43200, lambda _: 1.0, 1 / 1800):
        yield Arrival(time, "encode", lognormal(chance, 1200, 0.4))


def _crowd(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield a steady load that grows twentyfold for ten minutes."""

    def rate(time: float) -> float:
        return 1.0 if 3600 <= time < 4200 else 0.05

    for time in _poisson(chance, 7200, rate, 10.0):
        yield Arrival(time, "notify", lognormal(chance, 2, 1.0))


#: The generator and the desired wait of each workload, by name.
WORKLOADS: dict[str, tuple[t.Callable[[random.Random], t.Iterator[Arrival]], float]] = {
    "burst": (_burst, 30.0),
    "bursty": (_bursty, 60.0),
    "crowd": (_crowd, 30.0),
    "daily": (_daily, 120.0),
    "long-tail": (_long_tail, 60.0),
    "mixed": (_mixed, 60.0),
    "sparse": (_sparse, 300.0),
    "steady": (_steady, 30.0),
    "weekly": (_weekly, 120.0),
}


def generate(name: str, seed: int) -> list[Arrival]:
    """Return the jobs of a workload, in the order in which they arrive.

    :param name: One of :data:`WORKLOADS`.
    :param seed: The seed: the same one gives the same jobs.
    """
    return sorted(WORKLOADS[name][0](random.Random(f"{name} {seed}")))
