"""Jobs by the time at which they arrive. All times are seconds."""

from __future__ import annotations

import json
import math
import random
import typing as t
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Arrival:
    """One job.

    :param time: When it arrives, seconds from the beginning.
    :param function: Its function's id.
    :param seconds: How long it takes.
    """

    time: float
    function: str
    seconds: float


def read_trace(lines: t.Iterable[str]) -> list[Arrival]:
    """Return the jobs of a recorded trace.

    :param lines: JSON objects, one a line, with the keys ``time``, ``function`` and
        ``seconds``.
    :raises ValueError: A line is not one.
    """
    jobs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            job = Arrival(
                float(fields["time"]), str(fields["function"]), float(fields["seconds"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} is no JSON object with time, function and seconds"
            ) from error
        jobs.append(job)
    first = min((job.time for job in jobs), default=0.0)
    return sorted(Arrival(j.time - first, j.function, j.seconds) for j in jobs)


def lognormal(chance: random.Random, mean: float, variation: float) -> float:
    """Return a duration.

    :param mean: Seconds.
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
    """Yield the times of arrivals at random, at a *rate* that depends on the time."""
    time = chance.expovariate(highest)
    while time < duration:
        if chance.random() * highest < rate(time):
            yield time
        time += chance.expovariate(highest)


def _burst(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield the article's queue: 7,500 small jobs at once."""
    for _ in range(7500):
        yield Arrival(60.0, "resize", lognormal(chance, 0.3, 1.05))


def _bursts(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield 200 to 2,000 jobs of a second or two, every few minutes for three hours."""
    time = chance.uniform(60, 300)
    while time < 3 * 3600:
        for _ in range(chance.randint(200, 2000)):
            seconds = lognormal(chance, 1.5, 1.0)
            yield Arrival(time + chance.uniform(0, 10), "resize", seconds)
        time += chance.uniform(300, 1500)


def _media(chance: random.Random) -> t.Iterator[Arrival]:
    """Yield a day of transcriptions: about a minute each, heavy tail, busy at noon."""

    def rate(time: float) -> float:
        return 0.06 * (1 + math.sin(2 * math.pi * (time / 86400 - 0.25)))

    for time in _poisson(chance, 86400, rate, 0.12):
        yield Arrival(time, "transcribe", lognormal(chance, 60, 2.0))


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
    """Yield a steady load of which there is twenty times as much for ten minutes."""

    def rate(time: float) -> float:
        return 10.0 if 3600 <= time < 4200 else 0.5

    for time in _poisson(chance, 7200, rate, 10.0):
        yield Arrival(time, "notify", lognormal(chance, 2, 1.0))


#: By name: what generates them, and the wait that is desired.
WORKLOADS: dict[str, tuple[t.Callable[[random.Random], t.Iterator[Arrival]], float]] = {
    "burst": (_burst, 30.0),
    "bursts": (_bursts, 60.0),
    "crowd": (_crowd, 30.0),
    "media": (_media, 120.0),
    "mixed": (_mixed, 60.0),
    "sparse": (_sparse, 300.0),
}


def generate(name: str, seed: int) -> list[Arrival]:
    """Return the jobs of a workload, in the order in which they arrive.

    :param name: One of :data:`WORKLOADS`.
    :param seed: The same one gives the same jobs.
    """
    return sorted(WORKLOADS[name][0](random.Random(f"{name} {seed}")))
