"""``run_finish`` and ``run_expire``: a run ends, and is removed whole."""

from __future__ import annotations

import pytest

from flask_durable.store.run_store import after

from .kit import Kit

DAY = 24 * 3600


@pytest.mark.parametrize("failed", [False, True])
def test_a_finished_run_leaves_nothing_but_its_record(kit: Kit, failed: bool) -> None:
    run_id = kit.running(timeout=500, start_timeout=100)
    kit.commit(run_id, "a")

    kit.finish(run_id, failed=failed, outcome='{"x": 1}', failed_step="a")

    record = kit.record(run_id)
    status = "failed" if failed else "completed"
    assert record["status"] == status
    assert record["failure" if failed else "result"] == '{"x": 1}'
    assert record.get("failed_step") == ("a" if failed else None)
    assert int(record["finished"]) >= int(record["created"])
    assert "token" not in record
    assert kit.indexed(run_id) == [status]
    for name in ("leases", "timers", "queued"):
        assert not kit.members(name)
    assert not kit.owed()


@pytest.mark.parametrize(("failed", "days"), [(False, 7), (True, 30)])
def test_a_run_is_kept_as_long_as_is_configured(
    kit: Kit, failed: bool, days: int
) -> None:
    run_id = kit.running()
    kit.finish(run_id, failed=failed, outcome="{}")

    kit.advance(days * DAY - 60)
    kit.sweep()
    with kit.unchanged():
        assert not kit.store.expire(run_id)
        kit.sweep()
    kit.advance(61)
    kit.sweep()
    assert kit.mentions(run_id) == []


def test_a_completed_run_forgets_the_failures_before(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "body", after(1), number=1, payload="{}")
    kit.advance(2)
    kit.sweep()
    kit.claim(run_id, "t2")

    kit.finish(run_id, "t2", outcome="1")

    assert "failure" not in kit.record(run_id)


def test_a_reason_is_kept(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id, reason="filtered")
    assert kit.record(run_id)["reason"] == "filtered"


def test_the_end_is_told_again_to_the_one_who_made_it(kit: Kit) -> None:
    run_id = kit.running()
    handler = (f"{run_id}.failure", "on_failure", "default")
    queued = kit.finish(run_id, failed=True, outcome="{}", handler=handler)
    kit.claim(handler[0], "t2")
    kit.confirm(f"run:{handler[0]}")

    with kit.unchanged():
        again = kit.finish(run_id, failed=True, outcome="{}", handler=handler)
    assert again == queued > 0


# -- What an end owes -----------------------------------------------------------------


def test_the_failure_handlers_run_is_created_with_the_end(kit: Kit) -> None:
    run_id = kit.running(event='{"n": 1}', event_id="e9", event_name="x/y")
    handler = f"{run_id}.failure"

    queued = kit.finish(
        run_id,
        failed=True,
        outcome='{"type":"E"}',
        handler=(handler, "work.on_failure", "media"),
    )

    record = kit.record(handler)
    assert queued == int(record["queued_at"]) == int(record["created"])
    assert record["status"] == "queued"
    assert record["function"] == "work.on_failure"
    assert record["queue"] == "media"
    assert record["event"] == '{"n": 1}'
    assert (record["event_id"], record["event_name"]) == ("e9", "x/y")
    assert (record["cause"], record["failed_run"]) == ('{"type":"E"}', run_id)
    assert (record["kind"], record["failed_generation"]) == ("handler", "0")
    assert kit.owed() == [f"run:{handler}"]
    assert kit.members("queued") == [handler]
    assert kit.members("function:work.on_failure") == [handler]
    assert set(kit.members("runs")) == {run_id, handler}
    kit.claim(handler, "h1")
    kit.finish(handler, "h1")
    assert kit.status(handler) == "completed"


def test_a_handlers_run_that_exists_is_left_alone(kit: Kit) -> None:
    run_id = kit.running()
    handler = kit.running("h1", id=f"{run_id}.failure")
    before = kit.record(handler)

    handler_run = (handler, "work.on_failure", "default")
    queued = kit.finish(run_id, failed=True, outcome="{}", handler=handler_run)

    assert queued == 0
    assert kit.record(handler) == before


def test_events_are_owed_until_they_are_confirmed(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id, events=["first", "second"])
    entries = [f"event:{run_id}:0:{number}" for number in (0, 1)]

    assert kit.owed() == entries
    assert kit.sweep().events == []
    for _ in range(2):
        kit.advance(6)
        assert kit.sweep().events == [[entries[0], "first"], [entries[1], "second"]]
        assert kit.sweep().events == []
    kit.confirm(entries[0])
    kit.advance(6)
    assert kit.sweep().events == [[entries[1], "second"]]
    kit.confirm(*entries)
    kit.advance(6)
    assert kit.sweep().events == []
    assert not [key for key in kit.dump() if "outbox" in key]


def test_each_generation_owes_events_of_its_own(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id, failed=True, outcome="{}", events=["first"])
    kit.store.admin(run_id, "retry")
    kit.claim(run_id, "t2")
    kit.finish(run_id, "t2", events=["second"])

    kit.advance(6)
    assert sorted(text for _, text in kit.sweep().events) == ["first", "second"]


# -- Expiry ---------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_nothing_of_an_expired_run_is_left(kit: Kit, end: str) -> None:
    run_id = kit.running(timeout=9 * DAY, start_timeout=100)
    kit.lose(run_id)
    kit.claim(run_id, "t2")
    kit.commit(run_id, "a", "t2")
    kit.suspend(run_id, "sleep", after(5), "t2", step="nap", payload="sleep null")
    kit.advance(6)
    kit.sweep()
    kit.claim(run_id, "t3")
    kit.advance(kit.settings.lease + 1)
    kit.sweep()
    if end == "cancelled":
        kit.store.admin(run_id, "cancel", events=["e"])
    else:
        kit.finish(run_id, "t3", failed=end == "failed", outcome="{}", events=["e"])
    kit.confirm(f"event:{run_id}:0:0")
    kit.advance(31 * DAY)

    kit.sweep()

    assert kit.mentions(run_id) == []
    with kit.unchanged():
        kit.sweep()


def test_expiry_of_one_run_leaves_the_others(kit: Kit) -> None:
    gone, kept = kit.running(), kit.running()
    kit.commit(gone, "a")
    kit.commit(kept, "a")
    kit.finish(gone)
    kit.finish(kept)
    kit.client.zadd(f"{kit.keys.root}:expire", {gone: 1})

    kit.sweep()

    assert kit.status(kept) == "completed"
    assert kit.memo(kept, "a") is not None
    assert kit.members("runs") == kit.members("function:work") == [kept]


def test_a_run_that_was_retried_in_between_does_not_expire(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id, failed=True, outcome="{}")
    kit.advance(31 * DAY)
    kit.store.admin(run_id, "retry")

    assert not kit.store.expire(run_id)
    kit.sweep()
    kit.claim(run_id, "t2")


def test_a_run_that_is_not_finished_does_not_expire(kit: Kit) -> None:
    run_id = kit.running()
    kit.client.zadd(f"{kit.keys.root}:expire", {run_id: 1})

    assert not kit.store.expire(run_id)
    kit.sweep()

    assert kit.status(run_id) == "running"
    assert kit.members("expire") == []


def test_an_event_that_is_owed_outlives_its_run(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id, events=["late"])
    kit.advance(8 * DAY)

    assert [text for _, text in kit.sweep().events] == ["late"]
