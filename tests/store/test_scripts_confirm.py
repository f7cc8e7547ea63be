"""``outbox_confirm``: a message that was sent is not owed any more."""

from __future__ import annotations

from flask_durable.store.run_store import after

from .kit import Kit


def queued_at(kit: Kit, run_id: str) -> int:
    return int(kit.record(run_id)["queued_at"])


def test_a_message_that_was_sent_is_not_sent_again(kit: Kit) -> None:
    sent, unsent = kit.queued(), kit.queued()

    kit.store.confirm_runs(kit.keys.root, [(sent, queued_at(kit, sent))])

    assert kit.owed() == [f"run:{unsent}"]
    kit.advance(6)
    assert kit.swept_runs() == [unsent]


def test_a_late_confirmation_leaves_what_is_owed_since(kit: Kit) -> None:
    run_id = kit.queued()
    first = queued_at(kit, run_id)
    kit.advance(1)
    kit.claim(run_id)
    kit.suspend(run_id, "handback", after(0))

    with kit.unchanged():
        kit.store.confirm_runs(kit.keys.root, [(run_id, first - 1000)])

    kit.store.confirm_runs(kit.keys.root, [(run_id, queued_at(kit, run_id))])
    assert kit.owed() == []


def test_confirming_a_run_that_is_gone_changes_nothing(kit: Kit) -> None:
    with kit.unchanged():
        kit.store.confirm_runs(kit.keys.root, [("gone", 1)])


def test_many_confirmations_are_several_calls(kit: Kit) -> None:
    kit.server.repeats = False
    runs = [kit.queued() for _ in range(250)]
    kit.server.repeats = True

    sent = [(run_id, queued_at(kit, run_id)) for run_id in runs]
    kit.store.confirm_runs(kit.keys.root, sent)

    assert kit.owed() == []
