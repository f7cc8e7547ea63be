"""A release gives a function another queue; runs of before wait on the old one."""

from __future__ import annotations

import logging
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.app.health import HealthChecks
from flask_durable.worker import strays
from flask_durable.worker.process import WorkerProcess
from flask_durable.worker.strays import Strays

from ..support.harness import Harness
from ..support.servers import ValkeyServer
from ..support.servers import wait_until


class Releases:
    """Two releases of one app; the second has the queue ``new`` for ``old``."""

    def __init__(self, url: str, namespace: str) -> None:
        self.old = self._release(url, namespace, "old")
        self.new = self._release(url, namespace, "new")

    def _release(self, url: str, namespace: str, queue: str) -> Harness:
        harness = Harness(url, namespace)

        @harness.durable.function(on="a/b", id="work", queue=queue, retries=0)
        def work(event: Event[t.Any], step: Step) -> str:
            def fail_in_the_old_release() -> None:
                if queue == "old":
                    raise ConnectionError

            case = event.data["case"]
            if case == "asleep":
                step.sleep("nap", 60)
            if case == "tried":
                step.options(retries=1).run("again", fail_in_the_old_release)
            if case == "failed":
                step.run("once", fail_in_the_old_release)
            return step.run("last", lambda: queue)

        return harness

    def leave(self, *cases: str) -> dict[str, str]:
        """Leave unfinished runs behind on the old queue; return their ids by case."""
        events = {case: self.old.send("a/b", {"case": case}) for case in cases}
        while self.old.route():
            pass
        lost = [
            run
            for run in self.old.threads.runs
            if run.record["event_id"] == events.get("lost")
        ]
        self.old.threads.runs = [x for x in self.old.threads.runs if x not in lost]
        self.old.execute()
        self.old.state.broker.flush_settled(5)
        self.new.start()
        self.new.expire_leases()
        self.new.move_clock(3600)
        self.new.sweep()
        runs = {case: self.new.run_of(event).id for case, event in events.items()}
        if "failed" in runs:
            self.new.runs.retry(runs["failed"])
        return runs

    def problem(self) -> str:
        """Return what ``health`` finds wrong with the workers, or an empty text."""
        checks = {
            check.name: check for check in HealthChecks(self.new.state).everything()
        }
        return "" if checks["workers"].ok else checks["workers"].detail


@pytest.fixture
def releases(valkey: ValkeyServer, namespace: str) -> t.Iterator[Releases]:
    found = Releases(valkey.url, namespace)
    yield found
    found.old.close()
    found.new.close()


def test_runs_left_on_an_old_queue_go_on_in_a_worker_that_was_told_no_queues(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "STRAYS_LOOK_SECONDS", 0)
    runs = releases.leave("asleep", "tried", "failed", "lost")
    new = releases.new
    worker = WorkerProcess(new.state, queues=["new"], threads=2, grace=5, adopts=True)
    worker.start()
    try:
        assert releases.problem() == (
            "4 run(s) wait on 'old', which no worker serves: start one with "
            "--queues old"
        )
        worker._beat._turn()
        assert releases.problem() == ""
        for run_id in runs.values():
            wait_until(lambda id=run_id: new.runs.get(id).result == "new", run_id)
        assert worker.ailing() == {}
    finally:
        worker.stop()
    # A worker that stops takes up nothing more.
    assert worker._threads.serve("another") is False


def test_a_worker_that_was_told_its_queues_takes_no_other_and_says_so_once(
    releases: Releases,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(strays, "STRAYS_LOOK_SECONDS", 0)
    releases.leave("asleep")
    queues = ["new"]
    found = Strays(releases.new.state, queues, None)
    with caplog.at_level(logging.WARNING, "flask_durable"):
        found.look()
        found.look()

    told = [r for r in caplog.records if r.__dict__.get("action") == "queue_unserved"]
    assert [r.getMessage() for r in told] == [
        "1 run(s) wait on 'old', which no worker serves: start one with --queues old."
    ]
    assert queues == ["new"]


def test_a_queue_is_left_to_those_who_serve_it_and_runs_to_those_who_have_their_code(
    releases: Releases, valkey: ValkeyServer, namespace: str
) -> None:
    releases.leave("asleep")
    taken: list[str] = []

    class Taker:
        def serve(self, queue: str) -> bool:
            taken.append(queue)
            return True

    state = releases.new.state
    beat = {"id": "w1", "queues": ["old"], "threads": 1}
    state.directory.beat("w1", beat, [])
    Strays(state, ["new"], Taker()).look()
    assert taken == []
    state.directory.leave("w1")
    other = Harness(valkey.url, namespace)
    Strays(other.state, ["new"], Taker()).look()
    assert taken == []
    other.close()
    Strays(state, ["new"], Taker()).look()
    assert taken == ["old"]
