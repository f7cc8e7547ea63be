"""The budgets that are counts. Timings are measured by ``python -m benchmarks``."""

from __future__ import annotations

import pytest

from benchmarks import imports
from benchmarks import suspended
from benchmarks.fan_out import count_map
from benchmarks.round_trips import count_event
from benchmarks.round_trips import count_resumption
from benchmarks.round_trips import fewest
from benchmarks.round_trips import recording
from benchmarks.trips import summary
from benchmarks.workers import application
from benchmarks.workers import worker_here

from .support.servers import ValkeyServer

#: Events that are counted; the first one also loads the scripts into the server.
EVENTS = 3


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_an_event_of_k_steps_takes_k_plus_5_round_trips_in_place(
    valkey: ValkeyServer, namespace: str, steps: int
) -> None:
    with recording(valkey.url, namespace) as (state, trips):
        counted = fewest(count_event(state, trips, steps) for _ in range(EVENTS))

    commits = [trip for trip in counted if "step_commit" in trip.commands]
    assert len(commits) == steps
    assert len(counted) <= steps + 5, summary(counted)


def test_an_event_takes_k_plus_10_round_trips_through_a_run_message(
    valkey: ValkeyServer, namespace: str
) -> None:
    with recording(valkey.url, namespace) as (state, trips):
        counted = fewest(count_event(state, trips, 5, busy=True) for _ in range(EVENTS))

    assert any("XADD" in trip.commands for trip in counted)
    assert len(counted) <= 5 + 10, summary(counted)


def test_a_run_with_memos_is_claimed_and_loaded_in_one_pipeline(
    valkey: ValkeyServer, namespace: str
) -> None:
    with recording(valkey.url, namespace) as (state, trips):
        counted = count_resumption(state, trips, 20)

    claims = [trip for trip in counted if "run_claim" in trip.commands]
    assert [str(trip) for trip in claims] == ["run_claim+HGETALL"]
    assert not any("HGETALL" in t.commands for t in counted if t not in claims)


def test_a_branch_of_a_map_takes_at_most_6_round_trips(
    valkey: ValkeyServer, namespace: str
) -> None:
    with recording(valkey.url, namespace) as (state, trips):
        count_map(state, trips, 300)  # loads the scripts
        counted = count_map(state, trips, 300)

    pages = [trip for trip in counted if "branches_start" in trip.commands]
    assert len(pages) == 2  # at most 250 branches each
    lists = [trip for trip in counted if "branches_list" in trip.commands]
    assert len(lists) == 2
    assert len(counted) <= 6 * 300, summary(counted)


def test_sleeping_runs_hold_no_thread_no_message_and_no_memory(
    valkey: ValkeyServer, namespace: str
) -> None:
    with application(valkey.url, namespace) as state, worker_here(state):
        held = suspended.held_by(state, 100)

    assert held == (0, 0, 0)


def test_importing_the_package_imports_no_extra() -> None:
    _, modules = imports.imported("flask_durable")

    assert "flask_durable" in modules
    assert imports.unwanted(modules) == []


def test_a_web_process_that_sends_imports_no_dramatiq(valkey: ValkeyServer) -> None:
    modules = imports.modules_of_a_web_process(valkey.url)

    assert "flask_durable.queue.sending" in modules
    assert imports.unwanted(modules) == []
