"""From the call of ``send`` to the first line of the function, on an idle worker.

The worker is a process of its own, the sender another. Both clocks are the same one:
the function returns the time at which it was reached.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import typing as t

import redis

from flask_durable.app.state import AppState
from flask_durable.common.ids import run_id
from flask_durable.errors import RunNotFound
from tests.support.servers import valkey_server

from .app import durable
from .model import Figure
from .model import Options
from .workers import application
from .workers import worker_processes

#: Seconds between two events: each finds an idle worker.
PAUSE = 0.03


def measure(options: Options) -> t.Iterator[Figure]:
    """Measure the latency at once, and after idling."""
    count = 100 if options.quick else 500
    with (
        valkey_server() as server,
        application(server.url, "latency") as state,
        worker_processes(state, processes=1),
    ):
        latencies(state, 50)
        yield from _figures("send to first line", latencies(state, count))
        idled = []
        for _ in range(3):
            time.sleep(options.idle / 3)
            idled += latencies(state, 1)
        trip = cold_trip(server.url)
    idled.sort()
    yield Figure(
        f"the same after {options.idle / 3:.0f} s idle, worst of 3",
        10,
        idled[-1],
        "ms",
        detail=", ".join(f"{each:.2f}" for each in idled)
        + f"; a bare trip at the same pace {trip:.2f}",
    )


def latencies(state: AppState, count: int) -> list[float]:
    """Return the milliseconds of *count* events."""
    found = []
    for _ in range(count):
        sent = time.time_ns()
        id = run_id("started", durable.send("bench/started"))
        time.sleep(PAUSE)  # asking at once would compete with the worker
        found.append((_result(state, id) - sent) / 1e6)
    return found


def cold_trip(url: str) -> float:
    """Return the median of the milliseconds of single SETs, each after a pause.

    It tells what this machine takes to wake up: a path of several trips and threads is
    a multiple of it.
    """
    found = []
    with redis.Redis.from_url(url) as client:
        for number in range(50):
            time.sleep(PAUSE)
            started = time.perf_counter()
            client.set("bare", number)
            found.append((time.perf_counter() - started) * 1000)
    return statistics.median(found)


def _result(state: AppState, id: str) -> int:
    """Wait for the run, which its router is about to create, and return its result."""
    while True:
        with contextlib.suppress(RunNotFound):
            return int(state.runs.wait(id, 30).result)
        time.sleep(0.001)


def _figures(name: str, values: list[float]) -> t.Iterator[Figure]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    detail = f"{len(values)} events, least {min(values):.2f}, most {max(values):.2f}"
    yield Figure(f"{name}, p50", 2, cuts[49], "ms", detail=detail)
    yield Figure(f"{name}, p99", 10, cuts[98], "ms")
