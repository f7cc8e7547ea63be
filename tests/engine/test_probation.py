"""One run that kills its process is to blame, and those beside it are not."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.engine.claimed_run import ClaimedRun
from flask_durable.engine.probation import SUSPECT
from flask_durable.store.status import RunStatus

from ..support.harness import Harness

PATIENCE = 20.0


class Fleet:
    """Runs that block in their first step until they are let go, and the claims."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.begun: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.threads: list[threading.Thread] = []

        @harness.durable.function(on="a/b", retries=0)
        def work(event: Event[t.Any], step: Step) -> str:
            step.run("first", self.block, event.id)
            self.begun.append(f"{event.id} again")
            step.run("second", self.block, f"{event.id} again")
            return "done"

    def block(self, name: str) -> None:
        self.begun.append(name)
        self.gate(name).wait(PATIENCE)

    def gate(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())

    def send(self, *ids: str) -> None:
        for id in ids:
            self.harness.send("a/b", id=id)
        while self.harness.route():
            pass

    def die(self) -> None:
        """Lose what was claimed, as a process does that is killed."""
        self.harness.threads.runs.clear()
        self.harness.expire_leases()

    def execute(self, run: ClaimedRun) -> None:
        thread = threading.Thread(
            target=self.harness.executor.execute, args=(run,), daemon=True
        )
        self.threads.append(thread)
        thread.start()

    def until(self, name: str) -> None:
        end = time.monotonic() + PATIENCE
        while name not in self.begun:
            assert time.monotonic() < end, self.begun
            time.sleep(0.002)

    def claims(self, id: str) -> int:
        return int(self.harness.run_of(id).dispatches)

    def end(self) -> None:
        self.block = lambda name: None  # type: ignore[method-assign]
        for gate in self.gates.values():
            gate.set()
        for thread in self.threads:
            thread.join(PATIENCE)


@pytest.fixture
def fleet(harness: Harness) -> t.Iterator[Fleet]:
    fleet = Fleet(harness)
    yield fleet
    fleet.end()


def all_claimed(fleet: Fleet, *ids: str) -> dict[str, ClaimedRun]:
    """Claim the runs of all these events again, by their messages."""
    found = {}
    for delivery in fleet.harness.state.broker.deliveries("default", 10, 0):
        run = fleet.harness.executor.claim(t.cast(t.Any, delivery.message))
        delivery.done()
        assert run is not None
        found[run.message.id] = run
    assert found.keys() == set(ids)
    return found


def all_suspect(fleet: Fleet, *ids: str) -> dict[str, ClaimedRun]:
    """Claim the same runs after as many deaths as make suspects of them."""
    runs: dict[str, ClaimedRun] = {}
    for _ in range(SUSPECT - 1):
        fleet.die()
        runs = all_claimed(fleet, *ids)
    return runs


def test_one_death_makes_no_suspects(fleet: Fleet) -> None:
    """Hosts are lost: the long runs that were there all go on at once elsewhere."""
    fleet.send("one", "two")
    fleet.die()
    for id, run in all_claimed(fleet, "one", "two").items():
        fleet.execute(run)
        fleet.until(id)


def test_suspects_are_tried_one_at_a_time(fleet: Fleet) -> None:
    fleet.send("one", "two")
    runs = all_suspect(fleet, "one", "two")

    fleet.execute(runs["one"])
    fleet.until("one")
    fleet.harness.executor.execute(runs["two"])

    two = fleet.harness.run_of("two")
    assert (two.status, two.reason) == (RunStatus.SUSPENDED, "another suspect is tried")
    assert fleet.begun == ["one"]
    assert (fleet.claims("one"), fleet.claims("two")) == (SUSPECT, SUSPECT - 1)


def test_what_is_beside_a_suspect_is_excused(fleet: Fleet) -> None:
    fleet.send("suspect")
    suspect = all_suspect(fleet, "suspect")["suspect"]
    fleet.send("before")
    (before,) = fleet.harness.threads.runs
    fleet.execute(before)
    fleet.until("before")
    fleet.execute(suspect)
    fleet.until("suspect")
    fleet.harness.threads.runs.clear()
    fleet.send("after")
    (after,) = fleet.harness.threads.runs
    fleet.execute(after)
    fleet.until("after")

    counted = [fleet.claims(id) for id in ("before", "suspect", "after")]
    assert counted == [0, SUSPECT, 0]


def test_a_trial_ends_with_progress(fleet: Fleet) -> None:
    fleet.send("one", "two")
    runs = all_suspect(fleet, "one", "two")
    fleet.execute(runs["one"])
    fleet.until("one")

    fleet.gate("one").set()
    fleet.until("one again")
    fleet.execute(runs["two"])

    fleet.until("two")


def test_a_trial_ends_when_it_lasted_as_long_as_the_process_lived_before(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.send("one", "two")
    runs = all_suspect(fleet, "one", "two")
    fleet.execute(runs["one"])
    fleet.until("one")
    lease = fleet.harness.state.settings.lease
    lived = int(runs["one"].record["lived"]) / 1000
    now = time.monotonic() + lived + lease / 3

    monkeypatch.setattr("flask_durable.engine.probation.time.monotonic", lambda: now)
    fleet.execute(runs["two"])
    fleet.until("two")

    # The first one did not kill its process in that time: it is as good as any other.
    assert (fleet.claims("one"), fleet.claims("two")) == (0, SUSPECT)


def test_a_run_that_kills_its_process_is_paused_and_its_neighbours_are_not(
    fleet: Fleet,
) -> None:
    fleet.send("killer", "one", "two")
    fleet.die()
    most = fleet.harness.state.settings.max_dispatches

    for _ in range(most + 2):
        claimed = {}
        for delivery in fleet.harness.state.broker.deliveries("default", 10, 0):
            run = fleet.harness.executor.claim(t.cast(t.Any, delivery.message))
            delivery.done()
            if run is not None:
                claimed[run.message.id] = run
        # A new process: nobody is on trial, and the killer comes first.
        executor = type(fleet.harness.executor)(
            fleet.harness.state.services,
            fleet.harness.state.outbox,
            fleet.harness.leases,
        )
        for id in sorted(claimed, key=lambda id: id != "killer"):
            begun = len(fleet.begun)
            thread = threading.Thread(
                target=executor.execute, args=(claimed[id],), daemon=True
            )
            thread.start()
            fleet.threads.append(thread)
            while thread.is_alive() and len(fleet.begun) == begun:
                time.sleep(0.002)
        if fleet.harness.run_of("killer").status == RunStatus.PAUSED:
            break
        for attempt in fleet.harness.leases.held:
            fleet.harness.leases.remove(attempt)
        fleet.die()
        fleet.harness.move_clock(10)  # for those that were handed back
        fleet.harness.sweep()

    assert fleet.harness.run_of("killer").status == RunStatus.PAUSED
    assert fleet.claims("one") <= SUSPECT
    assert fleet.claims("two") <= SUSPECT
