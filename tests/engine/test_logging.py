"""Records carry the run they belong to, and a replay does not log again."""

from __future__ import annotations

import logging
import typing as t

import pytest

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


def test_outside_a_run_records_have_the_fields_empty(records: list[t.Any]) -> None:
    user_logger.info("nothing")

    assert records[0].durable_run_id is None
    assert records[0].durable_suffix == ""
    assert not current_run
    with pytest.raises(RuntimeError, match="no current run"):
        current_run.id  # noqa: B018
