"""Fan-out: branches a second of a map over no-op items, and their round trips.

* Branches a second: one event whose run maps a no-op over 1,000 items, from the send to
  the end of the run, on real worker processes; against no-op runs on the same workers.
* Round trips: all that the map needs of the state server, which is the Redis queue as
  well, divided by the branches. The map counts as one event: its own trips are among
  them.
"""

from __future__ import annotations

import statistics
import time
import typing as t
from collections import Counter

from flask_durable.app.state import AppState
from flask_durable.messages import EVENT_QUEUE
from tests.support.servers import valkey_server
from tests.support.servers import wait_until

from .app import durable
from .model import Figure
from .model import Options
from .model import spread
from .round_trips import recording
from .throughput import BATCH
from .throughput import runs_a_second
from .trips import serving
from .trips import Trip
from .workers import application
from .workers import finished
from .workers import wait_finished
from .workers import worker_processes

#: Branches of one map.
ITEMS = 1_000


def measure(options: Options) -> t.Iterator[Figure]:
    """Take the rate, and count the trips of a worker in this process."""
    with valkey_server() as server:
        yield _rate(server.url, options.rounds)
        yield _trips(server.url)


def _rate(url: str, rounds: int) -> Figure:
    ours, runs = [], []
    with application(url, "fan-out") as state, worker_processes(state):
        branches_a_second(state, ITEMS // 10)  # everything is imported and warm
        for _ in range(rounds):
            ours.append(statistics.median(branches_a_second(state) for _ in range(3)))
            runs.append(runs_a_second(state, 2 * ITEMS, BATCH))
    ratios = [a / b for a, b in zip(ours, runs, strict=True)]
    return Figure(
        f"branches/s of a map over {ITEMS:,}",
        None,
        statistics.median(ratios),
        "x no-op runs",
        at_least=True,
        detail=f"branches/s {spread(ours, 0)}, runs/s {spread(runs, 0)}, "
        f"ratio {spread(ratios)}",
    )


def _trips(url: str) -> Figure:
    with recording(url, "fan-out-trips") as (state, trips):
        count_map(state, trips, 300)  # loads the scripts
        counted = count_map(state, trips, ITEMS)
    return Figure(
        "trips of a branch",
        6,
        len(counted) / ITEMS,
        "trips",
        detail=_summary(counted),
    )


def branches_a_second(state: AppState, items: int = ITEMS) -> float:
    """Have a run map a no-op over items; return its branches a second."""
    before = finished(state)
    started = time.perf_counter()
    durable.send("bench/map", {"items": items})
    wait_finished(state, before + 1)
    return items / (time.perf_counter() - started)


def count_map(state: AppState, trips: list[Trip], items: int) -> list[Trip]:
    """Have a run map a no-op over items; return the trips until all is deleted."""
    before, begin = finished(state), len(trips)
    durable.send("bench/map", {"items": items})
    wait_until(lambda: finished(state) == before + 1, "the map", 60)
    wait_until(lambda: _settled(state), "the queues", 60)
    return serving(trips[begin:])


def _summary(trips: list[Trip]) -> str:
    """Return the trips by their first command; a page of messages is one trip."""
    counts = Counter(trip.commands[0] for trip in trips)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _settled(state: AppState) -> bool:
    counts = [state.transport.counts(queue) for queue in (EVENT_QUEUE, "default")]
    return not any(c.waiting + c.in_flight for c in counts)
