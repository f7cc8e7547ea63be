"""``run_log``: the newest lines of a run, and none of a run that is gone."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.store.run_logs import MAX_LOG_BYTES
from flask_durable.store.run_logs import RunLogStore

from .kit import Kit


@pytest.fixture
def logs(kit: Kit) -> RunLogStore:
    return RunLogStore(kit.store.server, kit.store.keys, 4)


def lines(logs: RunLogStore, run_id: str) -> list[tuple[int, str]]:
    found = logs.read(run_id)
    assert found is not None
    return found


def test_the_newest_lines_are_kept_with_their_numbers(
    kit: Kit, logs: RunLogStore
) -> None:
    run_id = kit.running()
    logs.append([(run_id, ["one", "two words"])])
    logs.append([(run_id, ["three", "four", "five"])])

    assert lines(logs, run_id) == [
        (2, "two words"),
        (3, "three"),
        (4, "four"),
        (5, "five"),
    ]


def test_the_bytes_of_lines_are_limited(kit: Kit, logs: RunLogStore) -> None:
    run_id = kit.running()
    logs.append([(run_id, ["x" * (MAX_LOG_BYTES // 2)] * 3)])

    assert [number for number, _ in lines(logs, run_id)] == [3]


def test_a_repeated_call_adds_nothing(kit: Kit, logs: RunLogStore) -> None:
    run_id = kit.running()
    call: t.Any = ("run_log", kit.tag(run_id), [run_id, "t1", 4, 1000, "one"])
    assert kit.store.server.call_many([call, call]) == [1, 1]

    assert lines(logs, run_id) == [(1, "one")]


def test_lines_of_a_run_that_ended_are_kept_and_go_with_it(
    kit: Kit, logs: RunLogStore
) -> None:
    run_id = kit.running()
    kit.finish(run_id, outcome="1")
    logs.append([(run_id, ["late"])])
    assert lines(logs, run_id) == [(1, "late")]

    kit.advance(8 * 24 * 3600)
    kit.sweep()
    logs.append([(run_id, ["later"])])
    assert logs.read(run_id) is None
    assert kit.mentions(run_id) == []
