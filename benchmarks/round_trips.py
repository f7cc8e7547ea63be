"""Counts of round trips to the state server, which is the Redis queue as well.

What an event with one function of k steps costs, from accepted to deleted:

=====================  =====================  ========================================
in place               through a run message
=====================  =====================  ========================================
1 read                 1 read                 brings the event to a router
1 ``run_create``       1 ``run_create``       with the directory's version, pipelined
..                     1 ``XADD``             the run message
..                     1 or 2 reads           bring it to a thread, and look for more
..                     1 ``run_claim``        with all memos, pipelined
k ``step_commit``      k ``step_commit``
1 ``run_finish``       1 ``run_finish``
1 barrier              1 or 2 barriers        a write with ``WAITAOF``, pipelined
1 ``q_ack``            2 ``q_ack``
=====================  =====================  ========================================

Left out is what a process does by the clock, whether or not there are runs: its beat,
its sweep (which also confirms what was sent), renewals of leases, and reads that wait
in vain. So is the sending: it is over when the event is accepted.
"""

from __future__ import annotations

import contextlib
import typing as t

from flask_durable.app.state import AppState
from flask_durable.messages import EVENT_QUEUE
from tests.support.servers import valkey_server
from tests.support.servers import wait_until

from .app import durable
from .model import Figure
from .model import Options
from .trips import recorded_trips
from .trips import serving
from .trips import summary
from .trips import Trip
from .workers import application
from .workers import finished
from .workers import THREADS
from .workers import worker_here

STEPS = 10

#: Events that are counted; the first one also loads the scripts into the server.
EVENTS = 4


def measure(options: Options) -> t.Iterator[Figure]:
    """Count the trips of a worker in this process."""
    with valkey_server() as server, recording(server.url, "trips") as (state, trips):
        in_place = fewest(count_event(state, trips, STEPS) for _ in range(EVENTS))
        queued = fewest(
            count_event(state, trips, STEPS, busy=True) for _ in range(EVENTS)
        )
        resumed = count_resumption(state, trips, STEPS)
    commits = [trip for trip in in_place if "step_commit" in trip.commands]
    yield Figure("commit of a step", 1, len(commits) / STEPS, "trips")
    loads = [trip for trip in resumed if "run_claim" in trip.commands]
    detail = summary(loads)
    yield Figure(f"claim, {STEPS} memos", 1, len(loads), "pipelines", detail=detail)
    name = f"event of {STEPS} steps"
    for how, budget, counted in (
        ("in place", STEPS + 5, in_place),
        ("by run message", STEPS + 10, queued),
    ):
        detail = summary(counted)
        yield Figure(f"{name}, {how}", budget, len(counted), "trips", detail=detail)


@contextlib.contextmanager
def recording(url: str, namespace: str) -> t.Iterator[tuple[AppState, list[Trip]]]:
    """Run a worker in this process, and record the trips that it makes."""
    with (
        application(url, namespace) as state,
        recorded_trips() as trips,
        worker_here(state),
    ):
        yield state, trips


def count_event(
    state: AppState, trips: list[Trip], steps: int, *, busy: bool = False
) -> list[Trip]:
    """Send an event and return the trips until it is deleted and its run finished.

    :param busy: Whether no thread is free when it is routed.
    """
    before = finished(state)
    begin = len(trips)
    if busy:
        state.window.take(THREADS)
    durable.send("bench/steps", {"steps": steps})
    if busy:
        wait_until(lambda: any("XADD" in trip.commands for trip in trips[begin:]))
        state.window.release(THREADS)
    wait_until(lambda: finished(state) > before and _settled(state))
    return serving(trips[begin:])


def count_resumption(state: AppState, trips: list[Trip], steps: int) -> list[Trip]:
    """Have a run sleep after *steps* steps; return the trips of its second claim."""
    before = finished(state)
    durable.send("bench/sleep", {"steps": steps, "seconds": 0.2})
    wait_until(lambda: state.store.count("suspended") == 1)
    begin = len(trips)
    wait_until(lambda: finished(state) > before and _settled(state))
    return serving(trips[begin:])


def fewest(counted: t.Iterable[list[Trip]]) -> list[Trip]:
    """Return the shortest: a read may come between two messages by chance."""
    return min(counted, key=len)


def _settled(state: AppState) -> bool:
    counts = [state.transport.counts(queue) for queue in (EVENT_QUEUE, "default")]
    return not any(c.waiting + c.in_flight for c in counts)
