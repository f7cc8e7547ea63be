"""``branches_list``, ``branches_start``, and the news of a branch's end to its step."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.store import branches
from flask_durable.store.branches import Children
from flask_durable.store.branches import NewBranch
from flask_durable.store.branches import NewGroup
from flask_durable.store.branches import read_branches
from flask_durable.store.branches import read_outcomes
from flask_durable.store.branches import start_branches
from flask_durable.store.branches import store_branches
from flask_durable.store.branches import StoredBranches
from flask_durable.store.replies import BranchesMade
from flask_durable.store.replies import Committed
from flask_durable.store.replies import Full
from flask_durable.store.replies import NotOwner
from flask_durable.store.replies import Orphan
from flask_durable.store.replies import Resolved

from .kit import Kit

HEAD = "group 1+0   "

Started = BranchesMade | Resolved | Full


def start(
    kit: Kit,
    parent: str,
    places: str,
    token: str = "t1",
    *,
    offset: int = 0,
    total: int = 0,
    until: int = 0,
    limit: int = 0,
    tolerate: int = 0,
    item: str = "1",
) -> Started:
    """Ask for a branch for each letter of *places*."""
    total = total or len(places)
    group = NewGroup(HEAD, "[]", total, until or total, limit or total, tolerate)
    asked = [NewBranch(place, f"{parent}.b-{place}", item) for place in places]
    return start_branches(kit.store, (parent, token), "x", group, offset, asked)


def made(reply: Started, *, more: bool = False) -> t.TypeGuard[BranchesMade]:
    return isinstance(reply, BranchesMade) and reply.more == more


def end(
    kit: Kit, parent: str, place: str, *, failed: bool = False, outcome: str = "1"
) -> tuple[int, str]:
    """Execute a branch; return the time and the branch that its end queued."""
    id = f"{parent}.b-{place}"
    kit.claim(id, f"w{place}")
    ended = kit.store.finish(id, f"w{place}", failed=failed, outcome=outcome)
    return ended.parent, ended.branch


def states(kit: Kit, parent: str, places: str) -> list[str | None]:
    return [kit.status(f"{parent}.b-{place}") for place in places]


def test_branches_are_queued_and_their_run_waits(kit: Kit) -> None:
    parent = kit.running()
    reply = start(kit, parent, "ab", item='"i"')

    assert made(reply)
    assert [id for id, _ in reply.queued] == [f"{parent}.b-a", f"{parent}.b-b"]
    record, branch = kit.record(parent), kit.record(f"{parent}.b-a")
    assert (record["status"], record["reason"]) == ("suspended", "branches")
    assert (record["waiting"], "token" in record) == ("x", False)
    assert kit.memo(parent, "x") == f"waiting t1 0 0\n{HEAD}[]"
    assert (branch["kind"], branch["place"], branch["item"]) == ("branch", "a", '"i"')
    assert (branch["function"], branch["queue"]) == (
        f"{record['function']}[branch]",
        record["queue"],
    )
    assert kit.owed() == [f"run:{parent}.b-a", f"run:{parent}.b-b"]
    assert kit.members("runs") == [parent]


def test_an_owner_that_lost_its_run_makes_no_branches(kit: Kit) -> None:
    parent = kit.running()
    kit.lose(parent)
    with kit.unchanged(), pytest.raises(NotOwner):
        start(kit, parent, "ab")


def test_a_step_with_an_outcome_makes_no_branches(kit: Kit) -> None:
    parent = kit.running()
    assert kit.commit(parent, "x") == Committed()
    assert start(kit, parent, "ab") == Resolved("done t1 1 0\nrun 1")
    assert states(kit, parent, "ab") == [None, None]


def test_a_full_run_makes_no_branches(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = kit.running()
    monkeypatch.setattr(branches, "MAX_MEMO_BYTES", 30)
    with kit.unchanged():
        assert start(kit, parent, "ab", item="x" * 16) == Full("bytes")
    monkeypatch.setattr(branches, "MAX_STEPS", 1)
    with kit.unchanged():
        assert start(kit, parent, "ab") == Full("steps")


def test_a_page_out_of_order_changes_nothing(kit: Kit) -> None:
    parent = kit.running()
    with kit.unchanged(), pytest.raises(NotOwner):
        start(kit, parent, "c", offset=2, total=3)


def test_the_last_branch_ends_the_step(kit: Kit) -> None:
    parent = kit.running()
    assert made(start(kit, parent, "a", total=2), more=True)
    assert kit.status(parent) == "running"
    assert end(kit, parent, "a", outcome='"A"') == (0, "")
    assert made(start(kit, parent, "b", offset=1, total=2))
    time, _ = end(kit, parent, "b", outcome='"B"')

    record = kit.record(parent)
    assert (record["status"], record["queued_at"]) == ("queued", str(time))
    assert kit.memo(parent, "x") == f"done t1 {time} 0\n{HEAD}[]"
    assert read_outcomes(kit.store, parent, "x").by_place == {
        "a": (True, '"A"'),
        "b": (True, '"B"'),
    }
    assert f"run:{parent}" in kit.owed()


def test_branches_that_end_before_the_last_page_resolve_it(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "ab", total=3, until=1)
    end(kit, parent, "a")
    assert kit.status(parent) == "running"
    reply = start(kit, parent, "c", offset=2, total=3, until=1)
    assert isinstance(reply, Resolved)
    assert reply.memo.startswith("done ")
    assert states(kit, parent, "c") == [None]
    assert read_outcomes(kit.store, parent, "x").decided == "a"


def test_a_limit_lets_the_next_branch_in_with_the_end_of_one(kit: Kit) -> None:
    parent = kit.running()
    reply = start(kit, parent, "abcd", limit=2)
    assert made(reply)
    assert [id[-1] for id, _ in reply.queued] == ["a", "b"]
    assert kit.record(f"{parent}.b-c")["reason"] == "limit"

    assert end(kit, parent, "b")[1] == f"{parent}.b-c"
    assert states(kit, parent, "abcd") == ["queued", "completed", "queued", "suspended"]
    assert f"run:{parent}.b-c" in kit.owed()


def test_a_cancelled_branch_that_waits_for_room_makes_none(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "abc", limit=1, tolerate=2)
    kit.store.admin(f"{parent}.b-b", "cancel")
    assert states(kit, parent, "abc") == ["queued", "cancelled", "suspended"]
    assert end(kit, parent, "a")[1] == f"{parent}.b-c"


def test_the_failure_that_decides_orphans_the_others(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "abcd", tolerate=1, limit=2)
    assert end(kit, parent, "a", failed=True, outcome='{"a":1}')[1] == f"{parent}.b-c"
    assert end(kit, parent, "b", failed=True, outcome='{"b":1}')[1] == ""

    memo = kit.memo(parent, "x") or ""
    assert memo.startswith("failed t1 ")
    assert memo.endswith(f'\n{HEAD}{{"b":1}}')
    assert read_outcomes(kit.store, parent, "x").decided == "b"
    named = kit.sweep().timeouts
    assert sorted(named) == [f"orphan:{parent}.b-c", f"orphan:{parent}.b-d"]
    assert kit.members(f"next:{parent}:x") == []
    # A message that comes first finds no work in it.
    assert kit.store.claim(f"{parent}.b-c", "late", version="", queued=0) == Orphan()
    for timer in named:
        kit.store.admin(timer.partition(":")[2], "orphaned")
    assert kit.sweep().timeouts == []


def test_a_branch_counts_once(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "abc")
    end(kit, parent, "a")
    with kit.unchanged():
        assert kit.store.finish(
            f"{parent}.b-a", "wa", failed=False, outcome="1"
        ) == kit.store.finish(f"{parent}.b-a", "wa", failed=False, outcome="1")
    group = kit.client.hgetall(f"{kit.keys.root}:group:{parent}:x")
    assert (group["ended"], group["under"]) == ("1", "2")


def test_a_new_owner_keeps_what_exists(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "ab", total=3)
    end(kit, parent, "a")
    kit.lose(parent)
    kit.claim(parent, "t2")
    reply = start(kit, parent, "ab", "t2", total=3)

    assert made(reply, more=True)
    assert [id[-1] for id, _ in reply.queued] == ["b"]
    start(kit, parent, "c", "t2", offset=2, total=3)
    end(kit, parent, "c")
    assert kit.status(parent) == "suspended"
    end(kit, parent, "b")
    assert kit.status(parent) == "queued"


def test_no_branch_is_an_orphan_while_a_new_owner_asks_for_them(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "ab", total=4)
    start(kit, parent, "c", offset=2, total=4)
    kit.lose(parent)
    for place in "bc":
        kit.claim(f"{parent}.b-{place}", f"w{place}")
    kit.claim(parent, "t2")
    start(kit, parent, "a", "t2", total=2)
    assert kit.sweep().timeouts == []
    for place in "bc":
        kit.store.admin(f"{parent}.b-{place}", "orphaned")
    assert states(kit, parent, "bc") == ["running", "running"]

    start(kit, parent, "b", "t2", offset=1, total=2)
    assert kit.sweep().timeouts == [f"orphan:{parent}.b-c"]


def test_a_new_owner_with_a_shorter_list_waits_for_that_alone(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "abc", total=4)
    kit.lose(parent)
    kit.claim(parent, "t2")
    start(kit, parent, "a", "t2")
    assert kit.store.claim(f"{parent}.b-b", "l", version="", queued=0) == Orphan()
    end(kit, parent, "a")
    assert kit.status(parent) == "queued"


def test_orphans_behind_many_branches_are_named(kit: Kit) -> None:
    parent = kit.running()
    places = "".join([chr(ord("A") + number) for number in range(150)])
    start(kit, parent, places, total=151)
    kit.lose(parent)
    kit.claim(parent, "t2")
    start(kit, parent, places[:120], "t2")
    named = {timer.rpartition("b-")[2] for timer in kit.sweep().timeouts}
    assert named == set(places[120:])


def test_a_retried_run_revives_what_failed_and_keeps_what_is_done(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "abc")
    end(kit, parent, "a", outcome='"A"')
    kit.claim(f"{parent}.b-b", "wb")
    kit.commit(f"{parent}.b-b", "kept", "wb")
    kit.commit(f"{parent}.b-b", "bad", "wb", status="failed")
    kit.store.finish(
        f"{parent}.b-b", "wb", failed=True, outcome="{}", failed_step="bad"
    )
    kit.claim(parent, "t2")
    kit.store.finish(parent, "t2", failed=True, outcome="{}", failed_step="x")
    kit.store.admin(f"{parent}.b-c", "orphaned")
    kit.store.admin(parent, "retry")
    kit.claim(parent, "t3")
    reply = start(kit, parent, "abc", "t3", item="22")

    assert made(reply)
    assert [id[-1] for id, _ in reply.queued] == ["b", "c"]
    assert kit.memo(f"{parent}.b-b", "kept")
    assert kit.memo(f"{parent}.b-b", "bad") is None
    assert kit.record(f"{parent}.b-b")["item"] == "22"
    assert f"{parent}.b-b" not in kit.members("expire")
    for place in "bc":
        id = f"{parent}.b-{place}"
        kit.claim(id, f"v{place}")
        kit.store.finish(id, f"v{place}", failed=False, outcome='"new"')
    found = read_outcomes(kit.store, parent, "x").by_place
    assert [found[place][1] for place in "abc"] == ['"A"', '"new"', '"new"']
    assert kit.status(parent) == "queued"


def test_an_unknown_outcome_in_a_branch_is_not_forgotten_by_a_retry(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "a")
    kit.claim(f"{parent}.b-a", "wa")
    kit.commit(f"{parent}.b-a", "once", "wa", status="failed")
    kit.store.finish(
        f"{parent}.b-a",
        "wa",
        failed=True,
        outcome="{}",
        failed_step="once",
        reason="outcome unknown",
    )
    kit.claim(parent, "t2")
    kit.store.finish(parent, "t2", failed=True, outcome="{}", failed_step="x")
    kit.store.admin(parent, "retry")
    kit.claim(parent, "t3")
    start(kit, parent, "a", "t3")
    assert kit.status(f"{parent}.b-a") == "queued"
    assert kit.memo_head(f"{parent}.b-a", "once")[0] == "failed"


def test_a_result_that_comes_late_counts_after_a_retry(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "ab")
    kit.claim(f"{parent}.b-b", "wb")
    end(kit, parent, "a", failed=True, outcome="{}")
    late = kit.store.finish(f"{parent}.b-b", "wb", failed=False, outcome="2")
    assert late.parent == 0
    kit.claim(parent, "t2")
    kit.store.finish(parent, "t2", failed=True, outcome="{}", failed_step="x")
    kit.store.admin(parent, "retry")
    kit.claim(parent, "t3")
    reply = start(kit, parent, "ab", "t3")
    assert made(reply)
    assert [id[-1] for id, _ in reply.queued] == ["a"]


def test_results_that_have_no_room_fail_their_branch(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "MAX_MEMO_BYTES", 500)
    parent = kit.running()
    start(kit, parent, "ab")
    end(kit, parent, "a", outcome="1" * 500)
    assert "larger than 32 MiB" in (kit.memo(parent, "x") or "")
    assert kit.status(parent) == "queued"


def test_a_removed_run_leaves_nothing_of_its_branches(kit: Kit) -> None:
    parent = kit.running()
    start(kit, parent, "ab", limit=1)
    end(kit, parent, "a")
    end(kit, parent, "b")
    kit.claim(parent, "t2")
    kit.finish(parent, "t2")
    for _ in range(2):
        kit.advance(kit.settings.failed_retention + 1)
        kit.sweep()
    assert kit.mentions(parent) == []


# -- The list of a step that takes several pages ---------------------------------------


def keep(
    kit: Kit,
    parent: str,
    places: str,
    token: str = "t1",
    *,
    offset: int = 0,
    total: int = 0,
    size: int = 0,
) -> Committed | Full:
    """Store a branch for each letter of *places*."""
    total = total or len(places)
    group = NewGroup(HEAD, "[]", total, total, total, 0)
    return store_branches(
        kit.store, (parent, token), "x", group, offset, asked(parent, places), size
    )


def asked(parent: str, places: str) -> list[NewBranch]:
    return [NewBranch(place, f"{parent}.b-{place}", f'"{place}"') for place in places]


def kept(kit: Kit, parent: str, generation: str = "0") -> StoredBranches | None:
    return read_branches(kit.store, parent, "x", generation)


def test_a_list_is_found_when_it_is_complete(kit: Kit) -> None:
    parent = kit.running()
    assert kept(kit, parent) is None
    assert keep(kit, parent, "ab", total=3) == Committed()
    assert kept(kit, parent) is None
    assert keep(kit, parent, "c", offset=2, total=3) == Committed()
    assert kept(kit, parent) == StoredBranches("[]", asked(parent, "abc"))
    assert kept(kit, parent, generation="1") is None  # the run was retried since
    assert states(kit, parent, "abc") == [None, None, None]


def test_the_events_of_children_are_in_the_list(kit: Kit) -> None:
    parent = kit.running()
    child = NewBranch("a", f"{parent}.ca", "{}", ("e1", "film/cut"))
    group = NewGroup(HEAD, "1", 1, 1, 1, 0, CUT)
    store_branches(kit.store, (parent, "t1"), "x", group, 0, [child], 2)
    assert kept(kit, parent) == StoredBranches("1", [child])


def test_an_owner_that_lost_its_run_stores_no_list(kit: Kit) -> None:
    parent = kit.running()
    keep(kit, parent, "ab")
    kit.lose(parent)
    with kit.unchanged(), pytest.raises(NotOwner):
        keep(kit, parent, "cd")


def test_a_list_that_is_not_complete_is_written_over(kit: Kit) -> None:
    parent = kit.running()
    keep(kit, parent, "ab", total=4)
    kit.lose(parent)
    kit.claim(parent, "t2")
    with kit.unchanged(), pytest.raises(NotOwner):
        keep(kit, parent, "cd", "t2", offset=2, total=4)
    keep(kit, parent, "ef", "t2", total=4)
    keep(kit, parent, "gh", "t2", offset=2, total=4)
    assert kept(kit, parent) == StoredBranches("[]", asked(parent, "efgh"))


def test_a_list_without_room_is_not_stored(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = kit.running()
    with kit.unchanged():
        assert keep(kit, parent, "ab", size=32 * 1024 * 1024 + 1) == Full("bytes")
    monkeypatch.setattr(branches, "MAX_STEPS", 2)
    with kit.unchanged():
        assert keep(kit, parent, "ab", total=3) == Full("steps")
    assert keep(kit, parent, "ab", size=32 * 1024 * 1024) == Committed()


def test_items_of_branches_that_exist_are_not_counted_twice(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = kit.running()
    start(kit, parent, "a", total=2, item="x" * 60)
    monkeypatch.setattr(branches, "MAX_MEMO_BYTES", 100)
    assert keep(kit, parent, "ab", size=90) == Committed()
    with kit.unchanged():
        assert keep(kit, parent, "abc", size=101) == Full("bytes")


def test_the_last_page_of_branches_removes_the_list(kit: Kit) -> None:
    parent = kit.running()
    keep(kit, parent, "ab")
    assert made(start(kit, parent, "a", total=2), more=True)
    assert kept(kit, parent) is not None
    assert made(start(kit, parent, "b", offset=1, total=2))
    assert kept(kit, parent) is None


def test_the_outcome_of_the_step_removes_the_list(kit: Kit) -> None:
    parent = kit.running()
    keep(kit, parent, "ab")
    start(kit, parent, "a", total=2)
    end(kit, parent, "a", failed=True, outcome="{}")
    assert kept(kit, parent) is None


def test_a_removed_run_leaves_nothing_of_its_list(kit: Kit) -> None:
    parent = kit.running()
    keep(kit, parent, "ab")
    kit.finish(parent, "t1")
    for _ in range(2):
        kit.advance(kit.settings.failed_retention + 1)
        kit.sweep()
    assert kit.mentions(parent) == []


# -- Children in the place of branches -------------------------------------------------

CUT = Children("cut", "films", timeout=60, start_timeout=10, version="v2", quiet=True)


def start_children(
    kit: Kit,
    parent: str,
    places: str,
    token: str = "t1",
    *,
    limit: int = 9,
    event: str = "{}",
    children: Children = CUT,
) -> Started:
    """Ask for a child for each letter of *places*."""
    total = len(places)
    group = NewGroup(HEAD, "[]", total, total, limit, 0, children)
    asked = [
        NewBranch(place, f"{parent}.c{place}", event, (f"e{place}", "film/cut"))
        for place in places
    ]
    return start_branches(kit.store, (parent, token), "x", group, 0, asked)


def test_a_child_of_a_group_is_a_run_of_its_function(kit: Kit) -> None:
    parent = kit.running()
    reply = start_children(kit, parent, "ab", event='{"n": 1}')

    assert made(reply)
    assert [id for id, _ in reply.queued] == [f"{parent}.ca", f"{parent}.cb"]
    child = kit.record(f"{parent}.cb")
    assert (child["kind"], child["function"], child["queue"]) == (
        "child",
        "cut",
        "films",
    )
    assert (child["event"], child["event_id"], child["event_name"]) == (
        '{"n": 1}',
        "eb",
        "film/cut",
    )
    assert (child["parent"], child["parent_function"]) == (parent, "work")
    assert (child["version"], child["quiet"], child["timeout"]) == ("v2", "1", "60000")
    assert "item" not in child
    assert {"timeout_left", "start_left"}.isdisjoint(child)
    assert set(kit.members("runs")) == {parent, f"{parent}.ca", f"{parent}.cb"}
    assert set(kit.members("timers")) >= {f"timeout:{parent}.ca", f"start:{parent}.ca"}


def test_the_clocks_of_a_child_begin_with_its_room(kit: Kit) -> None:
    parent = kit.running()
    start_children(kit, parent, "ab", limit=1)
    later = f"{parent}.cb"
    assert kit.record(later)["timeout_left"] == "60000"
    assert f"timeout:{later}" not in kit.members("timers")

    kit.claim(f"{parent}.ca", "wa")
    ended = kit.store.finish(f"{parent}.ca", "wa", failed=False, outcome="1")
    assert (ended.branch, kit.status(later)) == (later, "queued")
    assert set(kit.members("timers")) >= {f"timeout:{later}", f"start:{later}"}
    assert "timeout_left" not in kit.record(later)


def test_a_child_that_nobody_waits_for_is_not_claimed(kit: Kit) -> None:
    parent = kit.running()
    start_children(kit, parent, "ab")
    kit.claim(f"{parent}.ca", "wa")
    kit.store.finish(f"{parent}.ca", "wa", failed=True, outcome="{}")
    with kit.unchanged():
        claimed = kit.store.claim(f"{parent}.cb", "wb", version="v", queued=0)
        assert claimed == Orphan()


def test_a_child_that_was_retried_by_itself_is_asked_for_again(kit: Kit) -> None:
    parent = kit.running()
    start_children(kit, parent, "abc")
    kit.claim(f"{parent}.ca", "wa")
    kit.store.finish(f"{parent}.ca", "wa", failed=True, outcome="{}")
    kit.claim(parent, "t2")
    kit.store.finish(parent, "t2", failed=True, outcome="{}", failed_step="x")
    kit.store.admin(f"{parent}.ca", "retry")
    kit.claim(f"{parent}.ca", "wa2")  # not an orphan
    kit.store.finish(f"{parent}.ca", "wa2", failed=False, outcome='"again"')
    assert read_outcomes(kit.store, parent, "x").by_place["a"] == (False, "{}")

    kit.store.admin(parent, "retry")
    kit.claim(parent, "t3")
    assert made(start_children(kit, parent, "abc", "t3"))
    assert read_outcomes(kit.store, parent, "x").by_place["a"] == (True, '"again"')


def test_children_of_a_group_count_as_runs(kit: Kit) -> None:
    parent = kit.running()
    start_children(kit, parent, "ab")
    for place, failed in (("a", False), ("b", True)):
        kit.claim(f"{parent}.c{place}", f"w{place}")
        kit.store.finish(
            f"{parent}.c{place}", f"w{place}", failed=failed, outcome='"o"'
        )
    kit.claim(parent, "t2")
    kit.store.finish(parent, "t2", failed=True, outcome="{}", failed_step="x")
    kit.store.admin(parent, "retry")
    kit.claim(parent, "t3")
    start_children(kit, parent, "ab", "t3")
    totals = kit.store.server.client.hgetall(f"{kit.tag(parent)}:totals")
    assert {name: n for name, n in totals.items() if name.startswith("cut:")} == {
        "cut:started": "3",
        "cut:completed": "1",
        "cut:failed": "1",
    }
    revived = kit.record(f"{parent}.cb")
    assert (revived["status"], revived["generation"]) == ("queued", "1")
    assert f"timeout:{parent}.cb" in kit.members("timers")
