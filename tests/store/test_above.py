"""The runs above branches are read once in a while, and not with each claim."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.store import above
from flask_durable.store.above import RunsAbove
from flask_durable.store.branches import NewBranch
from flask_durable.store.branches import NewGroup
from flask_durable.store.branches import start_branches

from .kit import Kit


@pytest.fixture
def reads(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of hashes that each claim read behind its script."""
    made: list[int] = []
    call_many = kit.store.server.call_many

    def counted(calls: t.Any, *commands: t.Any) -> t.Any:
        if calls[0][0] == "run_claim":
            made.append(len(commands))
        return call_many(calls, *commands)

    monkeypatch.setattr(kit.store.server, "call_many", counted)
    return made


def start(kit: Kit, parent: str, places: str, token: str = "t1") -> None:
    """Have step ``x`` ask for a branch for each letter of *places*."""
    total = len(places)
    group = NewGroup("group    ", "[]", total, total, total, 0)
    asked = [NewBranch(place, f"{parent}.b-{place}") for place in places]
    start_branches(kit.store, (parent, token), "x", group, 0, asked)


def test_the_branches_of_a_step_share_what_was_read(kit: Kit, reads: list[int]) -> None:
    parent = kit.running()
    kit.commit(parent, "before")
    start(kit, parent, "ab")
    first = kit.claim(f"{parent}.b-a", "wa")
    second = kit.claim(f"{parent}.b-b", "wb")
    [(record, memos)] = first.above
    assert (record["function"], set(memos)) == ("work", {"before", "x"})
    assert second.above == first.above
    assert reads == [1, 3, 1]  # the first is the claim of the run


def test_a_branch_of_a_newer_beginning_gets_what_is_new(
    kit: Kit, reads: list[int]
) -> None:
    parent = kit.running()
    kit.commit(parent, "caught")
    start(kit, parent, "abc")
    kit.claim(f"{parent}.b-a", "wa")
    kit.store.finish(f"{parent}.b-a", "wa", failed=True, outcome="{}")
    kit.claim(parent, "t2")
    kit.store.finish(parent, "t2", failed=True, outcome="{}", failed_step="x")
    kit.store.admin(parent, "retry")
    kit.claim(parent, "t3")
    kit.commit(parent, "new", "t3")
    start(kit, parent, "abc", "t3")
    del reads[:]
    [(_, memos)] = kit.claim(f"{parent}.b-b", "wb").above
    assert set(memos) == {"caught", "new", "x"}
    assert kit.claim(f"{parent}.b-c", "wc").above == ((_, memos),)
    assert reads == [1, 1]


def test_what_was_read_is_good_for_a_moment(
    kit: Kit, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(above, "GOOD", 0.0)
    parent = kit.running()
    start(kit, parent, "ab")
    kit.claim(f"{parent}.b-a", "wa")
    kit.claim(f"{parent}.b-b", "wb")
    assert reads == [1, 3, 3]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(above, "MAX_SIZE", 25)
    monkeypatch.setattr(above, "MAX_RUNS", 3)
    monkeypatch.setattr(above.time, "monotonic", lambda: 100.0)
    kept = RunsAbove()

    def keep(*runs: str, size: int = 1, read: float = 100.0) -> None:
        for run in runs:
            kept.keep(run, "t", (({}, {"a": "x" * size}),), read)

    def known(*runs: str) -> list[str]:
        return [run for run in runs if kept.find(run)]

    keep("a", "b", "c", "d")
    assert known("a", "b", "c", "d") == ["b", "c", "d"]
    keep("e", size=24)
    assert known("b", "c", "d", "e") == ["d", "e"]
    keep("f", size=26)
    assert known("d", "e", "f") == []
    keep("g", read=97.0)
    assert known("g") == []
