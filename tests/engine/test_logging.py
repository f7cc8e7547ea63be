"""Records carry the run they belong to, and a replay does not log again."""

from __future__ import annotations

import logging
import typing as t

import pytest

from flask_durable import Backoff
from flask_durable import current_run
from flask_durable import Event
from flask_durable import Step
from flask_durable.observe.logging import RunFilter

from ..support.harness import Harness

user_logger = logging.getLogger("users.module")


@pytest.fixture
def records() -> t.Iterator[list[t.Any]]:
    found: list[t.Any] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Keep()
    handler.addFilter(RunFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    before, root.level = root.level, logging.INFO
    yield found
    root.removeHandler(handler)
    root.setLevel(before)


def test_lines_of_users_carry_the_run_and_are_not_repeated(
    harness: Harness, records: list[t.Any]
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("before")
        current_run.log.info("mine before")
        step.run("one", lambda: user_logger.info("inside one"))
        user_logger.info("between")
        step.sleep("rest", 60)
        user_logger.info("after")
        current_run.log.info("mine after")
        step.run("two", lambda: user_logger.info("inside two"))

    run = harness.send_and_settle("a/b")
    harness.advance(61)

    mine = [r for r in records if r.name in ("users.module", "flask_durable.run")]
    assert [r.getMessage() for r in mine] == [
        "before",
        "mine before",
        "inside one",
        "between",
        "after",
        "mine after",
        "inside two",
    ]
    assert {r.durable_run_id for r in mine} == {run.id}
    assert {r.durable_function for r in mine} == {"work"}
    assert [r.durable_step for r in mine if "inside" in r.getMessage()] == [
        "one",
        "two",
    ]
    assert {r.durable_attempt for r in mine} == {1}
    assert {r.durable_event_id for r in mine} == {run.event.id}


def test_our_own_lines_have_a_stable_action(
    harness: Harness, records: list[t.Any]
) -> None:
    @harness.durable.function(on="a/b", retries=1)
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("broken", lambda: 1 / 0)

    harness.send_and_settle("a/b")
    harness.advance(60)

    actions = [getattr(r, "action", None) for r in records]
    assert [a for a in actions if a] == ["step_retry", "step_failed", "run_failed"]


def test_lines_of_a_branch_carry_its_run_and_its_name(
    harness: Harness, records: list[t.Any]
) -> None:
    def chunk(item: str, step: Step) -> None:
        user_logger.info("in %s", item)
        step.run("look", lambda: user_logger.info("looks at %s", item))

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        user_logger.info("before")
        step.map("chunks", chunk, ["a", "b"])
        user_logger.info("after")

    run = harness.send_and_settle("a/b")

    mine = [r for r in records if r.name == "users.module"]
    assert [(r.getMessage(), r.durable_branch, r.durable_step) for r in mine] == [
        ("before", None, None),
        ("in a", "chunks[0]", None),
        ("looks at a", "chunks[0]", "chunks[0]/look"),
        ("in b", "chunks[1]", None),
        ("looks at b", "chunks[1]", "chunks[1]/look"),
        ("after", None, None),
    ]
    assert {r.durable_run_id for r in mine} == {run.id}
    assert mine[1].durable_suffix == f" [work/chunks[0] run={run.id} attempt=1]"
    assert mine[2].durable_suffix == f" [work/chunks[0]/look run={run.id} attempt=1]"


def told(records: list[t.Any], *actions: str) -> list[str]:
    return [r.getMessage() for r in records if getattr(r, "action", "") in actions]


def test_a_fan_out_has_one_line_at_its_end_and_one_for_each_failed_branch(
    harness: Harness, records: list[t.Any]
) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.map("chunks", lambda item: 1 // item, [0, 1, 2], tolerate=1)
        step.sleep("nap", 60)

    run = harness.send_and_settle("a/b")
    harness.advance(61)

    (end,) = told(records, "branches_ended")
    assert end.startswith(f"Step 'chunks' of run {run.id} goes on after ")
    assert end.endswith(": 2 of its branches completed, 1 failed.")
    (failed,) = told(records, "branch_failed")
    assert failed.startswith(f"Branch chunks[0] of run {run.id} failed: ZeroDivision")
    assert told(records, "run_failed") == []
    assert told(records, "run_completed") == [f"Run {run.id} of work completed."]


def test_a_wait_has_a_line_at_its_begin_and_at_its_end(
    harness: Harness, records: list[t.Any]
) -> None:
    @harness.durable.function(on=None)
    def callee(event: Event[t.Any], step: Step) -> None:
        step.sleep("nap", 60)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.wait_for_signal("answer", "approve", timeout=90)
        step.wait_for_event("paid", "a/paid", timeout=90)
        step.invoke("call", callee)

    run = harness.send_and_settle("a/b")
    with harness.app.app_context():
        harness.durable.signal(run.id, "approve")
    harness.settle()
    for _ in range(3):
        harness.advance(91)

    begun = f"of run {run.id} waits for"
    assert told(records, "wait_began") == [
        f"Step 'answer' {begun} the signal approve.",
        f"Step 'paid' {begun} a/paid.",
    ]
    assert [line.partition(": ")[2] for line in told(records, "wait_ended")] == [
        "it has its answer.",
        "its time was over.",
        "it has its answer.",
    ]


def test_the_end_of_a_wait_is_told_by_one_attempt(
    harness: Harness, records: list[t.Any]
) -> None:
    fails = [1, 2]

    @harness.durable.function(on="a/b", backoff=Backoff("1s"))
    def work(event: Event[t.Any], step: Step) -> None:
        step.wait_for_signal("answer", "approve", timeout="1d")
        if fails and fails.pop():
            raise OSError("not now")

    run = harness.send_and_settle("a/b")
    with harness.app.app_context():
        harness.durable.signal(run.id, "approve")
    harness.settle()
    harness.advance(10)
    harness.advance(10)

    assert harness.runs.get(run.id).status == "completed"
    assert len(told(records, "body_retry")) == 2
    assert len(told(records, "wait_ended")) == 1


def test_outside_a_run_records_have_the_fields_empty(records: list[t.Any]) -> None:
    user_logger.info("nothing")

    assert records[0].durable_run_id is None
    assert records[0].durable_suffix == ""
    assert not current_run
    with pytest.raises(RuntimeError, match="no current run"):
        current_run.id  # noqa: B018
