"""Counts on the state server: runs that wait, run and are known to come."""

from __future__ import annotations

import typing as t
from collections import Counter

import pytest

from flask_durable.scaler.introspectors.own import RunSensor

from ...store.kit import Kit


def look(kit: Kit, horizon: float = 60.0) -> t.Any:
    return RunSensor(kit.server, kit.keys, ["media"]).look(horizon)


def test_runs_that_wait_are_counted_by_function_in_all_partitions(kit: Kit) -> None:
    for number in range(40):
        kit.queued(queue="media", function="work" if number % 4 else "other")
    kit.queued(queue="default")

    seen = look(kit)

    jobs: Counter[str] = Counter()
    for group in seen.waiting:
        jobs[group.function] += group.jobs
        assert 0 <= group.newest <= group.oldest < 60
    assert jobs == {"work": 30, "other": 10}
    assert seen.arrived == {"work": 30, "other": 10}


def test_ages_are_those_of_the_runs(kit: Kit) -> None:
    ids = [kit.queued(queue="media") for _ in range(60)]
    for number, id in enumerate(ids):
        tag = kit.tag(id)
        kit.client.zincrby(f"{tag}:waiting:media:work", -number * 1000, id)

    seen = look(kit)

    assert max(group.oldest for group in seen.waiting) == pytest.approx(59, abs=5)
    assert min(group.newest for group in seen.waiting) == pytest.approx(0, abs=5)
    assert len(seen.waiting) <= 3 * 12
    middle = sum(group.jobs for group in seen.waiting if group.oldest < 30)
    assert 20 < middle <= 31


def test_a_run_that_is_claimed_runs_and_does_not_wait(kit: Kit) -> None:
    kit.running(queue="media")
    kit.create(kit.new_run(queue="media", token="t9"))
    kit.running(queue="default")

    seen = look(kit)

    assert not seen.waiting
    assert [job.function for job in seen.running] == ["work", "work"]
    assert all(0 <= job.age < 60 for job in seen.running)
    assert seen.arrived == {"work": 2}


def test_runs_that_wake_up_soon_are_known(kit: Kit) -> None:
    soon, later = (kit.running(queue="media") for _ in range(2))
    kit.suspend(soon, "sleep", "30000", step="a", number=0, payload="")
    kit.suspend(later, "sleep", "90000", step="a", number=0, payload="")

    [(function, due)] = look(kit, 60).wakeups

    assert function == "work"
    assert due == pytest.approx(30, abs=5)


def test_a_run_that_is_queued_again_is_another_job(kit: Kit) -> None:
    id = kit.running(queue="media")
    kit.lose(id)

    seen = look(kit)

    assert seen.arrived == {"work": 2}
    assert sum(group.jobs for group in seen.waiting) == 1


def test_a_function_that_is_in_several_queues_has_the_wait_of_the_first(
    kit: Kit,
) -> None:
    for queue in ("media", "mail", "default"):
        kit.queued(queue=queue)
    for queues in (["mail", "media", "default"], ["media", "default", "mail"]):
        seen = RunSensor(kit.server, kit.keys, queues).look(60)
        assert seen.queues == {"work": queues[0]}
