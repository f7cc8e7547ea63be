"""``sweep``: what lost its owner gets one again."""

from __future__ import annotations

import pytest

from flask_durable.store.replies import Lost
from flask_durable.store.replies import Renewed
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
    assert kit.owed() == [f"run:{run_id}"]
    assert kit.members("queued") == [run_id]
    assert not kit.members("leases")
    assert not kit.client.exists(f"{kit.keys.root}:looks")


def test_a_lease_that_did_not_run_out_is_not_looked_at(kit: Kit) -> None:
    kit.running()
    kit.advance(LEASE - 2)
    kit.sweep()  # which forgets a queue that is owed nothing more

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

    # It runs out again: that is a first look again.
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
    assert kit.store.renew(kit.keys.root, leases) == [Renewed()] * 20
    kit.advance(LOOK)

    assert kit.swept_runs() == []
    assert {kit.status(run_id) for run_id in runs} == {"running"}


def test_the_stopped_owner_of_a_run_that_was_taken_is_refused(kit: Kit) -> None:
    run_id = kit.running("stopped")
    kit.lose(run_id)
    kit.claim(run_id, "t2")

    assert kit.store.renew(kit.keys.root, [(run_id, "stopped", LEASE)]) == [
        Lost(cancelled=False)
    ]
    assert kit.record(run_id)["token"] == "t2"


def test_a_lease_of_a_run_that_does_not_run_is_removed(kit: Kit) -> None:
    kit.client.zadd(f"{kit.keys.root}:leases", {"gone": 1})

    kit.sweep()

    assert not kit.members("leases")


# -- Timers ---------------------------------------------------------------------------


def test_a_timer_of_a_run_that_is_not_suspended_changes_nothing_else(kit: Kit) -> None:
    run_id = kit.running()
    kit.sweep()
    before = kit.dump()
    kit.client.zadd(f"{kit.keys.root}:timers", {f"wake:{run_id}": 1, "wake:gone": 1})

    kit.sweep()

    assert kit.dump() == before


def test_a_sleep_that_an_older_release_began_ends_as_done(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "sleep", after(5), step="nap", payload="sleep null")
    kit.client.hdel(f"{kit.keys.root}:run:{run_id}", "becomes")
    kit.advance(6)
    kit.sweep()
    assert kit.memo_head(run_id, "nap")[0] == "done"
    assert kit.status(run_id) == "queued"


def test_a_wake_does_not_touch_an_outcome_that_is_there(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "sleep", after(60), step="nap", payload="sleep null")
    steps = f"{kit.keys.root}:steps:{run_id}"
    kit.client.hset(steps, "nap", "done other 1 0\nsleep 1")
    kit.advance(61)
    kit.sweep()

    assert kit.memo(run_id, "nap") == "done other 1 0\nsleep 1"
    assert kit.status(run_id) == "queued"


def test_a_wait_ends_as_the_run_says_when_its_timer_is_due(kit: Kit) -> None:
    run_id = kit.running()
    kit.suspend(run_id, "sleep", after(60), step="nap", payload="sleep null")
    assert kit.record(run_id)["becomes"] == "done"
    kit.client.hset(f"{kit.keys.root}:run:{run_id}", "becomes", "failed")
    kit.advance(61)
    kit.sweep()

    assert kit.memo_head(run_id, "nap")[0] == "failed"
    assert not {"waiting", "becomes"} & kit.record(run_id).keys()


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
    assert not kit.owed()


def test_an_entry_without_a_reason_is_removed(kit: Kit) -> None:
    run_id = kit.running()
    entries = {f"run:{run_id}": 1, "run:gone": 1, "event:gone:0:0": 1}
    for queue in ("default", "events"):
        kit.client.zadd(f"{kit.keys.root}:outbox:{queue}", entries)
        kit.client.zadd(f"{kit.keys.root}:outboxes", {queue: 1})

    swept = kit.sweep()

    assert (swept.runs, swept.events) == ([], [])
    assert not kit.owed()


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
    assert kit.record(run_id)["doubts"] == "1"
    kit.claim(run_id)

    assert "doubts" not in kit.record(run_id)
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

    assert (len(first.runs), first.behind) == (SWEEP_LIMIT, ["default"])
    assert (len(second.runs), second.behind) == (20, [])
    assert (third.runs, third.behind) == ([], [])


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


# -- Queues that take nothing ----------------------------------------------------------


def test_what_is_owed_to_one_queue_is_in_the_way_of_no_other(kit: Kit) -> None:
    for _ in range(3 * SWEEP_LIMIT):
        kit.queued(queue="refuses")
    kit.advance(6)
    late = kit.queued(queue="takes")
    kit.advance(6)

    swept = kit.sweep()

    assert late in [run[0] for run in swept.runs]
    assert len(swept.runs) <= SWEEP_LIMIT
    assert swept.behind == ["refuses"]


def test_what_is_owed_to_a_queue_that_rests_stays_where_it_is(kit: Kit) -> None:
    resting = kit.queued(queue="refuses")
    other = kit.queued(queue="takes")
    kit.advance(6)

    swept = kit.store.sweep(kit.keys.root, (), {"refuses"})

    assert [run[0] for run in swept.runs] == [other]
    assert kit.swept_runs() == [resting]


def test_a_page_has_something_of_each_of_many_queues(kit: Kit) -> None:
    queues = [f"queue{number}" for number in range(30)]
    for queue in queues:
        for _ in range(12):
            kit.queued(queue=queue)
    kit.advance(6)

    swept = kit.sweep()

    assert {run[2] for run in swept.runs} == {*queues}
    assert sorted(swept.behind) == sorted(queues)
    assert len(kit.sweep().runs) == 2 * len(queues)


# -- Many at once ----------------------------------------------------------------------


def test_any_number_of_lost_runs_is_taken_after_one_pause(kit: Kit) -> None:
    runs = [kit.running() for _ in range(3 * SWEEP_LIMIT)]
    kit.advance(LEASE + 1)
    for _ in range(3):
        kit.sweep()
    kit.advance(LOOK)
    for _ in range(3):
        kit.sweep()

    assert [run for run in runs if kit.status(run) != "queued"] == []


def test_each_look_at_a_queued_run_doubles_the_time_to_the_next(kit: Kit) -> None:
    run_id = kit.queued()
    pauses = []
    for _ in range(8):
        left = kit.score("queued", run_id) - kit.now()
        pauses.append(round(left / 60_000))
        kit.advance(left / 1000 + 1)
        kit.sweep()

    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64]


def test_expired_runs_are_removed_by_the_sweep_that_finds_them(kit: Kit) -> None:
    runs = [kit.running() for _ in range(SWEEP_LIMIT + 5)]
    for run_id in runs:
        kit.finish(run_id)
    kit.advance(8 * 24 * 3600)

    assert kit.sweep().more
    assert len(kit.members("runs")) == 5
    assert not kit.sweep().more
    assert kit.members("runs") == kit.members("expire") == []


# -- A clock that is set back ----------------------------------------------------------


def test_a_clock_that_is_set_back_does_not_put_off_what_has_a_bound(kit: Kit) -> None:
    lost, queued = kit.running(), kit.queued()
    kit.sweep()
    kit.advance(-7200)  # what was written lies two hours further ahead

    assert kit.swept_runs() == [queued]
    kit.confirm(f"run:{queued}")
    kit.advance(LOOK)
    assert kit.swept_runs() == [lost]


def test_a_clock_that_is_set_back_takes_nothing_from_a_healthy_owner(kit: Kit) -> None:
    run_id = kit.running()
    kit.sweep()
    kit.advance(-7200)
    kit.sweep()
    kit.store.renew(kit.keys.root, [(run_id, "t1", LEASE)])
    kit.advance(LOOK)
    kit.sweep()

    assert kit.status(run_id) == "running"


def test_a_step_with_a_long_lease_is_not_taken_for_a_clock_set_back(kit: Kit) -> None:
    run_id = kit.running()
    kit.store.renew(kit.keys.root, [(run_id, "t1", 3600)])
    for _ in range(3):
        kit.sweep()
        kit.advance(LOOK)

    assert kit.status(run_id) == "running"
