"""Steps and runs a second of real worker processes, against yardsticks.

* Steps: runs of ten steps, sent in one go, until the last one is finished; against as
  many processes and threads that do nothing but EVALSHA the commit script.
* Runs: events of a no-op function, sent by ``send_many``, until the last run is
  finished; against ``actor.send`` of a no-op actor on Dramatiq's Redis broker, which
  has no call for several, until the last message is processed. Where the sender shares
  cores with the workers, events sent one by one arrive one by one and are routed one by
  one: that ratio is given as well, without a budget.

All share a server. Figure and yardstick are taken in turns; each round gives a ratio,
and the median counts.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
import typing as t

from flask_durable import Event
from flask_durable.app.state import AppState
from tests.support.servers import valkey_server
from tests.support.servers import wait_until

from .app import durable
from .model import Figure
from .model import Options
from .model import spread
from .workers import application
from .workers import finished
from .workers import PROCESSES
from .workers import THREADS
from .workers import wait_finished
from .workers import worker_processes

#: Steps of a run.
STEPS = 10

#: Events that one call sends.
BATCH = 100


def measure(options: Options) -> t.Iterator[Figure]:
    """Take both ratios."""
    count = 500 if options.quick else 2_000
    with valkey_server() as server:
        yield _steps(server.url, options.rounds, count)
        yield from _runs(server.url, options.rounds, 4 * count)


def _steps(url: str, rounds: int, runs: int) -> Figure:
    ours, bare = [], []
    with application(url, "steps") as state:
        for _ in range(rounds):
            bare.append(bare_commits(url, 2))
            with worker_processes(state):
                steps_a_second(state, runs // 10)  # everything is imported and warm
                ours.append(steps_a_second(state, runs))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return Figure(
        f"{STEPS}-step runs, steps/s",
        0.35,
        statistics.median(ratios),
        "x bare loop",
        at_least=True,
        detail=f"steps/s {spread(ours, 0)}, bare {spread(bare, 0)}, "
        f"ratio {spread(ratios)}",
    )


def _runs(url: str, rounds: int, runs: int) -> t.Iterator[Figure]:
    together, singly, plain = [], [], []
    with application(url, "runs") as state:
        for _ in range(rounds):
            with plain_workers(url):
                plain_messages_a_second(runs // 10)
                plain.append(plain_messages_a_second(runs))
            with worker_processes(state):
                runs_a_second(state, runs // 10, BATCH)
                together.append(runs_a_second(state, runs, BATCH))
                singly.append(runs_a_second(state, runs, 1))
    for name, budget, ours in (
        ("no-op runs/s, send to finish", 0.8, together),
        ("the same, sent one by one", None, singly),
    ):
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        yield Figure(
            name,
            budget,
            statistics.median(ratios),
            "x dramatiq",
            at_least=True,
            detail=f"runs/s {spread(ours, 0)}, dramatiq {spread(plain, 0)}, "
            f"ratio {spread(ratios)}",
        )


def steps_a_second(state: AppState, runs: int) -> float:
    """Have runs of ten steps made, and return the steps a second."""
    before = finished(state)
    started = time.perf_counter()
    for first in range(0, runs, BATCH):
        size = min(BATCH, runs - first)
        durable.send_many(Event("bench/steps", {"steps": STEPS}) for _ in range(size))
    wait_finished(state, before + runs)
    return runs * STEPS / (time.perf_counter() - started)


def runs_a_second(state: AppState, runs: int, batch: int) -> float:
    """Send events of the no-op function, *batch* a call; return the runs a second."""
    before = finished(state)
    started = time.perf_counter()
    for first in range(0, runs, batch):
        events = [
            Event("bench/noop", {"n": n}) for n in range(min(batch, runs - first))
        ]
        durable.send_many(events)
    wait_finished(state, before + runs)
    return runs / (time.perf_counter() - started)


def plain_messages_a_second(messages: int) -> float:
    """Send messages to the plain actor, and return how many a second were processed."""
    from .plain_dramatiq import noop
    from .plain_dramatiq import unfinished

    started = time.perf_counter()
    for number in range(messages):
        noop.send({"number": number})
    wait_until(lambda: unfinished() == 0, "the messages", 600)
    return messages / (time.perf_counter() - started)


@contextlib.contextmanager
def plain_workers(url: str) -> t.Iterator[None]:
    """Run Dramatiq's own worker processes."""
    os.environ["BENCHMARK_REDIS_URL"] = url
    command = [sys.executable, "-m", "dramatiq", "benchmarks.plain_dramatiq"]
    command += ["--processes", str(PROCESSES), "--threads", str(THREADS)]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        from .plain_dramatiq import noop
        from .plain_dramatiq import unfinished

        noop.send({"number": 0})
        wait_until(lambda: unfinished() == 0, "the workers")
        time.sleep(1)  # the other process, which cannot be asked
        yield
    finally:
        worker.terminate()
        worker.wait(60)


def bare_commits(url: str, seconds: float) -> float:
    """Return how many commits a second processes that do nothing else make."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", url]
    command += [str(THREADS), str(seconds)]
    loops = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    pipes = [(t.cast(t.Any, loop.stdin), t.cast(t.Any, loop.stdout)) for loop in loops]
    for _, out in pipes:
        out.readline()
    for stdin, _ in pipes:
        stdin.write("\n")
        stdin.flush()
    rates = [float(out.readline()) for _, out in pipes]
    for loop in loops:
        loop.communicate()
    return sum(rates)
