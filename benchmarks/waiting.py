"""Finding the wait that an event fits: among very many waits as fast as among few.

The waits are registered as a step registers them, all for one name and each with a
value of its own. Then events are delivered to the home of the name. Each event finds
one wait.
"""

from __future__ import annotations

import statistics
import time
import typing as t

from flask_durable.app.state import AppState
from flask_durable.engine.matching import path_set
from flask_durable.store.run_store import after
from flask_durable.store.waiters import Waits
from tests.support.servers import valkey_server

from .model import Figure
from .model import Options
from .model import spread
from .workers import application

#: The numbers of waits that are compared.
FEW = 100
MANY = 100_000

#: Events that are delivered in one round.
EVENTS = 200

PATHS = path_set(["data.n"])


def measure(options: Options) -> t.Iterator[Figure]:
    """Compare the time to find one wait among few and among many."""
    many = MANY // 10 if options.quick else MANY
    with (
        valkey_server() as server,
        application(server.url, "few") as few,
        application(server.url, "many") as crowded,
    ):
        register(few, FEW)
        register(crowded, many)
        # In turns, so that both meet the same machine.
        rounds = [
            (find(few, FEW, number), find(crowded, many, number))
            for number in range(options.rounds)
        ]
    times = ([a for a, _ in rounds], [b for _, b in rounds])
    yield Figure(
        f"a wait found among {many:,}",
        1.5,
        statistics.median(times[1]) / statistics.median(times[0]),
        f"x among {FEW}",
        detail=f"{spread(times[1], 3)} ms, among {FEW}: {spread(times[0], 3)} ms",
    )


def register(state: AppState, count: int) -> None:
    """Register waits, each for a value of its own."""
    for number in range(count):
        state.waiters.add(
            "bench/waited",
            f"run{number}",
            "wait",
            after(3600),
            "event    {}\n",
            paths=PATHS,
            digest=f"digest{number}",
            created=int(time.time() * 1000) + 60_000,
            after="0",
            learned=False,
        )


def find(state: AppState, count: int, number: int) -> float:
    """Return the milliseconds that it takes to find the wait of one event."""
    began = time.perf_counter()
    for event in range(EVENTS):
        found = state.waiters.deliver(
            "bench/waited",
            f"event{number}-{event}",
            "{}",
            due=0,
            paths=[PATHS],
            digests=[f"digest{(event * 7919) % count}"],
        )
        assert isinstance(found, Waits)
        assert len(found.found) == 1
    return (time.perf_counter() - began) / EVENTS * 1000
