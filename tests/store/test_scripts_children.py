"""``child_start``, and what the end of a run tells its parent and its children."""

from __future__ import annotations

import contextlib
import typing as t

import pytest

from flask_durable.store.children import NewChild
from flask_durable.store.children import start_child
from flask_durable.store.children import unfinished_children
from flask_durable.store.replies import Changed
from flask_durable.store.replies import ChildStarted
from flask_durable.store.replies import Committed
from flask_durable.store.replies import Full
from flask_durable.store.replies import NotOwner
from flask_durable.store.replies import Resolved
from flask_durable.store.replies import WrongState

from .kit import Kit

HEAD = "invoke 1+0   "
EXPIRED = '{"type":"InvokeTimeout"}'
CANCELLED = (
    '{"type":"RunCancelled","message":"the run was cancelled","code":"run.cancelled"}'
)


def start(
    kit: Kit,
    parent: str,
    child: str,
    token: str = "t1",
    wait: float | None = None,
    step: str = "call",
    **given: t.Any,
) -> ChildStarted | Resolved | Full:
    new = NewChild(child, "callee", "media", "{}", "e1", "a/b", **given)
    return start_child(
        kit.store, (parent, token), step, new, wait=wait, head=HEAD, expired=EXPIRED
    )


def family(kit: Kit, wait: float | None = None) -> tuple[str, str]:
    """Return a run that waits for a child, and the child."""
    parent = kit.running()
    child = f"{parent}.c1"
    assert isinstance(start(kit, parent, child, wait=wait), ChildStarted)
    return parent, child


def test_a_child_is_queued_and_its_parent_waits_for_it(kit: Kit) -> None:
    parent = kit.running()
    reply = start(kit, parent, f"{parent}.c", timeout=5, start_timeout=3, version="v")

    record, child = kit.record(parent), kit.record(f"{parent}.c")
    assert reply == ChildStarted(int(child["created"]))
    assert (record["status"], record["reason"]) == ("suspended", "child")
    assert "due" not in record
    assert (record["waiting"], record["becomes"]) == ("call", "failed")
    assert "token" not in record
    assert kit.memo(parent, "call") == f"waiting t1 0 0\n{HEAD}{EXPIRED}"
    assert (child["status"], child["kind"]) == ("queued", "child")
    assert (child["parent"], child["parent_step"]) == (parent, "call")
    assert (child["function"], child["queue"], child["version"]) == (
        "callee",
        "media",
        "v",
    )
    assert set(kit.members("timers")) == {f"timeout:{parent}.c", f"start:{parent}.c"}
    assert kit.owed() == [f"run:{parent}.c"]
    assert unfinished_children(kit.store, parent) == [f"{parent}.c"]


def test_an_owner_that_lost_its_run_starts_no_child(kit: Kit) -> None:
    parent = kit.running()
    kit.lose(parent)
    with kit.unchanged(), pytest.raises(NotOwner):
        start(kit, parent, f"{parent}.c")
    kit.store.admin(parent, "cancel")
    with kit.unchanged(), pytest.raises(NotOwner) as caught:
        start(kit, parent, f"{parent}.c")
    assert caught.value.cancelled


def test_a_step_with_an_outcome_starts_no_child(kit: Kit) -> None:
    parent = kit.running()
    assert kit.commit(parent, "call") == Committed()
    reply = start(kit, parent, f"{parent}.c")
    assert reply == Resolved("done t1 1 0\nrun 1")
    assert kit.status(parent) == "running"
    assert kit.record(f"{parent}.c") == {}


def test_a_full_run_starts_no_child(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    from flask_durable.store import children

    parent = kit.running()
    monkeypatch.setattr(children, "MAX_MEMO_BYTES", 10)
    with kit.unchanged():
        assert start(kit, parent, f"{parent}.c") == Full("bytes")
    monkeypatch.setattr(children, "MAX_STEPS", 0)
    with kit.unchanged():
        assert start(kit, parent, f"{parent}.c") == Full("steps")


@pytest.mark.parametrize(
    ("failed", "outcome", "status"), [(False, '"x"', "done"), (True, "{}", "failed")]
)
def test_the_end_of_a_child_answers_the_step_and_queues_its_parent(
    kit: Kit, failed: bool, outcome: str, status: str
) -> None:
    parent, child = family(kit, wait=60)
    kit.claim(child, "c1")
    finished = kit.store.finish(child, "c1", failed=failed, outcome=outcome)

    record = kit.record(parent)
    assert record["status"] == "queued"
    assert finished.parent == int(record["queued_at"])
    memo = kit.memo(parent, "call")
    assert memo is not None
    head, _, payload = memo.partition("\n")
    assert head == f"{status} t1 {record['queued_at']} 0"
    assert payload == HEAD + outcome
    assert not {"waiting", "becomes", "due", "reason"} & record.keys()
    assert kit.members("parents") == []
    assert f"run:{parent}" in kit.owed()
    assert unfinished_children(kit.store, parent) == []
    assert kit.members(f"children:{parent}") == [child]


def test_a_cancelled_child_answers_with_a_failure(kit: Kit) -> None:
    parent, child = family(kit)
    reply = kit.store.admin(child, "cancel")
    assert reply == Changed(int(kit.record(parent)["queued_at"]))
    memo = kit.memo(parent, "call") or ""
    assert memo.startswith("failed ")
    assert '"code":"run.cancelled"' in memo


def test_the_end_of_the_wait_answers_first_and_orphans_the_child(kit: Kit) -> None:
    parent, child = family(kit, wait=60)
    kit.claim(child, "c1")
    kit.advance(61)
    swept = kit.sweep()

    assert kit.memo_head(parent, "call")[0] == "failed"
    assert (kit.memo(parent, "call") or "").endswith(HEAD + EXPIRED)
    assert kit.status(parent) == "queued"
    assert swept.timeouts == [f"orphan:{child}"]
    # A late end changes nothing: the first answer stands.
    memo = kit.memo(parent, "call")
    assert kit.store.finish(child, "c1", failed=False, outcome="1").parent == 0
    assert kit.memo(parent, "call") == memo


def test_a_child_that_is_awaited_is_no_orphan(kit: Kit) -> None:
    _, child = family(kit)
    with kit.unchanged():
        assert kit.store.admin(child, "orphaned") == WrongState("queued")


def test_a_run_that_ends_leaves_orphans_until_they_have_ended(kit: Kit) -> None:
    parent, child = family(kit)
    kit.store.admin(parent, "cancel")
    for _ in range(2):
        assert kit.sweep().timeouts == [f"orphan:{child}"]
        kit.advance(6)
    assert isinstance(kit.store.admin(child, "orphaned"), Changed)
    assert kit.sweep().timeouts == []
    assert kit.members("timers") == []


def test_a_sweep_names_more_orphans_than_a_page_in_further_rounds(kit: Kit) -> None:
    parent, _ = family(kit)
    tag = kit.keys.root
    kit.store.admin(parent, "cancel")
    for number in range(150):  # as a fan-out leaves them
        child = kit.queued()
        fields = {"parent": parent, "parent_step": "x", "parent_generation": "0"}
        kit.client.hset(f"{tag}:run:{child}", mapping=fields)
        kit.client.zadd(f"{tag}:unfinished:{parent}", {child: number})
    named = set()
    for _ in range(2):
        swept = kit.sweep()
        named.update(swept.timeouts)
        assert swept.more == (len(swept.timeouts) == 100)
        for timer in swept.timeouts:
            kit.store.admin(timer.partition(":")[2], "orphaned")
    assert len(named) == 151


def test_runs_that_leave_many_orphans_share_one_page(kit: Kit) -> None:
    tag = kit.keys.root
    for _ in range(3):
        parent, _ = family(kit)
        for number in range(60):
            child = kit.queued()
            fields = {"parent": parent, "parent_step": "x", "parent_generation": "0"}
            kit.client.hset(f"{tag}:run:{child}", mapping=fields)
            kit.client.zadd(f"{tag}:unfinished:{parent}", {child: number})
        kit.store.admin(parent, "cancel")
    named: list[str] = []
    while len(named) < 3 * 61:
        swept = kit.sweep()
        assert 0 < len(swept.timeouts) <= 100
        named += swept.timeouts
        assert swept.more == (len(swept.timeouts) == 100)
        for timer in swept.timeouts:
            kit.store.admin(timer.partition(":")[2], "orphaned")
    assert len(set(named)) == 3 * 61


def test_an_old_child_neither_answers_nor_outlives_a_retried_parent(kit: Kit) -> None:
    parent, old = family(kit)
    kit.claim(old, "c1")
    kit.store.admin(parent, "cancel")
    kit.store.admin(parent, "retry")
    kit.claim(parent, "t2")
    assert isinstance(start(kit, parent, f"{parent}.c2", "t2"), ChildStarted)
    before = kit.memo(parent, "call")
    assert kit.sweep().timeouts == [f"orphan:{old}"]

    assert kit.store.finish(old, "c1", failed=False, outcome='"old"').parent == 0

    assert kit.memo(parent, "call") == before
    assert kit.status(parent) == "suspended"


def test_a_child_that_is_retried_by_itself_is_nobodys(kit: Kit) -> None:
    parent, child = family(kit)
    kit.claim(child, "c1")
    kit.store.finish(child, "c1", failed=True, outcome="{}")
    kit.claim(parent, "t2")
    kit.store.admin(child, "retry")
    kit.claim(child, "c2")
    memo = kit.memo(parent, "call")

    assert kit.store.finish(child, "c2", failed=False, outcome='"late"').parent == 0
    assert kit.memo(parent, "call") == memo


def test_a_child_of_a_removed_run_is_none_of_the_run_that_has_its_id(kit: Kit) -> None:
    run = kit.new_run()
    parent, old = run.id, f"{run.id}.old"
    kit.create(run)
    kit.claim(parent)
    start(kit, parent, old)
    kit.claim(old, "c1")
    kit.store.finish(old, "c1", failed=True, outcome="{}")
    kit.claim(parent, "t2")
    kit.finish(parent, "t2")
    kit.advance(kit.settings.retention + 1)
    kit.sweep()
    # The same event comes again after the retention, and the old child is retried.
    kit.create(run)
    kit.claim(parent, "t3")
    start(kit, parent, f"{parent}.new", "t3")
    kit.store.admin(old, "retry")
    kit.claim(old, "c2")
    memo = kit.memo(parent, "call")

    assert kit.store.finish(old, "c2", failed=False, outcome='"old"').parent == 0
    assert kit.memo(parent, "call") == memo


def test_a_run_is_kept_until_its_children_have_ended(kit: Kit) -> None:
    parent, child = family(kit)
    kit.store.admin(parent, "cancel")
    kit.advance(kit.settings.failed_retention + 1)
    kit.sweep()
    assert kit.status(parent) == "cancelled"

    kit.store.admin(child, "orphaned")
    kit.advance(61)
    kit.sweep()
    assert kit.status(parent) is None
    assert kit.members(f"children:{parent}") == []


def test_objects_of_a_child_are_kept_as_long_as_its_parent(kit: Kit) -> None:
    parent, child = family(kit)
    kit.claim(child, "c1")
    kit.store.hold(child, "c1")
    kit.store.finish(child, "c1", failed=False, outcome='"blob:…"')
    kit.advance(kit.settings.retention + 1)
    assert kit.sweep().expiring == []
    kit.claim(parent, "t2")
    kit.finish(parent, "t2")
    kit.advance(kit.settings.retention + 1)
    kit.sweep()
    assert kit.status(parent) is None
    kit.advance(3601)
    assert kit.sweep().expiring == [child]


def test_a_removed_child_leaves_the_index_of_its_parent(kit: Kit) -> None:
    parent, child = family(kit)
    kit.claim(child, "c1")
    kit.store.finish(child, "c1", failed=False, outcome="1")
    kit.advance(kit.settings.retention + 1)
    kit.sweep()
    assert kit.mentions(child) == []
    assert kit.status(parent) == "queued"


@contextlib.contextmanager
def older_release(kit: Kit, child: str) -> t.Iterator[None]:
    """Let a child end as under a release that knows no parents."""
    key = f"{kit.keys.root}:run:{child}"
    parent = kit.record(child)["parent"]
    kit.client.hdel(key, "parent")
    yield
    kit.client.hset(key, "parent", parent)


@pytest.mark.parametrize(
    ("how", "memo"),
    [
        ("completed", f'done t1 NOW 0\n{HEAD}"x"'),
        ("failed", f"failed t1 NOW 0\n{HEAD}{{}}"),
        ("cancelled", f"failed t1 NOW 0\n{HEAD}{CANCELLED}"),
    ],
)
def test_a_sweep_hears_of_a_child_that_ended_under_an_older_release(
    kit: Kit, how: str, memo: str
) -> None:
    parent, child = family(kit)
    with older_release(kit, child):
        if how == "cancelled":
            kit.store.admin(child, "cancel")
        else:
            kit.claim(child, "c1")
            outcome = '"x"' if how == "completed" else "{}"
            kit.store.finish(child, "c1", failed=how == "failed", outcome=outcome)
    assert kit.status(parent) == "suspended"
    kit.advance(61)
    kit.sweep()

    record = kit.record(parent)
    assert record["status"] == "queued"
    assert kit.memo(parent, "call") == memo.replace("NOW", record["queued_at"])
    assert kit.members("parents") == []
    assert unfinished_children(kit.store, parent) == []


def test_a_run_goes_on_without_a_child_that_is_gone(kit: Kit) -> None:
    parent, child = family(kit)
    with older_release(kit, child):
        kit.store.admin(child, "cancel")
    kit.client.delete(f"{kit.keys.root}:run:{child}")
    kit.advance(61)
    kit.sweep()
    assert kit.status(parent) == "queued"
    memo = kit.memo(parent, "call") or ""
    assert memo.startswith("failed t1 ")
    assert f'\n{HEAD}{{"type":"RunNotFound"' in memo


def test_a_run_is_removed_although_a_child_ended_under_an_older_release(
    kit: Kit,
) -> None:
    parent, child = family(kit)
    kit.store.admin(parent, "cancel")
    with older_release(kit, child):
        kit.store.admin(child, "cancel")
    kit.advance(kit.settings.failed_retention + 1)
    kit.sweep()
    kit.advance(61)
    kit.sweep()
    assert kit.status(parent) is None


def test_a_run_that_waits_for_a_child_is_looked_at_less_and_less_often(
    kit: Kit,
) -> None:
    parent, child = family(kit)
    intervals = []
    for _ in range(9):
        kit.sweep()
        left = kit.score("parents", f"look:{parent}") - kit.now()
        intervals.append(round(left / 60_000))
        kit.advance(left / 1000 + 0.1)
        created = kit.client.zscore(f"{kit.keys.root}:unfinished:{parent}", child)
        assert created is not None
        kit.client.zincrby(f"{kit.keys.root}:unfinished:{parent}", -left - 100, child)
    assert intervals == [1, 1, 2, 4, 8, 16, 32, 60, 60]
    assert kit.status(parent) == "suspended"


def test_the_end_of_a_wait_for_a_child_is_no_timer(kit: Kit) -> None:
    """The sweep of an older release would make a result of the failure."""
    parent, _ = family(kit, wait=60)
    assert kit.members("timers") == []
    assert kit.members("parents") == [f"end:{parent}", f"look:{parent}"]
    kit.store.admin(parent, "cancel")
    assert kit.members("parents") == []
