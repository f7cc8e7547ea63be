"""Sweeps and renewals: a partition that does not answer holds up no other."""

from __future__ import annotations

import typing as t

import pytest
import redis

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.engine.rota import Rota
from flask_durable.store.replies import Renewal
from flask_durable.store.run_store import RunStore
from flask_durable.store.run_store import Swept
from flask_durable.store.server import StateServer

from ..support.harness import Harness

NODES = {"a0": "a", "a1": "a", "b0": "b", "b1": "b", "c0": "c"}


class Nodes(StateServer):
    """Says where partitions are; nothing is connected to."""

    def place_of(self, tag: str) -> str:
        return NODES[tag]


class Visits:
    """Visits partitions, those of some nodes without an answer."""

    def __init__(self, rest: float, silent: str = "") -> None:
        self.silent = silent
        self.rota = Rota(Nodes("redis://localhost:1"), rest)

    def once(self) -> tuple[list[str], int]:
        """Return the partitions that were tried, and how often there was no answer."""
        tried: list[str] = []
        failures: list[Exception] = []

        def visit(tag: str) -> None:
            tried.append(tag)
            if NODES[tag] in self.silent:
                raise redis.TimeoutError

        self.rota.visit(NODES, visit, failures.append)
        return tried, len(failures)


def test_of_a_server_that_is_silent_one_partition_is_tried_a_round() -> None:
    assert Visits(10.0, "a").once() == (["a0", "b0", "b1", "c0"], 1)


def test_a_server_that_was_silent_comes_last() -> None:
    visits = Visits(0.0, "a")
    visits.once()

    assert visits.once() == (["b0", "b1", "c0", "a0"], 1)
    visits.silent = ""
    assert visits.once() == (["b0", "b1", "c0", "a0", "a1"], 0)
    assert visits.once() == ([*NODES], 0)


def test_a_server_that_is_silent_rests() -> None:
    visits = Visits(600.0, "b")
    for _ in range(5):
        visits.rota._let_rest("b")

    assert visits.once() == (["a0", "a1", "c0"], 0)


def test_an_error_of_one_partition_is_not_that_of_its_server() -> None:
    tried: list[str] = []

    def visit(tag: str) -> None:
        tried.append(tag)
        raise ValueError

    failures: list[Exception] = []
    Visits(10.0).rota.visit(NODES, visit, failures.append)

    assert tried == [*NODES]
    assert len(failures) == len(NODES)


def silence(
    monkeypatch: pytest.MonkeyPatch, method: str, away: str
) -> t.Callable[[], None]:
    """Have the partition *away* not answer to *method* of the store."""
    plain = getattr(RunStore, method)

    def answer(store: RunStore, tag: str, *args: t.Any) -> t.Any:
        if tag == away:
            raise redis.TimeoutError("no answer")
        return plain(store, tag, *args)

    monkeypatch.setattr(RunStore, method, answer)
    return monkeypatch.undo


def sleepers(harness: Harness, number: int = 24) -> list[str]:
    """Start runs that sleep; return the ids of their events."""

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("nap", 5)

    # Ids of which some are in each of four partitions.
    events = [harness.send("a/b", id=f"sleeper-{n}") for n in range(number)]
    harness.settle()
    return events


@pytest.mark.parametrize("place", [0, 1, 3])
def test_runs_wake_up_although_a_partition_does_not_answer(
    make_harness: t.Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    harness = make_harness(DURABLE_PARTITIONS=4)
    events = sleepers(harness)
    keys = harness.state.store.keys
    away = keys.tags[place]
    undo = silence(monkeypatch, "sweep", away)

    with pytest.raises(redis.TimeoutError):
        harness.advance(6)
    harness.settle()

    runs = [harness.run_of(event) for event in events]
    assert {keys.tag_of(run.id) for run in runs} == {*keys.tags}
    for run in runs:
        asleep = run.status == RunStatus.SUSPENDED
        assert asleep == (keys.tag_of(run.id) == away)
    undo()


def test_partitions_are_swept_in_turns(
    make_harness: t.Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness(DURABLE_PARTITIONS=3)
    harness.start()
    swept: list[str] = []

    def sweep(store: RunStore, tag: str, *args: t.Any) -> Swept:
        swept.append(tag)
        busy = tag == harness.state.store.keys.tags[1] and swept.count(tag) < 4
        return Swept([], [], [], [], more=busy, behind=[])

    monkeypatch.setattr(RunStore, "sweep", sweep)
    harness.sweep()

    tags = harness.state.store.keys.tags
    assert {*swept[:3]} == {*tags}
    assert swept[3:] == [tags[1]] * 3


def test_leases_are_renewed_although_a_partition_does_not_answer(
    make_harness: t.Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness(DURABLE_PARTITIONS=4)
    renewed: list[str] = []
    plain = RunStore.renew

    def renew(store: RunStore, tag: str, leases: t.Any) -> list[Renewal]:
        if tag == store.keys.tags[0]:
            raise redis.TimeoutError("no answer")
        renewed.append(tag)
        return plain(store, tag, leases)

    class Held:
        token, lease = "none", 10.0

        def __init__(self, run_id: str) -> None:
            self.run_id = run_id

        def lose(self, *, cancelled: bool) -> None: ...

    harness.start()
    monkeypatch.setattr(RunStore, "renew", renew)
    for number in range(40):
        harness.leases.add(t.cast(t.Any, Held(f"run{number}")))

    with pytest.raises(redis.TimeoutError):
        harness.leases.renew()

    assert sorted(renewed) == sorted(harness.state.store.keys.tags[1:])
