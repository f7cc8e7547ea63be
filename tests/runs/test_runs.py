"""``durable.runs``: the children and branches of a run."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import Event
from flask_durable import EventData
from flask_durable import RunNotFound
from flask_durable import RunStatus
from flask_durable import Step

from ..support.harness import Harness


class Recording(EventData, name="media/recording"):
    path: str


def test_children_and_branches_are_found_and_their_data_when_it_is_asked_for(
    harness: Harness,
) -> None:
    @harness.durable.function(on=None)
    def transcribe(event: Event[Recording], step: Step) -> str:
        return event.data.path.upper()

    def chunk(item: int, step: Step) -> float:
        return step.run("divide", lambda: 1 / item)

    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.invoke("text", transcribe, {"path": "a.wav"})
        step.map("chunks", chunk, [1, 0], tolerate=1)

    run = harness.send_and_settle("a/b", {"n": 1})

    child, *branches = harness.runs.children(run.id)
    assert (child.function, child.parent, child.parent_step) == (
        "transcribe",
        run.id,
        "text",
    )
    assert (child.status, child.branch, child.steps) == ("completed", None, ())
    assert child.event.data == {"path": "a.wav"}
    assert child.result == "A.WAV"
    states = {branch.branch: branch.status for branch in branches}
    assert states == {
        "chunks[0]": RunStatus.COMPLETED,
        "chunks[1]": RunStatus.FAILED,
    }
    (failed,) = [branch for branch in branches if branch.status == "failed"]
    assert failed.failure.type == "ZeroDivisionError"
    assert failed.event.data == {"n": 1}
    assert harness.runs.children(child.id) == []
    assert harness.runs.children("nothing") == []


def test_the_data_of_a_child_that_was_removed_is_not_found(harness: Harness) -> None:
    @harness.durable.function(on=None)
    def callee(event: Event[t.Any], step: Step) -> None: ...

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.invoke("call", callee)

    run = harness.send_and_settle("a/b")
    (child,) = harness.runs.children(run.id)
    harness.advance(400 * 86400)

    assert child.status == "completed"
    with pytest.raises(RunNotFound):
        _ = child.event
    assert harness.runs.children(run.id) == []
