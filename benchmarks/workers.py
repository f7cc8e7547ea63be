"""Worker processes as ``flask durable worker`` starts them, and one in this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t

from flask import Flask

from flask_durable.app.state import AppState
from flask_durable.worker.process import WorkerProcess
from tests.support.servers import wait_until

from .app import create_app
from .app import durable

#: As the budgets name it.
PROCESSES = 2
THREADS = 8


@contextlib.contextmanager
def application(url: str, namespace: str, **config: t.Any) -> t.Iterator[AppState]:
    """Make the app with settings of its own, and close its connections afterwards."""
    app: Flask = create_app(
        DURABLE_REDIS_URL=url, DURABLE_NAMESPACE=namespace, **config
    )
    state = durable.state_of(app)
    with app.app_context():
        try:
            yield state
        finally:
            state.broker.close()
            state.server.close()


@contextlib.contextmanager
def worker_processes(
    state: AppState,
    processes: int = PROCESSES,
    threads: int = THREADS,
    settings: t.Mapping[str, str] | None = None,
) -> t.Iterator[list[int]]:
    """Run real worker processes for the app of *state*; yields their ids.

    :param settings: Settings that only they have, by name.
    """
    environment = {
        **os.environ,
        "FLASK_DURABLE_REDIS_URL": str(state.settings.redis_url),
        "FLASK_DURABLE_NAMESPACE": state.settings.namespace,
        **{f"FLASK_{name}": value for name, value in (settings or {}).items()},
    }
    command = [sys.executable, "-m", "flask", "--app", "benchmarks.app", "durable"]
    command += ["worker", "--threads", str(threads)]
    children = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for _ in range(processes)
    ]

    def ready() -> bool:
        for child in children:
            if child.poll() is not None:
                raise RuntimeError(f"a worker ended with {child.returncode}")
        return len(state.directory.workers()) == processes

    try:
        wait_until(ready, "the workers", 60)
        yield [child.pid for child in children]
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(60)


@contextlib.contextmanager
def worker_here(state: AppState, threads: int = THREADS) -> t.Iterator[WorkerProcess]:
    """Run a worker on threads of this process."""
    queues = state.functions.queues()
    worker = WorkerProcess(state, queues=queues, threads=threads, grace=10)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def finished(state: AppState) -> int:
    """Return how many runs have completed."""
    return state.store.count("completed")


def wait_finished(state: AppState, count: int, timeout: float = 600) -> None:
    """Wait until *count* runs have completed."""
    wait_until(lambda: finished(state) >= count, f"{count} runs", timeout)
