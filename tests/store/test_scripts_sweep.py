"""``sweep``: what lost its owner gets one again."""

from __future__ import annotations

import pytest

from flask_durable.store.run_store import after
from flask_durable.store.run_store import SWEEP_LIMIT

from .kit import Kit
from .kit import LEASE

LOOK = LEASE / 3 + 1


# -- Leases ---------------------------------------------------------------------------


def test_a_run_is_taken_at_the_second_look(kit: Kit) -> None:
    run_id = kit.running()
    kit.advance(LEASE + 1)

    assert kit.swept_runs() == []
    assert kit.status(run_id) == "running"
    assert kit.swept_runs() == []
    kit.advance(LOOK)
    swept = kit.sweep().runs

    record = kit.record(run_id)
    assert swept == [[run_id, "work", "default", record["queued_at"]]]
    assert record["status"] == "queued"
    assert "token" not in record
    assert kit.indexed(run_id) == ["queued"]
    assert kit.members("outbox") == [f"run:{run_id}"]
    assert kit.members("queued") == [run_id]
    assert not kit.members("leases")
    assert not kit.client.exists(f"{kit.keys.root}:looks")


def test_a_lease_that_did_not_run_out_is_not_looked_at(kit: Kit) -> None:
    kit.running()
    kit.advance(LEASE - 2)

    with kit.unchanged():
        kit.sweep()


@pytest.mark.parametrize("seconds", [1, LEASE / 3 - 1])
def test_two_looks_are_a_third_of_a_lease_apart(kit: Kit, seconds: float) -> None:
    run_id = kit.running()
    kit.advance(LEASE + 1)
    kit.sweep()
    kit.advance(seconds)
    kit.sweep()

    assert kit.status(run_id) == "running"


@pytest.mark.parametrize("how", ["renew", "commit"])
def test_a_lease_that_was_renewed_between_the_looks_is_not_taken(
    kit: Kit, how: str
) -> None:
    run_id = kit.running()
    kit.advance(LEASE + 1)
    kit.sweep()
    if how == "renew":
        kit.store.renew(kit.keys.root, [(run_id, "t1", LEASE)])
    else:
        kit.commit(run_id, "a")
    kit.advance(LOOK)
    kit.sweep()
    assert kit.status(run_id) == "running"

    # It runs out again: that is a first look anew.
    kit.advance(LEASE)
    kit.sweep()
    assert kit.status(run_id) == "running"
    kit.advance(LOOK)
    assert kit.swept_runs() == [run_id]


def test_a_run_that_changed_hands_between_the_looks_is_not_taken(kit: Kit) -> None:
    run_id = kit.running("t1")
    kit.advance(LEASE + 1)
    kit.sweep()
    look = kit.client.hget(f"{kit.keys.root}:looks", run_id)
    kit.suspend(run_id, "handback", after(0))
    kit.claim(run_id, "t2")
    # The same end of lease, and the first look as if nobody had removed it.
    ends = str(look).split()[1]
    kit.client.zadd(f"{kit.keys.root}:leases", {run_id: int(ends)})
    kit.client.hset(f"{kit.keys.root}:looks", run_id, str(look))
    kit.advance(LOOK)

    kit.sweep()

    assert kit.record(run_id)["token"] == "t2"
    assert kit.status(run_id) == "running"


def test_an_outage_does_not_take_runs_from_healthy_owners(kit: Kit) -> None:
    runs = [kit.running(f"t{number}") for number in range(20)]
    kit.advance(3600)  # the server was away, or its clock jumped
    assert kit.swept_runs() == []
    assert kit.swept_runs() == []

    leases = [(run_id, f"t{number}", LEASE) for number, run_id in enumerate(runs)]
    assert kit.store.renew(kit.keys.root, leases) == ["ok"] * 20
    kit.advance(LOOK)

    assert kit.swept_runs() == []
    assert {kit.status(run_id) for run_id in runs} == {"running"}


def test_the_stopped_owner_of_a_run_that_was_taken_is_refused(kit: Kit) -> None:
    run_id = kit.running("stopped")
    kit.lose(run_id)
    kit.claim(run_id, "t2")

    assert kit.store.renew(kit.keys.root, [(run_id, "stopped", LEASE)]) == ["lost"]
    assert kit.record(run_id)["token"] == "t2"


def test_a_lease_of_a_run_that_does_not_run_is_removed(kit: Kit) -> None:
    kit.client.zadd(f"{kit.keys.root}:leases", {"gone": 1})

    kit.sweep()

    assert not kit.members("leases")


# -- Timers ---------------------------------------------------------------------------


def test_a_timer_of_a_run_that_is_not_suspended_changes_nothing_else(kit: Kit) -> None:
    run_id = kit.running()
    before = kit.dump()
    kit.client.zadd(f"{kit.keys.root}:timers", {f"wake:{run_id}": 1, "wake:gone": 1})

    kit.sweep()

    assert kit.dump() == before


def test_a_wake_does_not_touch_an_outcome_that_is_there(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "sleep", after(60), step="nap", payload="sleep null")
    steps = f"{kit.keys.root}:steps:{run_id}"
    kit.client.hset(steps, "nap", "done other 1 0\nsleep 1")
    kit.advance(61)
    kit.sweep()

    assert kit.memo(run_id, "nap") == "done other 1 0\nsleep 1"
    assert kit.status(run_id) == "queued"


# -- The outbox -----------------------------------------------------------------------


def test_a_message_that_nobody_confirmed_is_sent_again_after_five_seconds(
    kit: Kit,
) -> None:
    run_id = kit.queued()

    assert kit.swept_runs() == []
    for _ in range(3):
        kit.advance(4)
        assert kit.swept_runs() == []
        kit.advance(1.5)
        assert kit.swept_runs() == [run_id]
        assert kit.swept_runs() == []
    kit.confirm(f"run:{run_id}")
    kit.advance(10)
    assert kit.swept_runs() == []


def test_a_claim_confirms_the_message(kit: Kit) -> None:
    run_id = kit.queued()
    kit.claim(run_id)
    kit.advance(6)

    assert kit.swept_runs() == []
    assert not kit.members("outbox")


def test_an_entry_without_a_reason_is_removed(kit: Kit) -> None:
    run_id = kit.running()
    entries = {f"run:{run_id}": 1, "run:gone": 1, "event:gone:0:0": 1}
    kit.client.zadd(f"{kit.keys.root}:outbox", entries)

    swept = kit.sweep()

    assert (swept.runs, swept.events) == ([], [])
    assert not kit.members("outbox")


# -- Messages that vanished -----------------------------------------------------------


def sent(kit: Kit, **given: str) -> str:
    """Return a QUEUED run whose message was sent and confirmed."""
    run_id = kit.queued(**given)
    kit.confirm(f"run:{run_id}")
    return run_id


def test_a_long_backlog_causes_no_storm(kit: Kit) -> None:
    sent(kit)
    for _ in range(10):
        kit.advance(61)
        assert kit.swept_runs() == []


def test_a_message_is_sent_again_if_its_queue_is_empty(kit: Kit) -> None:
    run_id = sent(kit)
    kit.advance(61)

    assert kit.swept_runs("default") == [run_id]


def test_what_another_queue_looks_like_says_nothing(kit: Kit) -> None:
    sent(kit, queue="media")
    kit.advance(61)

    assert kit.swept_runs("default") == []


@pytest.mark.parametrize(("seconds", "again"), [(4, False), (7, True)])
def test_the_queue_has_to_be_empty_some_seconds_after_the_run_was_queued(
    kit: Kit, seconds: float, again: bool
) -> None:
    run_id = sent(kit)
    kit.advance(seconds)
    assert kit.swept_runs("default") == []
    kit.advance(61 - seconds)

    assert kit.swept_runs() == ([run_id] if again else [])


@pytest.mark.parametrize(("later", "again"), [(59_000, False), (61_000, True)])
def test_a_message_is_sent_again_if_one_of_a_minute_later_was_delivered(
    kit: Kit, later: int, again: bool
) -> None:
    run_id = sent(kit)
    other = sent(kit)
    queued = int(kit.record(run_id)["queued_at"])
    kit.claim(other, "t2", queued=queued + later)
    kit.advance(61)

    assert kit.swept_runs() == ([run_id] if again else [])


def test_doubts_come_half_as_often_each_time(kit: Kit) -> None:
    run_id = sent(kit)
    for wait in (60, 120, 240, 480):
        kit.advance(wait - 2)
        assert kit.swept_runs("default") == []
        kit.advance(3)
        assert kit.swept_runs("default") == [run_id]
        kit.confirm(f"run:{run_id}")


def test_a_claim_ends_the_doubts(kit: Kit) -> None:
    run_id = sent(kit)
    kit.advance(61)
    kit.sweep("default")
    assert kit.record(run_id)["resends"] == "1"
    kit.claim(run_id)

    assert "resends" not in kit.record(run_id)
    assert not kit.members("queued")


def test_a_run_that_is_not_queued_is_not_doubted(kit: Kit) -> None:
    run_id = kit.running()
    kit.client.zadd(f"{kit.keys.root}:queued", {run_id: 1, "gone": 1})

    kit.sweep("default")

    assert not kit.members("queued")


# -- Bounds ---------------------------------------------------------------------------


def test_a_sweep_handles_so_many_and_says_that_there_are_more(kit: Kit) -> None:
    kit.server.repeats = False
    for _ in range(SWEEP_LIMIT + 20):
        kit.queued()
    kit.advance(6)

    first, second, third = kit.sweep(), kit.sweep(), kit.sweep()

    assert (len(first.runs), first.more) == (SWEEP_LIMIT, True)
    assert (len(second.runs), second.more) == (20, False)
    assert (third.runs, third.more) == ([], False)


def test_any_number_of_sweepers_share_what_is_due(kit: Kit) -> None:
    kit.server.repeats = False
    runs = set()
    for _ in range(30):
        run_id = kit.running()
        kit.suspend(run_id, "sleep", after(60), step="nap", payload="sleep null")
        runs.add(run_id)
    kit.advance(61)

    found = [*kit.swept_runs(), *kit.swept_runs(), *kit.swept_runs()]

    assert sorted(found) == sorted(runs)


def test_a_sweep_keeps_to_its_partition(url: str) -> None:
    kit = Kit(url, partitions=4)
    kit.server.repeats = False
    for _ in range(16):
        kit.queued()
    kit.advance(6)

    for tag in kit.keys.tags:
        for run in kit.store.sweep(tag).runs:
            assert kit.tag(run[0]) == tag
        assert kit.store.sweep(tag).runs == []
    kit.close()
