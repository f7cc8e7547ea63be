"""A worker needs no file of its release any more once it has started."""

from __future__ import annotations

import builtins
import pathlib
import sys
import threading
import typing as t
from importlib import metadata
from importlib import resources

import pytest

import flask_durable
from flask_durable import Event
from flask_durable import Step
from flask_durable.functions.retries import Backoff
from flask_durable.redis import scripts
from flask_durable.worker.process import WorkerProcess

from ..support.harness import Harness
from ..support.servers import wait_until

ROOT = pathlib.Path(flask_durable.__file__).parent


@pytest.fixture
def unread() -> None:
    """Have no script read yet, as in a process that begins."""
    scripts.all_scripts.cache_clear()


def lua(folder: str) -> set[str]:
    files = (ROOT / folder / "lua").glob("*.lua")
    return {file.stem for file in files} - {"common"}


def test_the_first_use_of_the_servers_reads_every_script(
    harness: Harness, unread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.send("work/unheard")
    monkeypatch.setattr(resources, "files", None)

    assert set(scripts.all_scripts("flask_durable.store")) == lua("store")
    assert set(scripts.all_scripts("flask_durable.queue.redis_streams")) == lua(
        "queue/redis_streams"
    )


def test_a_worker_that_started_opens_no_file_and_imports_nothing_of_ours(
    harness: Harness, unread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @harness.durable.function(
        on="work/*", retries=1, backoff=Backoff("100ms", jitter=False)
    )
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("one", lambda: None)
        step.sleep("nap", "100ms")
        if event.name == "work/send":
            step.send_event("send", Event(name="other/one", data={}))
        if event.name == "work/fail":
            step.run("fail", fail)
        if event.name == "work/long":
            step.run("long", lambda: begun.set() or go_on.wait(20))
            step.run("after", lambda: None)

    def fail() -> None:
        raise ValueError

    opened: list[str] = []
    real = builtins.open

    def noting(file: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        if isinstance(file, (str, pathlib.Path)):
            opened.append(str(file))
        return real(file, *args, **kwargs)

    process = WorkerProcess(harness.state, queues=["default"], threads=4, grace=20)
    process.start()
    modules = set(sys.modules)
    monkeypatch.setattr(resources, "files", None)
    monkeypatch.setattr(metadata, "version", None)
    monkeypatch.setattr(builtins, "open", noting)
    monkeypatch.setattr("io.open", noting)  # that of pathlib
    ended = {"plain": "completed", "send": "completed", "fail": "failed"}
    events = {harness.send(f"work/{name}"): ends for name, ends in ended.items()}
    held = harness.send("work/long")
    stop = threading.Thread(target=process.stop)
    try:
        for event, ends in events.items():
            wait_until(lambda event=event, ends=ends: statuses(harness, event) == ends)
        assert begun.wait(20)
    finally:
        stop.start()
        wait_until(harness.state.services.draining.is_set)
        go_on.set()
        stop.join(30)

    assert statuses(harness, held) == "queued"
    new = set(sys.modules) - modules
    assert not [name for name in new if name.startswith("flask_durable")]
    assert not [path for path in opened if path.startswith(str(ROOT))]


def statuses(harness: Harness, event: str) -> str:
    with harness.app.app_context():
        return " ".join(str(run.status) for run in harness.durable.runs.of_event(event))
