"""``step_checkpoint`` and ``run_progress``: writes in the middle of a step."""

from __future__ import annotations

import pytest

from flask_durable.store.replies import Full
from flask_durable.store.replies import NotOwner
from flask_durable.store.replies import StepEnded
from flask_durable.store.run_store import after
from flask_durable.store.run_store import MAX_MEMO_BYTES
from flask_durable.store.run_store import MAX_STEPS

from .kit import Kit


def test_a_step_without_a_memo_is_begun(kit: Kit) -> None:
    run_id = kit.running()
    kit.commit(run_id, "first")

    kit.store.checkpoint(run_id, "t1", "long", 1, "run x\nat 5")

    assert kit.memo(run_id, "long") == "begun t1 1 1\nrun x\nat 5"


def test_a_later_checkpoint_takes_the_place_of_the_first(kit: Kit) -> None:
    run_id = kit.running()
    kit.store.checkpoint(run_id, "t1", "long", 1, "run x\nat 5")
    kit.lose(run_id)
    kit.claim(run_id, "t2")

    kit.store.checkpoint(run_id, "t2", "long", 1, "run x\nat 67")

    assert kit.memo(run_id, "long") == "begun t1 1 0\nrun x\nat 67"
    assert kit.record(run_id)["bytes"] == str(len("begun t1 1 0\nrun x\nat 67"))


@pytest.mark.parametrize("status", ["tried", "intent"])
def test_a_step_that_was_tried_or_intended_keeps_its_head(
    kit: Kit, status: str
) -> None:
    run_id = kit.running()
    if status == "intent":
        kit.commit(run_id, "long", status="intent", number=3)
        token = "t1"
    else:
        kit.suspend(run_id, "retry", after(0), step="long", number=3, payload="run f")
        kit.sweep()
        kit.claim(run_id, "t2")
        token = "t2"

    kit.store.checkpoint(run_id, token, "long", 4, "run f\nat 5")

    assert kit.memo(run_id, "long") == f"{status} t1 3 0\nrun f\nat 5"


@pytest.mark.parametrize("status", ["done", "failed"])
def test_an_outcome_is_never_written_over_by_a_checkpoint(
    kit: Kit, status: str
) -> None:
    run_id = kit.running()
    kit.commit(run_id, "long", status=status)

    with kit.unchanged():
        reply = kit.store.checkpoint(run_id, "t1", "long", 1, "run x\nat 5")
    assert reply == StepEnded()


def test_the_outcome_removes_the_checkpoint_and_its_bytes(kit: Kit) -> None:
    run_id = kit.running()
    kit.store.checkpoint(run_id, "t1", "long", 1, "run x\n" + 1000 * "y")

    kit.commit(run_id, "long", payload="run 1")

    assert kit.memo(run_id, "long") == "done t1 1 0\nrun 1"
    assert kit.record(run_id)["bytes"] == str(len("done t1 1 0\nrun 1"))


def test_only_the_owner_writes_checkpoints_and_progress(kit: Kit) -> None:
    run_id = kit.running()

    with kit.unchanged():
        with pytest.raises(NotOwner):
            kit.store.checkpoint(run_id, "t2", "long", 1, "run x\nat 5")
        with pytest.raises(NotOwner):
            kit.store.note_progress(run_id, "t2", "1 0.5 half")

    kit.store.admin(run_id, "cancel")
    with kit.unchanged():
        with pytest.raises(NotOwner) as caught:
            kit.store.checkpoint(run_id, "t1", "long", 1, "run x\nat 5")
        assert caught.value.cancelled
        with pytest.raises(NotOwner) as caught:
            kit.store.note_progress(run_id, "t1", "1 0.5 half")
        assert caught.value.cancelled


def test_a_checkpoint_is_no_progress(kit: Kit) -> None:
    run_id = kit.running()
    claims = kit.record(run_id)["dispatches"]
    assert claims != "0"

    kit.store.checkpoint(run_id, "t1", "long", 1, "run x\nat 5")

    assert kit.record(run_id)["dispatches"] == claims


def test_a_checkpoint_keeps_to_the_limits_of_its_run(kit: Kit) -> None:
    run_id = kit.running()
    key = f"{kit.tag(run_id)}:run:{run_id}"
    kit.client.hset(key, "bytes", MAX_MEMO_BYTES - 100)
    with kit.unchanged():
        reply = kit.store.checkpoint(run_id, "t1", "long", 1, 100 * "x")
        assert reply == Full("bytes")
    kit.client.hset(key, "bytes", 0)

    steps = f"{kit.tag(run_id)}:steps:{run_id}"
    kit.client.hset(steps, mapping={f"s{n}": "done t 1 0\n" for n in range(MAX_STEPS)})
    reply = kit.store.checkpoint(run_id, "t1", "long", 1, "run x\nat 5")
    assert reply == Full("steps")


def test_the_progress_of_a_run_is_its_newest(kit: Kit) -> None:
    run_id = kit.running()

    kit.store.note_progress(run_id, "t1", "1 0.2500 a")
    kit.store.note_progress(run_id, "t1", "2 0.5000 b c")

    assert kit.record(run_id)["progress"] == "2 0.5000 b c"
