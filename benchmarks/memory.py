"""Memory of worker processes after many runs: within the budget, and not growing.

The resident size is taken along the way. Of what it is after a first tenth of the runs,
which warm up allocators and caches, it may grow by no more than a tenth.
"""

from __future__ import annotations

import pathlib
import typing as t

from flask_durable import Event
from flask_durable.app.state import AppState
from tests.support.servers import valkey_server

from .app import durable
from .model import Figure
from .model import Options
from .workers import application
from .workers import finished
from .workers import wait_finished
from .workers import worker_processes

#: Events that one call sends, and that may wait.
BATCH = 500

#: How often the size is taken.
SAMPLES = 10

#: Seconds that finished runs are kept: the server is not what is measured.
RETENTION = 60


def measure(options: Options) -> t.Iterator[Figure]:
    """Make runs of a few steps, and look at the processes meanwhile."""
    with (
        valkey_server() as server,
        application(server.url, "memory", DURABLE_RETENTION=RETENTION) as state,
        worker_processes(state) as pids,
    ):
        sizes = []
        done = 0
        for sample in range(SAMPLES):
            target = options.runs * (sample + 1) // SAMPLES
            make(state, target - done)
            done = target
            sizes.append(max(resident(pid) for pid in pids))
    detail = ", ".join(f"{size:.0f}" for size in sizes)
    name = f"worker memory after {options.runs:,} runs"
    yield Figure(name, 120, sizes[-1], "MiB", detail=f"{detail} MiB, larger process")
    yield Figure("its growth after the first tenth", 1.1, sizes[-1] / sizes[0], "x")


def make(state: AppState, runs: int) -> None:
    """Have *runs* runs of two steps made."""
    for first in range(0, runs, BATCH):
        size = min(BATCH, runs - first)
        before = finished(state)
        durable.send_many(Event("bench/steps", {"steps": 2}) for _ in range(size))
        wait_finished(state, before + size)


def resident(pid: int) -> float:
    """Return the resident size of a process in MiB."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20
