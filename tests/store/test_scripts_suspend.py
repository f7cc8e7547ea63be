"""``run_suspend``: reason, timer and the end of the lease are one write."""

from __future__ import annotations

import pytest

from flask_durable.store.replies import Changed
from flask_durable.store.replies import Committed
from flask_durable.store.replies import Delayed
from flask_durable.store.replies import NotOwner
from flask_durable.store.replies import Paused
from flask_durable.store.replies import Queued
from flask_durable.store.replies import Resolved
from flask_durable.store.replies import WrongState
from flask_durable.store.run_store import after
from flask_durable.store.run_store import at

from .kit import Kit


@pytest.mark.parametrize("how", ["sleep", "retry", "body", "handback"])
def test_a_suspended_run_is_owned_by_its_timer_alone(kit: Kit, how: str) -> None:
    run_id = kit.running()

    reply = kit.suspend(run_id, how, after(60), step="a", number=1, payload="run x")

    record = kit.record(run_id)
    assert reply == Delayed(int(record["due"]))
    assert (record["status"], record["reason"]) == ("suspended", how)
    assert kit.indexed(run_id) == ["suspended"]
    assert kit.members("timers") == [f"wake:{run_id}"]
    assert kit.score("timers", f"wake:{run_id}") == int(record["due"])
    assert "token" not in record
    assert not kit.members("leases") + kit.owed() + kit.members("queued")


@pytest.mark.parametrize("how", ["sleep", "retry", "body", "handback"])
def test_a_suspended_run_is_queued_when_it_is_due(kit: Kit, how: str) -> None:
    run_id = kit.running()
    kit.suspend(run_id, how, after(60), step="a", number=1, payload="run x")

    kit.advance(58)
    assert kit.swept_runs() == []
    kit.advance(3)
    assert kit.swept_runs() == [run_id]

    record = kit.record(run_id)
    assert record["status"] == "queued"
    assert not {"reason", "due", "waiting"} & set(record)
    assert kit.indexed(run_id) == ["queued"]
    assert not kit.members("timers")
    kit.claim(run_id, "t2")


def test_the_same_attempt_is_told_the_same_after_the_run_went_on(kit: Kit) -> None:
    run_id = kit.running()
    first = kit.suspend(run_id, "sleep", after(1), step="nap", payload="sleep null")
    kit.advance(2)
    kit.sweep()
    kit.claim(run_id, "t2")

    with kit.unchanged():
        again = kit.suspend(run_id, "sleep", after(1), step="nap", payload="sleep null")
    assert again == first


# -- Sleep ----------------------------------------------------------------------------


def test_the_end_of_a_sleep_is_fixed_when_it_is_first_reached(kit: Kit) -> None:
    run_id = kit.running()
    first = kit.suspend(run_id, "sleep", after(100), step="nap", payload="sleep null")
    assert isinstance(first, Delayed)
    due = first.due
    assert kit.memo(run_id, "nap") == f"waiting t1 {due} 0\nsleep null"
    kit.store.admin(run_id, "cancel")
    kit.store.admin(run_id, "retry")
    kit.claim(run_id, "t2")

    reply = kit.suspend(
        run_id, "sleep", after(999), "t2", step="nap", payload="sleep null"
    )

    assert reply == first
    assert kit.memo(run_id, "nap") == f"waiting t1 {due} 0\nsleep null"
    assert kit.score("timers", f"wake:{run_id}") == due


def test_a_sleep_that_was_over_by_then_is_resolved(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "sleep", after(100), step="nap", payload="sleep null")
    kit.store.admin(run_id, "cancel")
    kit.store.admin(run_id, "retry")
    kit.advance(101)
    kit.claim(run_id, "t2")

    reply = kit.suspend(
        run_id, "sleep", after(999), "t2", step="nap", payload="sleep null"
    )

    memo = kit.memo(run_id, "nap")
    assert memo is not None
    assert memo.startswith("done t2 ")
    assert reply == Resolved(memo)
    record = kit.record(run_id)
    assert (record["status"], record["token"]) == ("running", "t2")


def test_a_woken_sleep_keeps_when_it_ended(kit: Kit) -> None:
    run_id = kit.running()
    first = kit.suspend(run_id, "sleep", after(100), step="nap", payload="sleep null")
    assert isinstance(first, Delayed)
    due = first.due
    kit.client.zadd(f"{kit.keys.root}:timers", {f"wake:{run_id}": 1})
    kit.sweep()

    assert kit.memo(run_id, "nap") == f"done t1 {due} 0\nsleep null"


@pytest.mark.parametrize("due", [after(0), at(0), at(-86400), at(1e9)])
def test_a_sleep_until_the_past_does_not_suspend(kit: Kit, due: str) -> None:
    run_id = kit.running()
    kit.advance(kit.settings.lease - 1)

    reply = kit.suspend(run_id, "sleep", due, step="nap", payload="sleep null")

    assert kit.store.read(run_id)[1]["nap"].status == "done"
    memo = kit.memo(run_id, "nap")
    assert memo is not None
    assert reply == Resolved(memo)
    assert kit.score("leases", run_id) - kit.now() > (kit.settings.lease - 5) * 1000
    assert kit.commit(run_id, "nap", payload="run other") == Committed()
    assert kit.memo(run_id, "nap") == memo


def test_a_sleep_until_an_instant_ends_then(kit: Kit) -> None:
    run_id = kit.running()
    instant = kit.now() // 1000 + 5000

    reply = kit.suspend(run_id, "sleep", at(instant), step="nap", payload="sleep null")

    assert reply == Delayed(instant * 1000)


@pytest.mark.parametrize("outcome", ["done", "failed"])
@pytest.mark.parametrize("how", ["sleep", "retry"])
def test_what_is_there_already_is_not_waited_for(
    kit: Kit, outcome: str, how: str
) -> None:
    run_id = kit.running()
    kit.commit(run_id, "a", status=outcome)
    memo = kit.memo(run_id, "a")

    with kit.unchanged():
        reply = kit.suspend(run_id, how, after(60), step="a", number=1, payload="x")

    assert reply == Resolved(memo)
    assert kit.record(run_id)["token"] == "t1"


# -- Retry ----------------------------------------------------------------------------


def test_attempts_of_a_step_are_counted_one_by_one(kit: Kit) -> None:
    run_id = kit.running("t1")
    for number in (1, 2, 3):
        token = f"t{number}"
        kit.suspend(
            run_id,
            "retry",
            after(10),
            token,
            step="flaky",
            number=number,
            payload=f"run {number}",
        )
        assert kit.memo(run_id, "flaky") == f"tried {token} {number} 0\nrun {number}"
        kit.advance(11)
        kit.sweep()
        claim = kit.claim(run_id, f"t{number + 1}")
        assert claim.memos["flaky"].startswith(f"tried {token} {number}")

    kit.commit(run_id, "flaky", "t4", number=4)
    assert kit.memo_head(run_id, "flaky") == ["done", "t4", "4"]


def test_an_attempt_that_was_counted_is_not_counted_down(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "retry", after(1), step="a", number=3, payload="run third")
    kit.advance(2)
    kit.sweep()
    kit.claim(run_id, "t2")

    kit.suspend(run_id, "retry", after(1), "t2", step="a", number=2, payload="run old")

    assert kit.memo(run_id, "a") == "tried t1 3 0\nrun third"


def test_an_intent_becomes_a_failed_attempt(kit: Kit) -> None:
    run_id = kit.running()
    kit.commit(run_id, "a", status="intent")

    kit.suspend(run_id, "retry", after(1), step="a", number=1, payload="run f")

    assert kit.memo(run_id, "a") == "tried t1 1 0\nrun f"


# -- Body, handback, pause ------------------------------------------------------------


def test_a_failed_body_keeps_its_failure_and_attempt(kit: Kit) -> None:
    run_id = kit.running()

    kit.suspend(run_id, "body", after(10), number=2, payload='{"type":"E"}')

    record = kit.record(run_id)
    assert (record["attempt"], record["dispatches"]) == ("2", "0")
    assert record["failure"] == '{"type":"E"}'
    assert kit.store.read(run_id)[1] == {}
    kit.advance(11)
    kit.sweep()
    assert kit.claim(run_id, "t2").record["attempt"] == "2"
    kit.commit(run_id, "a", "t2")
    assert kit.record(run_id)["attempt"] == "0"


def test_a_run_that_is_handed_back_is_queued_at_once(kit: Kit) -> None:
    run_id = kit.running()

    reply = kit.suspend(run_id, "handback", after(0))

    record = kit.record(run_id)
    assert reply == Queued(int(record["queued_at"]))
    assert record["status"] == "queued"
    assert kit.owed() == [f"run:{run_id}"]
    assert kit.members("queued") == [run_id]
    assert "token" not in record
    assert not kit.members("leases")


@pytest.mark.parametrize("delay", [0, 1])
def test_a_hand_back_is_no_claim_without_progress(kit: Kit, delay: int) -> None:
    run_id = kit.queued()
    for number in range(kit.settings.max_dispatches + 2):
        kit.claim(run_id, f"t{number}")
        kit.suspend(run_id, "handback", after(delay), f"t{number}")
        kit.advance(delay + 1)
        kit.sweep()
    assert kit.record(run_id)["dispatches"] == "0"


def test_a_paused_run_waits_for_a_person(kit: Kit) -> None:
    run_id = kit.running(timeout=7200)
    kit.commit(run_id, "a")

    reply = kit.suspend(run_id, "pause", after(0), reason="look", payload="{}")

    record = kit.record(run_id)
    assert reply == Paused()
    assert (record["status"], record["reason"]) == ("paused", "look")
    assert record["failure"] == "{}"
    assert "token" not in record
    assert not kit.members("timers")
    assert not kit.members("leases") + kit.owed() + kit.members("queued")
    kit.advance(3600)
    assert kit.swept_runs() == []
    assert kit.memo(run_id, "a") is not None


@pytest.mark.parametrize("how", ["sleep", "retry", "body", "handback", "pause"])
def test_nobody_suspends_a_cancelled_run(kit: Kit, how: str) -> None:
    run_id = kit.running()
    kit.store.admin(run_id, "cancel")

    with kit.unchanged(), pytest.raises(NotOwner) as refused:
        kit.suspend(run_id, how, after(1), step="a", number=1, payload="x")
    assert refused.value.cancelled


# -- Timeouts of a paused run ---------------------------------------------------------


@pytest.mark.parametrize("how", ["pause", "claims", "deferred"])
def test_a_paused_runs_timeout_stands_still_until_it_is_resumed(
    kit: Kit, how: str
) -> None:
    if how == "pause":
        run_id = kit.running(timeout=100)
        kit.advance(40)
        kit.suspend(run_id, "pause", after(0), reason="look", payload="{}")
    else:
        run_id = kit.queued(timeout=100, start_timeout=90)
        kit.advance(40)
        key = f"{kit.keys.root}:run:{run_id}"
        if how == "claims":
            kit.client.hset(key, "dispatches", "5")
            assert kit.refused_claim(run_id) == Paused()
        else:
            kit.client.hset(key, "deferred_since", "1")
            assert kit.store.park(run_id) == Paused()
    kit.advance(3600)
    assert kit.sweep().timeouts == []

    kit.store.admin(run_id, "resume")

    kit.confirm(f"run:{run_id}")
    kit.advance(45)
    assert kit.sweep().timeouts == []
    kit.advance(16)
    assert f"timeout:{run_id}" in kit.sweep().timeouts
    assert isinstance(kit.store.admin(run_id, "timeout"), Changed)
    assert kit.status(run_id) == "cancelled"


def test_a_timeout_that_was_found_before_a_pause_does_not_cancel(kit: Kit) -> None:
    run_id = kit.running(timeout=10)
    kit.advance(11)
    assert kit.sweep().timeouts == [f"timeout:{run_id}"]
    kit.suspend(run_id, "pause", after(0), reason="look", payload="{}")

    with kit.unchanged():
        assert kit.store.admin(run_id, "timeout") == WrongState("paused")

    assert isinstance(kit.store.admin(run_id, "cancel"), Changed)


def test_what_was_left_of_a_timeout_is_not_kept_beyond_a_retry(kit: Kit) -> None:
    run_id = kit.running(timeout=100)
    kit.suspend(run_id, "pause", after(0), reason="look", payload="{}")
    kit.store.admin(run_id, "cancel")

    kit.store.admin(run_id, "retry")

    assert "timeout_left" not in kit.record(run_id)
    assert kit.members("timers") == [f"timeout:{run_id}"]
