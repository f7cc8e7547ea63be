"""``run_claim``, ``run_park`` and ``lease_renew``: who owns a run."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.runs.model import Claim
from flask_durable.store.replies import Deferred
from flask_durable.store.replies import Lost
from flask_durable.store.replies import NotOwner
from flask_durable.store.replies import NotQueued
from flask_durable.store.replies import Paused
from flask_durable.store.replies import Renewed
from flask_durable.store.run_store import after
from flask_durable.store.run_store import RENEW_LIMIT

from .kit import Kit
from .kit import LEASE

DAY = 24 * 3600


def test_a_claim_takes_the_run_and_reads_all_of_it(kit: Kit) -> None:
    run_id = kit.queued(event='{"x": 1}')

    claim = kit.claim(run_id, "t1")

    assert claim.record == kit.record(run_id)
    assert claim.record["token"] == "t1"
    assert claim.record["dispatches"] == "1"
    assert claim.record["version"] == "v1"
    assert claim.memos == {}
    assert kit.indexed(run_id) == ["running"]
    assert kit.members("leases") == [run_id]
    assert not kit.owed() + kit.members("queued")


def test_a_second_claim_finds_that_the_run_is_taken(kit: Kit) -> None:
    run_id = kit.running("t1")

    with kit.unchanged():
        assert isinstance(kit.refused_claim(run_id, "t2"), NotQueued)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "suspended"])
def test_a_late_message_of_a_run_that_is_not_queued_is_harmless(
    kit: Kit, end: str
) -> None:
    run_id = kit.running()
    if end == "cancelled":
        kit.store.admin(run_id, "cancel")
    elif end == "suspended":
        kit.suspend(run_id, "body", after(60), number=1, payload="{}")
    else:
        kit.finish(run_id, failed=end == "failed", outcome="{}")

    with kit.unchanged():
        assert isinstance(kit.refused_claim(run_id, "t2"), NotQueued)


def test_a_message_of_an_unknown_run_is_harmless(kit: Kit) -> None:
    with kit.unchanged():
        assert kit.refused_claim("unknown") == NotQueued("")
        assert kit.store.park("unknown") == NotQueued("")


def test_a_claim_brings_the_memos(kit: Kit) -> None:
    run_id = kit.running()
    for number in range(20):
        kit.commit(run_id, f"step {number}", payload=f"run {number}")
    kit.suspend(run_id, "handback", after(0))

    memos = kit.claim(run_id, "t2").memos

    assert len(memos) == 20
    assert memos["step 7"] == "done t1 1 7\nrun 7"


def test_a_run_that_makes_no_progress_is_paused(kit: Kit) -> None:
    run_id = kit.queued()
    for number in range(kit.settings.max_dispatches):
        kit.claim(run_id, f"t{number}")
        kit.lose(run_id)

    assert kit.refused_claim(run_id, "last") == Paused()

    record = kit.record(run_id)
    assert record["status"] == "paused"
    assert record["reason"] == "claimed 5 times without progress"
    assert kit.indexed(run_id) == ["paused"]
    assert not kit.owed() + kit.members("queued") + kit.members("leases")
    with kit.unchanged():
        assert isinstance(kit.refused_claim(run_id, "another"), NotQueued)


@pytest.mark.parametrize("progress", ["commit", "retry", "sleep", "body"])
def test_progress_starts_the_count_of_claims_again(kit: Kit, progress: str) -> None:
    run_id = kit.queued()
    for number in range(3):
        kit.claim(run_id, f"t{number}")
        kit.lose(run_id)
    kit.claim(run_id, "t")

    if progress == "commit":
        kit.commit(run_id, "a", "t")
    else:
        kit.suspend(run_id, progress, after(60), "t", step="a", number=1, payload="x")

    assert kit.record(run_id)["dispatches"] == "0"


def test_a_claim_notes_which_message_led_to_it(kit: Kit) -> None:
    first, second, third = (kit.queued() for _ in range(3))
    marks = f"{kit.keys.root}:marks"

    kit.claim(first, queued=1000)
    assert kit.client.hget(marks, "delivered:default") == "1000"
    kit.claim(second, queued=500)
    assert kit.client.hget(marks, "delivered:default") == "1000"
    kit.claim(third, queued=2000)
    assert kit.client.hget(marks, "delivered:default") == "2000"


# -- Parking --------------------------------------------------------------------------


def test_a_run_whose_code_is_not_here_is_set_aside_for_half_a_minute(kit: Kit) -> None:
    run_id = kit.queued()

    assert isinstance(kit.store.park(run_id), Deferred)

    record = kit.record(run_id)
    assert (record["status"], record["reason"]) == ("suspended", "deferred")
    assert kit.members("timers") == [f"wake:{run_id}"]
    assert not kit.owed() + kit.members("queued")
    kit.advance(29)
    assert kit.swept_runs() == []
    kit.advance(2)
    assert kit.swept_runs() == [run_id]
    record = kit.record(run_id)
    assert record["status"] == "queued"
    assert "reason" not in record
    assert "due" not in record


def test_a_run_that_nobody_can_execute_for_a_day_is_paused(kit: Kit) -> None:
    run_id = kit.queued()
    kit.store.park(run_id)
    kit.advance(DAY - 60)
    kit.sweep()
    assert isinstance(kit.store.park(run_id), Deferred)
    kit.advance(61)
    kit.sweep()

    assert kit.store.park(run_id) == Paused()

    record = kit.record(run_id)
    assert record["status"] == "paused"
    assert record["reason"] == "no worker has the code of work"
    assert not kit.members("timers") + kit.owed() + kit.members("queued")


def test_a_claim_ends_the_day_that_a_deferred_run_has(kit: Kit) -> None:
    run_id = kit.queued()
    kit.store.park(run_id)
    kit.advance(31)
    kit.sweep()
    kit.claim(run_id)

    assert "deferred_since" not in kit.record(run_id)


@pytest.mark.parametrize("action", ["retry", "resume"])
def test_a_run_that_is_queued_by_hand_has_its_whole_day_again(
    kit: Kit, action: str
) -> None:
    run_id = kit.queued()
    kit.store.park(run_id)
    kit.advance(DAY + 1)
    kit.sweep()
    if action == "retry":
        kit.store.admin(run_id, "cancel")
    else:
        assert kit.store.park(run_id) == Paused()
    kit.store.admin(run_id, action)

    assert isinstance(kit.store.park(run_id), Deferred)


@pytest.mark.parametrize("state", ["running", "completed"])
def test_only_a_queued_run_is_parked(kit: Kit, state: str) -> None:
    run_id = kit.running()
    if state == "completed":
        kit.finish(run_id)

    with kit.unchanged():
        assert isinstance(kit.store.park(run_id), NotQueued)


# -- Renewing -------------------------------------------------------------------------


def test_a_renewal_answers_each_run(kit: Kit) -> None:
    lost = kit.running()
    kit.lose(lost)
    kit.claim(lost, "t2")
    mine, cancelled, gone = kit.running(), kit.running(), "gone"
    kit.store.admin(cancelled, "cancel")

    leases = [(run_id, "t1", 30.0) for run_id in (mine, lost, cancelled, gone)]
    with kit.unchanged():
        answers = kit.store.renew(kit.keys.root, leases)

    taken, void = Lost(cancelled=False), Lost(cancelled=True)
    assert answers == [Renewed(), taken, void, taken]


def test_a_renewal_lasts_as_long_as_is_asked_for(kit: Kit) -> None:
    run_id = kit.running()

    kit.store.renew(kit.keys.root, [(run_id, "t1", 500.0)])

    left = kit.score("leases", run_id) - kit.now()
    assert 490_000 < left <= 500_000


def test_an_expired_lease_is_renewed_while_the_token_is_the_runs(kit: Kit) -> None:
    run_id = kit.running()
    kit.advance(3600)

    assert kit.store.renew(kit.keys.root, [(run_id, "t1", 30.0)]) == [Renewed()]
    assert kit.score("leases", run_id) > kit.now()


def test_a_batch_of_renewals_is_one_call(kit: Kit) -> None:
    runs = [kit.new_run(token="t1") for _ in range(RENEW_LIMIT)]
    kit.server.repeats = False
    for run in runs:
        kit.create(run)

    answers = kit.store.renew(kit.keys.root, [(run.id, "t1", 30.0) for run in runs])

    assert answers == [Renewed()] * RENEW_LIMIT


# -- Stale owners ---------------------------------------------------------------------


@pytest.mark.parametrize("now_is", ["queued", "taken", "cancelled", "finished", "gone"])
def test_a_stale_token_changes_nothing(kit: Kit, now_is: str) -> None:
    run_id = kit.running("stale")
    kit.commit(run_id, "a", "stale", status="intent")
    kit.lose(run_id)
    if now_is in ("taken", "finished"):
        kit.claim(run_id, "t2")
    if now_is == "cancelled":
        kit.store.admin(run_id, "cancel")
    if now_is == "finished":
        kit.finish(run_id, "t2")
    if now_is == "gone":
        kit.client.flushdb()

    with kit.unchanged():
        for how in ("retry", "sleep", "body", "handback", "pause"):
            with pytest.raises(NotOwner) as refused:
                kit.suspend(run_id, how, after(1), "stale", step="a", number=1)
            assert refused.value.cancelled == (now_is == "cancelled")
        for status in ("done", "failed", "intent"):
            for step in ("a", "b"):
                with pytest.raises(NotOwner):
                    kit.commit(run_id, step, "stale", status=status)
        handler = (f"{run_id}.failure", "handler", "default")
        with pytest.raises(NotOwner):
            kit.finish(run_id, "stale", failed=True, handler=handler, events=["{}"])
        lost = Lost(cancelled=now_is == "cancelled")
        assert kit.store.renew(kit.keys.root, [(run_id, "stale", 5.0)]) == [lost]


def test_an_owner_that_let_go_writes_nothing_more(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "sleep", after(60), step="nap", payload="sleep null")

    with kit.unchanged():
        with pytest.raises(NotOwner):
            kit.commit(run_id, "a")
        with pytest.raises(NotOwner):
            kit.finish(run_id)


def test_an_owner_that_finished_writes_nothing_more(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id)

    with kit.unchanged():
        with pytest.raises(NotOwner):
            kit.commit(run_id, "a")
        for how in ("sleep", "handback"):
            with pytest.raises(NotOwner):
                kit.suspend(run_id, how, after(1), step="nap")


# -- What is kept of claims -----------------------------------------------------------


def claims_of(kit: Kit, run_id: str) -> tuple[Claim, ...]:
    return Claim.load_all(kit.record(run_id)["claims"])


def rounded(claims: tuple[Claim, ...]) -> list[tuple[t.Any, ...]]:
    return [
        (
            claim.number,
            round(claim.queued),
            None if claim.lasted is None else round(claim.lasted),
            claim.ended,
        )
        for claim in claims
    ]


def test_each_claim_is_kept_with_its_wait_and_what_it_came_to(kit: Kit) -> None:
    run_id = kit.queued()
    kit.advance(60)
    kit.claim(run_id, "t1")
    kit.advance(120)
    kit.suspend(run_id, "sleep", after(600), step="nap", payload="sleep null")
    kit.advance(601)
    kit.sweep()
    kit.advance(180)
    kit.claim(run_id, "t2")
    assert rounded(claims_of(kit, run_id)) == [
        (1, 60, 120, "suspended"),
        (2, 180, None, None),
    ]

    kit.advance(240)
    kit.finish(run_id, "t2", outcome="{}")

    first, second = claims_of(kit, run_id)
    assert rounded((first, second)) == [
        (1, 60, 120, "suspended"),
        (2, 180, 240, "completed"),
    ]
    assert (second.at - first.at).total_seconds() == pytest.approx(901, abs=5)


def test_the_claim_of_a_worker_that_was_not_heard_of_is_kept_as_lost(kit: Kit) -> None:
    run_id = kit.running()
    kit.lose(run_id)
    kit.claim(run_id, "t2")
    kit.store.admin(run_id, "cancel")

    lost, cancelled = claims_of(kit, run_id)
    assert (lost.ended, cancelled.ended) == ("lost", "cancelled")
    assert lost.lasted is not None
    assert lost.lasted > LEASE


def test_a_run_that_ends_unclaimed_leaves_its_last_claim_as_it_was(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "body", after(60), number=1, payload="{}")
    before = claims_of(kit, run_id)
    kit.store.admin(run_id, "cancel")
    assert claims_of(kit, run_id) == before


def test_the_newest_twenty_claims_are_kept(kit: Kit) -> None:
    run_id = kit.queued()
    for number in range(45):
        kit.claim(run_id, f"t{number}")
        kit.suspend(run_id, "handback", after(0), token=f"t{number}")

    claims = claims_of(kit, run_id)
    assert [claim.number for claim in claims] == list(range(26, 46))
    assert {claim.ended for claim in claims} == {"queued"}
