"""Runs of many steps, against bare trips: one redis-py SET each, in one thread.

A run's time is from its creation to its end, by the server's clock, on an idle worker.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
import typing as t

import redis

from flask_durable.app.state import AppState
from flask_durable.common.ids import run_id
from tests.support.harness import Harness
from tests.support.servers import valkey_server

from .app import durable
from .model import Figure
from .model import Options
from .model import spread
from .workers import application
from .workers import finished
from .workers import worker_here

SHORT = 1_000
LONG = 10_000

#: A run may have 10,000 steps: the sleep and the new step are two of them.
MEMOIZED = LONG - 1


def measure(options: Options) -> t.Iterator[Figure]:
    """Measure runs of 1,000 and 10,000 steps, and the resumption of the latter."""
    rounds = options.rounds + 2
    with valkey_server() as server, apart_from(server.pid):
        with application(server.url, "long") as state, worker_here(state):
            run_of(state, 100)
            short, bare = [], []
            for _ in range(rounds):
                bare.append(bare_trips(server.url, SHORT))
                short.append(run_of(state, SHORT))
            yield _compare(short, bare)
            # In turns: a machine may be twice as fast a few seconds later.
            pairs = [
                (run_of(state, SHORT), run_of(state, LONG))
                for _ in range(options.rounds)
            ]
            yield _ten_times(pairs)
        resumed = [resumption(server.url, f"resume{n}") for n in range(options.rounds)]
        yield Figure(
            f"resume with {MEMOIZED:,} memos",
            0.5,
            statistics.median(resumed),
            "s",
            detail=f"claim to the new step's body: {spread(resumed, 3)} s",
        )


@contextlib.contextmanager
def apart_from(server: int) -> t.Iterator[None]:
    """Keep this thread, and those that it starts, on another processor than *server*.

    Left alone, the system wakes both on one processor and moves them apart after some
    tenths of a second, when each trip begins to take twice as long: a long run would
    seem slower than a short one, and than bare trips.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield
        return
    os.sched_setaffinity(server, cores[-1:])
    os.sched_setaffinity(0, cores[:-1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def bare_trips(url: str, count: int) -> float:
    """Return the seconds that *count* SETs take."""
    with redis.Redis.from_url(url) as client:
        client.ping()
        started = time.perf_counter()
        for number in range(count):
            client.set("bare", number)
        return time.perf_counter() - started


def run_of(state: AppState, steps: int) -> float:
    """Have a run of so many steps made, and return the seconds that it took."""
    before = finished(state)
    id = run_id("steps", durable.send("bench/steps", {"steps": steps}))
    while finished(state) == before:
        time.sleep(0.1)
    run = state.runs.get(id)
    assert run.finished is not None
    return (run.finished - run.created).total_seconds()


def resumption(url: str, namespace: str) -> float:
    """Return the seconds from the claim of a run to the body of its next new step."""
    harness = Harness(url, namespace)
    reached = []

    @harness.durable.function(on="bench/resume")
    def resume(event: t.Any, step: t.Any) -> None:
        for number in range(MEMOIZED - 1):
            step.run(f"step-{number}", int)
        step.sleep("rest", 3600)
        step.run("next", lambda: reached.append(time.perf_counter()))

    harness.send("bench/resume")
    harness.settle()
    harness.move_clock(3601)
    harness.sweep()
    started = time.perf_counter()
    harness.settle()
    harness.close()
    return reached[0] - started


def _compare(short: list[float], bare: list[float]) -> Figure:
    ratios = [a / b for a, b in zip(short, bare, strict=True)]
    return Figure(
        f"run of {SHORT:,} steps",
        2,
        statistics.median(ratios),
        f"x {SHORT:,} bare trips",
        detail=f"run {spread(short, 3)} s, bare trips {spread(bare, 3)} s, "
        f"ratio {spread(ratios)}",
    )


def _ten_times(pairs: list[tuple[float, float]]) -> Figure:
    ratios = [long / short for short, long in pairs]
    return Figure(
        f"run of {LONG:,} steps",
        11,
        statistics.median(ratios),
        f"x {SHORT:,} steps",
        detail=f"run {spread([long for _, long in pairs])} s, ratio {spread(ratios)}",
    )
