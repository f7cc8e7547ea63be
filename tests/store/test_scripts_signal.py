"""``signal_put`` with a mark and an end: the answer to an address."""

from __future__ import annotations

import pytest

from flask_durable.store.inbox import Inbox
from flask_durable.store.inbox import OtherMark
from flask_durable.store.inbox import TooLate
from flask_durable.store.replies import Resolved
from flask_durable.store.replies import Taken
from flask_durable.store.replies import Woken
from flask_durable.store.replies import WrongState
from flask_durable.store.run_store import after
from flask_durable.store.run_store import at

from .kit import Kit


@pytest.fixture
def inbox(kit: Kit) -> Inbox:
    return Inbox(kit.store.server, kit.keys)


def test_a_repeat_with_another_mark_is_told_so_and_changes_nothing(
    kit: Kit, inbox: Inbox
) -> None:
    run_id = kit.running()
    assert inbox.put(run_id, "url:a", "url:a", "one", mark="m1") == Taken()

    with kit.unchanged():
        assert inbox.put(run_id, "url:a", "url:a", "two", mark="m2") == OtherMark()
        assert inbox.put(run_id, "url:a", "url:a", "one", mark="m1") == Taken()


def test_after_its_end_it_is_refused_and_a_repeat_is_told_the_same(
    kit: Kit, inbox: Inbox
) -> None:
    run_id = kit.running()
    now = kit.now()
    with kit.unchanged():
        late = inbox.put(run_id, "url:a", "url:a", "one", mark="m1", until=now - 1)
    assert late == TooLate()
    until = now + 60_000
    first = inbox.put(run_id, "url:a", "url:a", "one", mark="m1", until=until)

    with kit.unchanged():
        again = inbox.put(run_id, "url:a", "url:a", "one", mark="m1", until=now - 1)
    assert first == again == Taken()


def test_after_the_end_of_the_run_a_repeat_is_told_the_same(
    kit: Kit, inbox: Inbox
) -> None:
    run_id = kit.running()
    inbox.put(run_id, "url:a", "url:a", "one", mark="m1")
    kit.finish(run_id)

    with kit.unchanged():
        assert inbox.put(run_id, "url:a", "url:a", "one", mark="m1") == Taken()
        assert inbox.put(run_id, "url:a", "url:a", "two", mark="m2") == OtherMark()
        late = inbox.put(run_id, "url:b", "url:b", "one", mark="m1")
    assert late == WrongState("completed")


def test_a_wait_that_is_reached_after_the_end_takes_what_came_in_time(
    kit: Kit, inbox: Inbox
) -> None:
    run_id = kit.running()
    inbox.put(run_id, "url:a", "url:a", "one", mark="m1")
    given = {"step": "answer", "payload": "url \n", "signal": "url:a"}

    reply = kit.suspend(run_id, "url", at(1), **given)

    memo = kit.memo(run_id, "answer")
    assert reply == Resolved(memo or "")
    assert memo is not None
    assert memo.endswith("\nurl \none")


def test_a_signal_is_not_taken_by_a_wait_whose_end_has_come(
    kit: Kit, inbox: Inbox
) -> None:
    run_id = kit.running()
    inbox.put(run_id, "go", "s1", "one")
    given = {"step": "go", "payload": "signal \n", "signal": "go"}

    kit.suspend(run_id, "signal", at(1), **given)

    assert (kit.memo(run_id, "go") or "").endswith("\nsignal \n")


def test_an_answer_wakes_the_run_that_waits_for_it(kit: Kit, inbox: Inbox) -> None:
    run_id = kit.running()
    given = {"step": "answer", "payload": "url \n", "signal": "url:a"}
    kit.suspend(run_id, "url", after(60), **given)

    reply = inbox.put(run_id, "url:a", "url:a", "one", mark="m1")

    assert isinstance(reply, Woken)
    assert kit.status(run_id) == "queued"
    assert (kit.memo(run_id, "answer") or "").endswith("\nurl \none")
    with kit.unchanged():
        assert inbox.put(run_id, "url:a", "url:a", "one", mark="m1") == reply
