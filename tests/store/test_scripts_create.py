"""``run_create``: none -> QUEUED, RUNNING or SUSPENDED. The dedupe record."""

from __future__ import annotations

import pytest

from flask_durable.store.replies import Committed
from flask_durable.store.replies import Known
from flask_durable.store.replies import Queued
from flask_durable.store.replies import Scheduled
from flask_durable.store.replies import Started
from flask_durable.store.run_store import after

from .kit import Kit

OPAQUE = "a b\n\tc%s%d #1 \\ \" ' {}[] \u00fc\u2603\U0001f600 \x00\x01\x7f\r\n--]]"


def test_a_new_run_is_queued_and_its_message_is_owed(kit: Kit) -> None:
    run = kit.new_run(version="v7", unfiltered=True)

    reply = kit.create(run)

    record = kit.record(run.id)
    assert reply == Queued(int(record["queued_at"]))
    assert record["status"] == "queued"
    assert record["queued_at"] == record["created"]
    assert (record["version"], record["unfiltered"]) == ("v7", "1")
    assert "token" not in record
    assert kit.owed() == [f"run:{run.id}"]
    assert kit.members("queued") == [run.id]
    assert kit.members("runs") == kit.members("function:work") == [run.id]
    assert kit.indexed(run.id) == ["queued"]
    assert not kit.members("leases")
    assert not kit.members("timers")


def test_a_run_may_be_created_in_the_hands_of_its_creator(kit: Kit) -> None:
    run = kit.new_run(token="t1")

    reply = kit.create(run)

    record = kit.record(run.id)
    assert reply == Started(int(record["started"]))
    assert (record["status"], record["token"]) == ("running", "t1")
    assert record["dispatches"] == "1"
    assert record["started"] == record["claimed_at"]
    assert kit.members("leases") == [run.id]
    assert 0 < kit.score("leases", run.id) - kit.now() <= kit.settings.lease * 1000
    assert not kit.owed() + kit.members("queued")


def test_an_event_that_is_delivered_again_changes_nothing(kit: Kit) -> None:
    run = kit.new_run()
    kit.create(run)
    kit.claim(run.id)

    with kit.unchanged():
        assert kit.create(run) == Known("running")
        again = kit.new_run(id=run.id, token="t2", event='{"other": 1}', timeout=5)
        assert kit.create(again) == Known("running")

    kit.finish(run.id)
    with kit.unchanged():
        assert kit.create(again) == Known("completed")


def test_a_message_that_nobody_confirmed_is_asked_for_again(kit: Kit) -> None:
    run = kit.new_run()
    first = kit.create(run)

    assert kit.create(kit.new_run(id=run.id, token="t2")) == first
    kit.confirm(f"run:{run.id}")
    assert kit.create(run) == Known("queued")


def test_the_token_gets_its_answer_again_while_it_owns_the_run(kit: Kit) -> None:
    run = kit.new_run(token="t1")
    first = kit.create(run)
    kit.commit(run.id, "a")

    with kit.unchanged():
        assert kit.create(run) == first
    kit.suspend(run.id, "handback", after(0))
    with kit.unchanged():
        assert isinstance(kit.create(run), Queued)


def test_a_run_of_the_future_waits_for_its_time(kit: Kit) -> None:
    start = kit.now() + 60_000
    run = kit.new_run(token="t1", start_at=start, timeout=100, start_timeout=50)

    assert kit.create(run) == kit.create(run) == Scheduled(start)

    record = kit.record(run.id)
    assert (record["status"], record["reason"]) == ("suspended", "scheduled")
    assert record["due"] == str(start)
    assert "token" not in record
    assert not kit.members("leases") + kit.owed() + kit.members("queued")
    assert kit.score("timers", f"wake:{run.id}") == start
    assert kit.score("timers", f"timeout:{run.id}") == start + 100_000
    assert kit.score("timers", f"start:{run.id}") == start + 50_000
    kit.advance(61)
    assert kit.swept_runs() == [run.id]
    assert kit.status(run.id) == "queued"


def test_timeouts_count_from_the_creation(kit: Kit) -> None:
    run_id = kit.queued(timeout=100, start_timeout=50)
    created = int(kit.record(run_id)["created"])

    assert kit.score("timers", f"timeout:{run_id}") == created + 100_000
    assert kit.score("timers", f"start:{run_id}") == created + 50_000


@pytest.mark.parametrize("in_place", [True, False])
def test_a_run_that_started_has_no_start_timeout_any_more(
    kit: Kit, in_place: bool
) -> None:
    run = kit.new_run(timeout=100, start_timeout=50, token="t1" if in_place else "")
    kit.create(run)
    if not in_place:
        kit.claim(run.id)

    assert kit.members("timers") == [f"timeout:{run.id}"]


def test_user_data_is_kept_as_it_is(kit: Kit) -> None:
    function = "group.wörk %s\n#2"
    run_id = kit.running(
        event=OPAQUE, event_id=OPAQUE, queue="media %d", function=function
    )

    record = kit.record(run_id)
    assert record["event"] == record["event_id"] == OPAQUE
    assert kit.members(f"function:{function}") == [run_id]
    claim = kit.claim(run_id)
    assert claim.record["event"] == OPAQUE
    for step in (OPAQUE, "name#2", "%", "a b\nc", ""):
        assert kit.commit(run_id, step, payload=OPAQUE + step) == Committed()
        kit.suspend(run_id, "handback", after(0))
        assert kit.claim(run_id).memos[step].partition("\n")[2] == OPAQUE + step


@pytest.mark.parametrize("how", ["retry", "sleep", "body", "pause"])
def test_user_data_is_kept_as_it_is_by_a_suspension(kit: Kit, how: str) -> None:
    run_id = kit.running()

    kit.suspend(
        run_id, how, after(60), step=OPAQUE, number=1, payload=OPAQUE, reason=OPAQUE
    )
    kit.advance(61)
    kit.sweep()

    if how in ("retry", "sleep"):
        memo = kit.memo(run_id, OPAQUE)
        assert memo is not None
        assert memo.partition("\n")[2] == OPAQUE
        assert memo.startswith("tried" if how == "retry" else "done")
        assert kit.store.read(run_id)[1][OPAQUE].payload == OPAQUE
    else:
        assert kit.record(run_id)["failure"] == OPAQUE


def test_user_data_is_kept_as_it_is_by_an_end(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id, outcome=OPAQUE, reason=OPAQUE, events=[OPAQUE, "second"])

    record = kit.record(run_id)
    assert record["result"] == record["reason"] == OPAQUE
    kit.advance(6)
    assert [text for _, text in kit.sweep().events] == [OPAQUE, "second"]
