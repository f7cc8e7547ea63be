"""What sleeping runs hold: threads and memory of a worker, and queue messages.

Memory is counted in objects that belong to those runs: the size of a process moves by
itself. A thread keeps what it executed last until it executes something else, so no-op
runs are made before that count.
"""

from __future__ import annotations

import gc
import threading
import typing as t

from flask_durable import Event
from flask_durable.app.state import AppState
from flask_durable.engine.attempt import Attempt
from flask_durable.engine.attempt import ClaimedRun
from flask_durable.messages import EVENT_QUEUE
from tests.support.servers import valkey_server
from tests.support.servers import wait_until

from .app import durable
from .model import Figure
from .model import Options
from .workers import application
from .workers import finished
from .workers import THREADS
from .workers import wait_finished
from .workers import worker_here

#: Runs that sleep at the same time.
RUNS = 500

#: What there is of a run while it is executed; all else hangs on these.
KINDS = (Attempt, ClaimedRun)


def measure(options: Options) -> t.Iterator[Figure]:
    """Put runs to sleep, and look at what is held more than before."""
    with (
        valkey_server() as server,
        application(server.url, "suspended") as state,
        worker_here(state),
    ):
        threads, messages, objects = held_by(state, RUNS)
    name = f"{RUNS} sleeping runs"
    yield Figure(f"{name}, threads", 0, threads, "threads")
    yield Figure(f"{name}, messages", 0, messages, "messages")
    yield Figure(f"{name}, live objects", 0, objects, "objects")


def held_by(state: AppState, runs: int) -> tuple[int, int, int]:
    """Return the threads, queue messages and run objects that sleeping runs hold."""
    sleep(state, 20)  # every thread is started
    # Not their number: a thread of what was here before may end.
    before = set(threading.enumerate())
    sleep(state, runs)
    started = len(set(threading.enumerate()) - before)
    ids = {run.id for run in state.runs.list(status="suspended", limit=1000)}
    for _ in range(5):
        make_others(state, 20 * THREADS)
        kept = objects_of(ids)
        if not kept:
            break
    return started, messages(state), kept


def sleep(state: AppState, runs: int) -> None:
    """Put more runs to sleep for an hour, and wait until that is all there is to do."""
    before = state.store.count("suspended")
    data = {"steps": 1, "seconds": 3600}
    durable.send_many(Event("bench/sleep", data) for _ in range(runs))
    wait_until(lambda: state.store.count("suspended") == before + runs, "the runs")
    wait_until(lambda: messages(state) == 0, "the queues")
    wait_until(lambda: state.window.free == THREADS, "the threads")


def make_others(state: AppState, runs: int) -> None:
    """Have no-op runs made."""
    before = finished(state)
    durable.send_many(Event("bench/noop") for _ in range(runs))
    wait_finished(state, before + runs)
    wait_until(lambda: messages(state) == 0, "the queues")


def messages(state: AppState) -> int:
    """Return how many messages the queues hold, in whatever state."""
    counts = [state.transport.counts(queue) for queue in (EVENT_QUEUE, "default")]
    return sum(c.waiting + c.in_flight + c.delayed + c.dead for c in counts)


def objects_of(run_ids: set[str]) -> int:
    """Return how many objects of these runs are alive."""
    gc.collect()
    found = (each for each in gc.get_objects() if isinstance(each, KINDS))
    return sum(each.run_id in run_ids for each in found)
