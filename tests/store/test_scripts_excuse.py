"""``run_excuse``, and how long a process lived with a run that it lost."""

from __future__ import annotations

from flask_durable.store.excuses import excuse
from flask_durable.store.run_store import RENEW_LIMIT

from .kit import Kit
from .kit import LEASE


def test_the_owner_takes_back_the_counted_claims_of_its_runs(kit: Kit) -> None:
    ids = [kit.running(f"t{number}") for number in range(RENEW_LIMIT + 1)]

    excuse(kit.store, [(id, f"t{number}") for number, id in enumerate(ids)])

    assert {kit.record(id)["dispatches"] for id in ids} == {"0"}


def test_nobody_else_does_and_a_repeat_changes_nothing(kit: Kit) -> None:
    run_id = kit.running("t1")

    with kit.unchanged():
        excuse(kit.store, [(run_id, "t2"), ("unknown", "t1")])
    excuse(kit.store, [(run_id, "t1")])
    with kit.unchanged():
        excuse(kit.store, [(run_id, "t1")])


def test_a_run_that_was_lost_says_how_long_its_process_lived_with_it(kit: Kit) -> None:
    run_id = kit.running("t1")
    key = f"{kit.tag(run_id)}:run:{run_id}"
    kit.client.hset(key, "claimed_at", str(kit.now() - 600_000))
    kit.lose(run_id)

    lived = int(kit.record(run_id)["lived"]) / 1000
    assert 600 - 3 * LEASE <= lived <= 600
