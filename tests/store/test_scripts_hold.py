"""run_hold, and what it means for the end of a run: its objects go before it."""

from __future__ import annotations

import pytest

from flask_durable.store.replies import Missing
from flask_durable.store.replies import NotOwner

from .kit import Kit

DAY = 86400


def expiring(kit: Kit) -> str:
    """Return the id of a run with objects whose retention is over."""
    run_id = kit.running()
    kit.store.hold(run_id, "t1")
    kit.finish(run_id, failed=True, outcome="{}")
    kit.advance(31 * DAY)
    return run_id


def test_only_the_owner_notes_that_a_run_has_objects(kit: Kit) -> None:
    run_id = kit.running()

    with kit.unchanged(), pytest.raises(NotOwner):
        kit.store.hold(run_id, "t2")

    kit.store.hold(run_id, "t1")
    assert kit.client.hget(f"{kit.keys.root}:run:{run_id}", "blobs") == "1"


def test_a_cancelled_run_gets_no_objects(kit: Kit) -> None:
    run_id = kit.running()
    kit.store.admin(run_id, "cancel")

    with kit.unchanged(), pytest.raises(NotOwner) as caught:
        kit.store.hold(run_id, "t1")
    assert caught.value.cancelled


def test_a_run_with_objects_is_marked_before_it_goes(kit: Kit) -> None:
    run_id = expiring(kit)
    assert kit.sweep().expiring == [run_id]

    assert kit.status(run_id) == "failed"
    assert kit.sweep().expiring == []

    assert kit.store.expire(run_id)
    assert kit.mentions(run_id) == []


def test_a_marked_run_whose_remover_died_is_named_again(kit: Kit) -> None:
    run_id = expiring(kit)
    assert kit.sweep().expiring == [run_id]

    kit.advance(59)
    assert kit.sweep().expiring == []
    kit.advance(2)
    assert kit.sweep().expiring == [run_id]


def test_a_marked_run_cannot_be_retried(kit: Kit) -> None:
    run_id = expiring(kit)
    kit.sweep()

    with kit.unchanged():
        assert kit.store.admin(run_id, "retry") == Missing()


def test_a_run_that_was_retried_in_time_keeps_its_objects(kit: Kit) -> None:
    run_id = expiring(kit)
    kit.store.admin(run_id, "retry")

    with kit.unchanged():
        assert not kit.store.expire(run_id)


def test_a_run_without_objects_goes_at_once(kit: Kit) -> None:
    run_id = kit.running()
    kit.finish(run_id)
    kit.advance(8 * DAY)

    assert kit.sweep().expiring == []
    assert kit.mentions(run_id) == []
