"""Replays: names of steps and their places, their order, memos of another call."""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from datetime import datetime
from datetime import timedelta

import pytest

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepUsageError
from flask_durable.common.ids import new_event_id

from ..support.harness import Harness
from .bodies import run_body


def changes(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    found = [r for r in caplog.records if r.__dict__.get("action")]
    return [r for r in found if r.__dict__["action"] == "step_call_changed"]


def test_steps_are_listed_in_the_order_they_began(harness: Harness) -> None:
    names = [f"{name} {'x' * 60}" for name in "qazwsxedcrfvtgbyhnujm"]

    def body(event: Event[t.Any], step: Step) -> None:
        for name in names:
            step.run(name, lambda: None)
        step.sleep("nap", 1)
        step.run("last", lambda: None)

    run = run_body(harness, body)
    harness.advance(2)

    steps = harness.runs.get(run.id).steps
    assert [step.name for step in steps] == [*names, "nap", "last"]


def test_a_step_that_a_retry_calls_again_comes_last(harness: Harness) -> None:
    broken = [True]

    def fragile() -> None:
        if broken[0]:
            raise ValueError("broken")

    def body(event: Event[t.Any], step: Step) -> None:
        for name in ("one", "two"):
            step.run(name, lambda: None)
        try:
            step.run("fragile", fragile)
        except StepError as error:
            step.run("tell", lambda: None)
            raise error
        step.run("three", lambda: None)

    run = run_body(harness, body, retries=0)
    broken.clear()
    broken.append(False)
    harness.runs.retry(run.id)
    harness.settle()

    names = [step.name for step in harness.runs.get(run.id).steps]
    assert names == ["one", "two", "tell", "fragile", "three"]


def test_a_steps_times_are_not_this_hosts_time_of_day(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time

    def slow() -> None:
        monkeypatch.setattr(time, "time", lambda: right() - 7200)

    def body(event: Event[t.Any], step: Step) -> None:
        step.run("slow", slow)
        step.run("next", lambda: None)
        step.sleep("nap", 1)

    run = run_body(harness, body)
    harness.advance(2)
    monkeypatch.undo()

    slow_step, next_step, nap = harness.runs.get(run.id).steps
    for step in (slow_step, next_step, nap):
        assert step.started is not None
        assert abs(step.started - run.created) < timedelta(minutes=10)
        assert step.duration is not None
        assert 0 <= step.duration < 600


def test_all_attempts_of_a_step_are_kept_with_their_times(harness: Harness) -> None:
    tries = iter([ValueError("1"), ValueError("2"), None])

    def flaky() -> None:
        error = next(tries)
        if error is not None:
            raise error

    def body(event: Event[t.Any], step: Step) -> None:
        step.run("flaky", flaky)

    run = run_body(harness, body, retries=3)
    harness.advance(60)
    harness.advance(600)

    (step,) = harness.runs.get(run.id).steps
    assert [attempt.number for attempt in step.attempts] == [1, 2, 3]
    assert step.started == step.attempts[-1].started


ROWS = [{"id": "A"}, {"id": "B"}, {"id": "C"}]


def fetch(row: t.Any) -> str:
    return f"data of {row['id']}"


def test_a_name_used_for_two_dictionaries_is_warned_about(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    def body(event: Event[t.Any], step: Step) -> None:
        for row in ROWS:
            step.run("fetch", fetch, row)

    run_body(harness, body)

    assert len([r for r in caplog.records if "used again" in r.message]) == 1


def test_a_name_used_for_equal_dictionaries_is_not(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    def body(event: Event[t.Any], step: Step) -> None:
        step.run("fetch", fetch, {"id": 1, "b": [1.5, None]})
        step.run("fetch", fetch, {"b": [1.5, None], "id": 1})

    run_body(harness, body)

    assert not [r for r in caplog.records if "used again" in r.message]


@pytest.mark.parametrize("kept", [ROWS[1:], ROWS[2:]])
def test_rows_that_are_filtered_out_give_no_row_the_result_of_another(
    harness: Harness, kept: list[dict[str, str]]
) -> None:
    rows = [*ROWS]

    def body(event: Event[t.Any], step: Step) -> list[str]:
        found = [step.run("fetch", fetch, row) for row in rows]
        step.sleep("nap", 1)
        return found

    run = run_body(harness, body)
    rows[:] = kept
    harness.advance(2)

    run = harness.runs.get(run.id)
    assert run.status == RunStatus.PAUSED
    assert run.failure is not None
    assert run.failure.code == "replay.mismatch"
    assert run.failure.step == "fetch"


def test_events_of_rows_that_are_filtered_out_are_not_taken_for_sent(
    harness: Harness,
) -> None:
    rows = [*ROWS]

    def body(event: Event[t.Any], step: Step) -> None:
        for row in rows:
            step.send_event("tell", Event("row/found", row))
        step.sleep("nap", 1)

    run = run_body(harness, body)
    rows[:] = ROWS[1:]
    harness.advance(2)

    assert harness.runs.get(run.id).status == RunStatus.PAUSED


def test_a_paused_replay_goes_on_with_code_that_asks_for_what_is_stored(
    harness: Harness,
) -> None:
    rows = [*ROWS]

    def body(event: Event[t.Any], step: Step) -> list[str]:
        found = [step.run("fetch", fetch, row) for row in rows]
        step.sleep("nap", 1)
        return found

    run = run_body(harness, body)
    rows[:] = ROWS[1:]
    harness.advance(2)
    rows[:] = ROWS
    harness.runs.resume(run.id)
    harness.settle()

    assert harness.runs.get(run.id).result == [fetch(row) for row in ROWS]


def test_a_stored_result_stands_for_another_call_and_each_run_tells_of_it_once(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    def body(event: Event[t.Any], step: Step) -> t.Any:
        first = step.run("one", str, new_event_id())
        step.sleep("nap", 1)
        again = step.run("two", str, new_event_id())
        step.sleep("again", 1)
        return [first, again]

    run = run_body(harness, body)
    first = harness.runs.get(run.id).steps[0].value
    harness.advance(2)
    harness.advance(2)

    run = harness.runs.get(run.id)
    assert run.result[0] == first
    assert run.changed_step == "one"
    assert len(changes(caplog)) == 1


def test_a_step_without_an_outcome_may_be_called_otherwise(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    asked = ["wrong"]

    def check(text: str) -> str:
        if text == "wrong":
            raise ValueError(text)
        return text

    def body(event: Event[t.Any], step: Step) -> list[str]:
        return [step.run("check", check, text) for text in ("right", *asked)]

    run = run_body(harness, body, retries=3)
    asked[:] = ["better"]
    harness.advance(60)

    assert harness.runs.get(run.id).result == ["right", "better"]
    assert changes(caplog) == []


def test_objects_that_no_other_process_has_are_not_compared(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    def body(event: Event[t.Any], step: Step) -> list[str]:
        found = [
            step.run("type", lambda *args: type(args[0]).__name__, object(), {object()})
            for _ in range(2)
        ]
        step.sleep("nap", 1)
        return found

    run = run_body(harness, body)
    harness.advance(2)

    assert harness.runs.get(run.id).result == ["object", "object"]
    assert changes(caplog) == []


def test_the_nth_use_of_a_name_has_a_memo_of_its_own(harness: Harness) -> None:
    def body(event: Event[t.Any], step: Step) -> list[int]:
        return [step.run("item", lambda n: n * n, n) for n in range(3)]

    run = run_body(harness, body)

    assert run.result == [0, 1, 4]
    assert [s.name for s in run.steps] == ["item", "item#2", "item#3"]


def test_a_name_used_with_other_arguments_is_warned_about(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    def body(event: Event[t.Any], step: Step) -> None:
        for n in range(3):
            step.run("fetch", abs, n)

    run_body(harness, body)

    assert len([r for r in caplog.records if "other arguments" in r.message]) == 1


def test_a_name_that_looks_counted_is_refused(harness: Harness) -> None:
    def body(event: Event[t.Any], step: Step) -> None:
        step.run("item#2", abs, 1)

    run = run_body(harness, body)

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "step.usage"


def test_a_step_name_that_cannot_be_encoded_fails_the_run_with_the_reason(
    harness: Harness,
) -> None:
    calls: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("read-\udcff.mp3", lambda: calls.append(1))

    run = harness.send_and_settle("a/b")

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "step.usage"
    assert calls == []


def test_a_changed_kind_of_step_pauses_the_run(harness: Harness) -> None:
    kinds = ["run", "sleep"]

    def body(event: Event[t.Any], step: Step) -> None:
        if kinds[0] == "run":
            step.run("x", lambda: 1)
        else:
            step.sleep("x", 1)
        step.sleep("wait", 60)

    run = run_body(harness, body)
    kinds.reverse()
    harness.advance(61)

    run = harness.runs.get(run.id)
    assert run.status == RunStatus.PAUSED
    assert run.failure is not None
    assert run.failure.code == "replay.mismatch"

    kinds.reverse()
    harness.runs.resume(run.id)
    harness.settle()
    assert harness.runs.get(run.id).status == RunStatus.COMPLETED


def test_steps_are_refused_where_they_cannot_be_durable(harness: Harness) -> None:
    kept: list[Step] = []
    errors: dict[str, str] = {}

    def attempt(name: str, call: t.Callable[[], t.Any]) -> None:
        try:
            call()
        except StepUsageError as error:
            errors[name] = str(error)

    def body(event: Event[t.Any], step: Step) -> None:
        kept.append(step)

        def nested() -> None:
            attempt("nested", lambda: step.run("inner", abs, 1))

        step.run("outer", nested)
        thread = threading.Thread(
            target=attempt, args=("thread", lambda: step.run("t", abs, 1))
        )
        thread.start()
        thread.join()
        attempt("naive", lambda: step.sleep_until("n", datetime(2030, 1, 1)))
        attempt("duration", lambda: step.sleep("d", "soon"))
        attempt("send", lambda: harness.durable.send("x/y"))

    run = run_body(harness, body)
    attempt("later", lambda: kept[0].run("x", abs, 1))

    assert run.status == RunStatus.COMPLETED
    assert set(errors) == {"nested", "thread", "naive", "duration", "send", "later"}
    assert "step.send_event" in errors["send"]
