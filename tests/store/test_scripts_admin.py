"""``run_admin``: cancel, resume and retry, from outside."""

from __future__ import annotations

import pytest

from flask_durable.store.replies import Changed
from flask_durable.store.replies import Lost
from flask_durable.store.replies import Missing
from flask_durable.store.replies import NotOwner
from flask_durable.store.replies import WrongState
from flask_durable.store.run_store import after

from .kit import Kit


def in_state(kit: Kit, state: str) -> str:
    """Return a run that is in a state; memo ``done`` is done, ``broken`` failed."""
    run_id = kit.queued(timeout=7200)
    if state == "queued":
        return run_id
    kit.claim(run_id)
    kit.commit(run_id, "done")
    kit.commit(run_id, "broken", status="failed")
    if state == "suspended":
        kit.suspend(run_id, "sleep", after(900), step="nap", payload="sleep null")
    elif state == "paused":
        kit.suspend(run_id, "pause", after(0), payload="{}")
    elif state == "cancelled":
        kit.store.admin(run_id, "cancel")
    elif state in ("completed", "failed"):
        failed = state == "failed"
        kit.finish(run_id, failed=failed, outcome="{}", failed_step="broken")
    assert kit.status(run_id) == state
    return run_id


@pytest.mark.parametrize("state", ["queued", "running", "suspended", "paused"])
def test_any_unfinished_run_is_cancelled_at_once(kit: Kit, state: str) -> None:
    run_id = in_state(kit, state)

    reply = kit.store.admin(run_id, "cancel", reason="no need", events=["e"])

    record = kit.record(run_id)
    assert reply == Changed(0)
    assert (record["status"], record["reason"]) == ("cancelled", "no need")
    assert "finished" in record
    assert not {"token", "due", "waiting"} & set(record)
    assert kit.indexed(run_id) == ["cancelled"]
    assert kit.members("expire") == [run_id]
    assert kit.owed() == [f"event:{run_id}:0:0"]
    assert not kit.members("leases") + kit.members("timers") + kit.members("queued")


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_a_finished_run_is_not_cancelled(kit: Kit, state: str) -> None:
    run_id = in_state(kit, state)

    with kit.unchanged():
        reply = kit.store.admin(run_id, "cancel", events=["e"])
    assert reply == WrongState(state)


def test_a_cancelled_run_refuses_what_its_owner_still_writes(kit: Kit) -> None:
    run_id = in_state(kit, "running")
    kit.store.admin(run_id, "cancel")

    with kit.unchanged():
        with pytest.raises(NotOwner) as refused:
            kit.commit(run_id, "late")
        assert refused.value.cancelled
        with pytest.raises(NotOwner):
            kit.finish(run_id)
        assert kit.store.renew(kit.keys.root, [(run_id, "t1", 30)]) == [
            Lost(cancelled=True)
        ]


@pytest.mark.parametrize("action", ["cancel", "unstarted", "resume", "retry"])
def test_a_run_that_does_not_exist_is_missing(kit: Kit, action: str) -> None:
    with kit.unchanged():
        assert kit.store.admin("unknown", action) == Missing()


def test_a_run_that_never_started_is_cancelled_by_its_start_timeout(kit: Kit) -> None:
    run_id = kit.queued(start_timeout=10)
    kit.advance(11)

    assert kit.sweep().timeouts == [f"start:{run_id}"]
    assert kit.store.admin(run_id, "unstarted") == Changed(0)
    assert kit.status(run_id) == "cancelled"


def test_a_start_timeout_that_comes_late_leaves_the_run_and_its_timeout(
    kit: Kit,
) -> None:
    run_id = kit.queued(start_timeout=10, timeout=500)
    kit.advance(11)
    assert kit.sweep().timeouts == [f"start:{run_id}"]
    kit.claim(run_id)

    assert kit.store.admin(run_id, "unstarted") == WrongState("running")

    assert kit.status(run_id) == "running"
    assert kit.members("timers") == [f"timeout:{run_id}"]


def test_a_timeout_comes_back_until_the_run_is_finished(kit: Kit) -> None:
    run_id = kit.running(timeout=100)
    kit.advance(101)
    assert kit.sweep().timeouts == [f"timeout:{run_id}"]
    assert kit.sweep().timeouts == []
    kit.advance(6)
    assert kit.sweep().timeouts == [f"timeout:{run_id}"]

    assert kit.store.admin(run_id, "cancel", reason="timeout") == Changed(0)

    assert not kit.members("timers")


def test_a_timer_of_a_run_that_is_gone_can_be_forgotten(kit: Kit) -> None:
    kit.client.zadd(f"{kit.keys.root}:timers", {"timeout:gone": 1})

    kit.store.forget_timer("gone", "timeout:gone")

    assert kit.sweep().timeouts == []


@pytest.mark.parametrize(
    ("action", "states"),
    [("resume", ["paused"]), ("retry", ["failed", "cancelled"])],
)
@pytest.mark.parametrize(
    "state",
    ["queued", "running", "suspended", "paused", "completed", "failed", "cancelled"],
)
def test_only_a_run_in_the_right_state_is_queued_again(
    kit: Kit, action: str, states: list[str], state: str
) -> None:
    run_id = in_state(kit, state)
    before = kit.dump()

    reply = kit.store.admin(run_id, action)

    if state in states:
        record = kit.record(run_id)
        assert reply == Changed(int(record["queued_at"]))
        assert record["status"] == "queued"
        assert kit.owed() == [f"run:{run_id}"]
        assert kit.members("queued") == [run_id]
        assert kit.indexed(run_id) == ["queued"]
        assert not kit.members("expire")
        assert not {"reason", "failure", "finished", "token"} & set(record)
        assert (record["dispatches"], record["attempt"]) == ("0", "0")
        assert kit.claim(run_id, "t2").memos["done"].startswith("done")
    else:
        assert reply == WrongState(state)
        assert kit.dump() == before


def test_a_retry_repeats_only_the_step_that_ended_the_run(kit: Kit) -> None:
    run_id = kit.running()
    for step, status in (("a", "done"), ("caught", "failed"), ("last", "failed")):
        kit.commit(run_id, step, status=status)
    kit.finish(run_id, failed=True, outcome="{}", failed_step="last")

    kit.store.admin(run_id, "retry")

    assert set(kit.claim(run_id, "t2").memos) == {"a", "caught"}
    assert kit.record(run_id)["generation"] == "1"


def test_a_retry_of_a_failed_body_keeps_every_step(kit: Kit) -> None:
    run_id = kit.running()
    kit.commit(run_id, "a")
    kit.finish(run_id, failed=True, outcome="{}")

    kit.store.admin(run_id, "retry")

    assert set(kit.claim(run_id, "t2").memos) == {"a"}


def test_a_retried_run_has_its_whole_timeout_again(kit: Kit) -> None:
    run_id = kit.running(timeout=100)
    kit.finish(run_id, failed=True, outcome="{}")
    kit.advance(500)
    kit.store.admin(run_id, "retry")

    assert 95_000 < kit.score("timers", f"timeout:{run_id}") - kit.now() <= 100_000


def test_a_repeated_retry_does_not_retry_what_failed_again(kit: Kit) -> None:
    run_id = in_state(kit, "failed")
    args = (kit.keys.root, run_id, "retry", "request-1", "", 1000)
    first = kit.server.call("run_admin", *args)
    kit.claim(run_id, "t2")
    kit.finish(run_id, "t2", failed=True, outcome="{}")

    with kit.unchanged():
        assert kit.server.call("run_admin", *args) == first
    assert kit.status(run_id) == "failed"
    assert isinstance(kit.store.admin(run_id, "retry"), Changed)


def test_a_retry_of_a_generation_leaves_a_later_one_alone(kit: Kit) -> None:
    run_id = in_state(kit, "failed")

    assert isinstance(kit.store.admin(run_id, "retry", generation=0), Changed)
    kit.claim(run_id, "t2")
    kit.finish(run_id, "t2", failed=True, outcome="{}")
    with kit.unchanged():
        assert kit.store.admin(run_id, "retry", generation=0) == WrongState("failed")
    assert isinstance(kit.store.admin(run_id, "retry", generation=1), Changed)
