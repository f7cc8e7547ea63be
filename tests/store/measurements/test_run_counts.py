"""Runs are counted by the scripts that begin and end them."""

from __future__ import annotations

import time

import pytest

from flask_durable.store.measurements.run_counts import RunCounts
from flask_durable.store.run_store import after

from ..kit import Kit

WEEK = 7 * 24 * 3600


@pytest.fixture
def counts(kit: Kit) -> RunCounts:
    return RunCounts(kit.server, kit.keys)


def test_every_way_to_end_is_counted_once(kit: Kit, counts: RunCounts) -> None:
    kit.finish(kit.running("t1"), "t1")
    kit.finish(kit.running("t2"), "t2", failed=True)
    kit.store.admin(kit.queued(), "cancel")
    kit.queued()

    work = {"started": 4, "completed": 1, "failed": 1, "cancelled": 1}
    assert counts.totals() == counts.since(24) == {"work": work}


def test_a_run_that_is_retried_is_started_once_more(
    kit: Kit, counts: RunCounts
) -> None:
    run_id = kit.running("t1")
    kit.finish(run_id, "t1", failed=True)
    kit.store.admin(run_id, "retry")
    kit.claim(run_id, "t2")
    kit.finish(run_id, "t2")

    work = {"started": 2, "failed": 1, "completed": 1}
    assert counts.totals() == {"work": work}


def test_a_run_that_only_goes_on_is_not_counted_again(
    kit: Kit, counts: RunCounts
) -> None:
    run_id = kit.running("t1")
    kit.suspend(run_id, "sleep", after(10), step="nap")
    kit.advance(11)
    kit.sweep()
    kit.claim(run_id, "t2")
    kit.lose(run_id)

    assert counts.totals() == {"work": {"started": 1}}


def test_the_run_of_a_failure_handler_is_counted_as_its_own(
    kit: Kit, counts: RunCounts
) -> None:
    run_id = kit.running("t1")
    handler = (f"{run_id}.failure", "work/on_failure", "default")
    kit.finish(run_id, "t1", failed=True, handler=handler)

    assert counts.totals()["work/on_failure"] == {"started": 1}


def test_the_counts_of_all_partitions_are_added(url: str) -> None:
    kit = Kit(url, partitions=4)
    for _ in range(8):
        kit.queued()

    counts = RunCounts(kit.server, kit.keys)
    assert counts.totals() == counts.since(1) == {"work": {"started": 8}}
    kit.close()


def test_the_counts_of_an_hour_expire_and_the_totals_stay(kit: Kit) -> None:
    kit.queued()

    hour = int(time.time()) // 3600
    hours = [f"{kit.keys.root}:counts:{each}" for each in (hour - 1, hour)]
    assert WEEK < max(kit.client.ttl(key) for key in hours) <= WEEK + 24 * 3600
    assert kit.client.ttl(f"{kit.keys.root}:totals") == -1
