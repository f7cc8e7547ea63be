"""Polling: looks, the time between them, their retries, and their end."""

from __future__ import annotations

import functools
import typing as t

import pytest

from flask_durable import current_run
from flask_durable import Durable
from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepUsageError
from flask_durable.cli.timeline import describe
from flask_durable.store.memo import Memo

from ..support.harness import Harness


class Looks:
    """A check that finds *found* in its last answer; an error is raised."""

    def __init__(self, *answers: t.Any) -> None:
        self.answers = list(answers)
        self.number = 0

    def __call__(self) -> t.Any:
        self.number += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def poll_in(durable: Durable, check: t.Callable[[], t.Any], **given: t.Any) -> None:
    options = {"every": "30s", "timeout": "1h", **given}

    @durable.function(on="job/started", retries=1)
    def job(event: Event[t.Any], step: Step) -> t.Any:
        return [step.poll("ready", check, **options)]


def start(harness: Harness) -> None:
    harness.send("job/started", {}, id="job")
    harness.settle()


def result(harness: Harness) -> t.Any:
    run = harness.run_of("job")
    assert run.status == RunStatus.COMPLETED, (run.status, run.reason, run.failure)
    return run.result


def memo_of(harness: Harness, step: str = "ready") -> tuple[str, Memo]:
    run_id = harness.run_of("job").id
    key = f"{harness.state.store.keys.tag_of(run_id)}:steps:{run_id}"
    return key, Memo.parse(str(harness.state.server.client.hget(key, step)))


def end_time(harness: Harness) -> None:
    """Let the time of the poll be over, before its next look."""
    key, memo = memo_of(harness)
    text = str(memo).replace(str(memo.looks.ends), "1")
    harness.state.server.client.hset(key, "ready", text)


def test_it_looks_until_something_is_there(any_harness: Harness) -> None:
    """1.13: calls check as a step until it returns something else than None."""
    looks = Looks(None, None, {"at": 7})
    poll_in(any_harness.durable, looks)

    start(any_harness)
    for number in (1, 2):
        assert looks.number == number
        any_harness.advance(28)
        assert looks.number == number
        any_harness.advance(3)

    assert result(any_harness) == [{"at": 7}]
    assert looks.number == 3


@pytest.mark.parametrize("found", [0, False, "", [], {}])
def test_only_none_is_nothing(harness: Harness, found: t.Any) -> None:
    """1.13: until it returns something else than None."""
    poll_in(harness.durable, Looks(found))
    start(harness)
    assert result(harness) == [found]


def test_between_two_looks_the_run_holds_nothing(any_harness: Harness) -> None:
    """1.13: between two looks the run is suspended: no thread, no message, no lease."""
    poll_in(any_harness.durable, Looks(None, 1))
    start(any_harness)

    run = any_harness.run_of("job")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "poll")
    store = any_harness.state.store
    assert not any_harness.state.server.client.zcard(
        f"{store.keys.tag_of(run.id)}:leases"
    )
    counts = any_harness.state.transport.counts("default")
    assert not any((counts.waiting, counts.in_flight, counts.delayed))


def test_a_look_that_raises_is_retried_as_any_step(any_harness: Harness) -> None:
    """1.13: a look that raises is retried as any step."""
    looks = Looks(None, OSError("away"), None, OSError("away"), "here")
    poll_in(any_harness.durable, looks)

    start(any_harness)
    while any_harness.run_of("job").status != RunStatus.COMPLETED:
        any_harness.advance(31)

    # Each look has the function's one retry to itself.
    assert result(any_harness) == ["here"]
    [step] = any_harness.run_of("job").steps
    assert (step.looks, step.attempt, step.status) == (3, 2, "done")


def test_a_look_that_fails_for_good_fails_the_step(any_harness: Harness) -> None:
    """1.13: after its retries it is a StepError, which the body may catch."""
    caught = []

    @any_harness.durable.function(on="job/started", retries=1)
    def job(event: Event[t.Any], step: Step) -> None:
        looks = Looks(OSError("away"))
        try:
            step.poll("ready", looks, every="30s", timeout="1h")
        except StepError as error:
            caught.append((error.step, error.failure.type, error.failure.attempt))

    start(any_harness)
    any_harness.advance(31)

    assert any_harness.run_of("job").status == RunStatus.COMPLETED
    assert caught == [("ready", "OSError", 2)]
    [step] = any_harness.run_of("job").steps
    assert (step.looks, step.status) == (1, "failed")


def test_only_the_last_result_is_stored_with_the_number_of_looks(
    any_harness: Harness,
) -> None:
    """1.13: only the last result is stored, with the number of looks."""
    poll_in(any_harness.durable, Looks(*[None] * 30, "here"))
    start(any_harness)
    sizes = set()
    for _ in range(30):
        sizes.add(len(str(memo_of(any_harness)[1])))
        any_harness.advance(31)

    assert result(any_harness) == ["here"]
    [step] = any_harness.run_of("job").steps
    assert (step.kind, step.looks, step.value) == ("poll", 31, "here")
    assert max(sizes) - min(sizes) <= 1  # one digit of the number


def test_it_returns_none_when_its_time_is_over(any_harness: Harness) -> None:
    """1.13: a last look is made at the end, and then the result is None."""
    looks = Looks(None, None)
    poll_in(any_harness.durable, looks)
    start(any_harness)
    end_time(any_harness)
    any_harness.advance(31)

    assert result(any_harness) == [None]
    [step] = any_harness.run_of("job").steps
    assert (looks.number, step.looks, step.status) == (2, 2, "done")


def test_the_last_look_may_still_find_it(any_harness: Harness) -> None:
    """1.13: what is there when the time is over is found."""
    poll_in(any_harness.durable, Looks(None, "late"))
    start(any_harness)
    end_time(any_harness)
    any_harness.advance(31)

    assert result(any_harness) == ["late"]


def test_the_last_look_comes_when_the_time_is_over_and_not_later(
    any_harness: Harness,
) -> None:
    """1.13: the end is no multiple of the time between two looks."""
    looks = Looks(None, "here")
    poll_in(any_harness.durable, looks, every="1d", timeout="1h")
    start(any_harness)
    any_harness.advance(3590)
    assert looks.number == 1
    any_harness.advance(12)
    assert result(any_harness) == ["here"]


def test_its_end_is_fixed_when_it_is_first_reached(any_harness: Harness) -> None:
    """1.13: fixed by the state server's clock, also if a worker dies in a look."""
    ends = []

    def check() -> str | None:
        ends.append(memo_of(any_harness)[1].looks.ends)
        if len(ends) == 2:
            raise OSError("away")
        return "here" if len(ends) == 4 else None

    poll_in(any_harness.durable, check)
    start(any_harness)
    for _ in range(4):
        any_harness.advance(31)

    assert result(any_harness) == ["here"]
    assert len(ends) == 4
    assert len(set(ends)) == 1
    created = any_harness.run_of("job").created.timestamp() * 1000
    assert 3_600_000 <= ends[0] - created < 3_700_000


def test_a_run_that_is_retried_between_two_looks_waits_for_the_next(
    any_harness: Harness,
) -> None:
    """1.13: between two looks the run is suspended, whatever happened to it."""
    looks = Looks(None, "here")
    poll_in(any_harness.durable, looks)
    start(any_harness)
    due = any_harness.run_of("job").steps[0].due
    any_harness.runs.cancel(any_harness.run_of("job").id)
    any_harness.runs.retry(any_harness.run_of("job").id)
    any_harness.settle()

    run = any_harness.run_of("job")
    assert (run.reason, looks.number) == ("poll", 1)
    assert run.steps[0].due == due
    any_harness.advance(31)
    assert result(any_harness) == ["here"]


def test_a_run_that_is_retried_after_the_next_look_was_due_looks_at_once(
    harness: Harness,
) -> None:
    """1.13: the time of the next look is fixed as well."""
    poll_in(harness.durable, Looks(None, "here"))
    start(harness)
    harness.runs.cancel(harness.run_of("job").id)
    key, memo = memo_of(harness)
    text = str(memo).replace(f" {memo.number} ", " 1 ")
    harness.state.server.client.hset(key, "ready", text)
    harness.runs.retry(harness.run_of("job").id)
    harness.settle()

    assert result(harness) == ["here"]


def test_branches_poll_by_themselves(any_harness: Harness) -> None:
    """1.13 in branches: each has its own looks."""
    looks = {"a": Looks(None, 1), "b": Looks(None, None, 2)}

    def wait(name: str, step: Step) -> t.Any:
        return step.poll("ready", looks[name], every="30s", timeout="1h")

    @any_harness.durable.function(on="job/started")
    def job(event: Event[t.Any], step: Step) -> t.Any:
        return step.parallel(
            "both", a=functools.partial(wait, "a"), b=functools.partial(wait, "b")
        )

    start(any_harness)
    any_harness.advance(31)
    assert [each.number for each in looks.values()] == [2, 2]
    any_harness.advance(31)

    assert result(any_harness) == {"a": 1, "b": 2}
    assert [each.number for each in looks.values()] == [2, 3]


def test_a_look_is_a_step(harness: Harness) -> None:
    """1.13: as a step, with its options, its name, and its checkpoint."""
    seen: list[t.Any] = []

    def check() -> str | None:
        step = current_run.step
        assert step is not None
        seen.append((step.name, step.attempt, step.resumed_from))
        if len(seen) == 1:
            step.checkpoint(7)
            raise KeyError("no")
        return None if len(seen) == 2 else "here"

    @harness.durable.function(on="job/started", retries=0)
    def job(event: Event[t.Any], step: Step) -> t.Any:
        patient = step.options(retries=1)
        return patient.poll("ready", check, every="30s", timeout="1h")

    start(harness)
    for _ in range(2):
        harness.advance(31)
    assert result(harness) == "here"
    # A checkpoint is for the next attempt of the same look.
    assert seen == [("ready", 1, None), ("ready", 2, 7), ("ready", 1, None)]


def test_the_result_has_the_type_of_the_check(harness: Harness) -> None:
    """1.13: stored by its return annotation."""

    def check() -> tuple[int, bytes] | None:
        return 1, b"x"

    @harness.durable.function(on="job/typed")
    def typed(event: Event[t.Any], step: Step) -> bool:
        found = step.poll("ready", check, every="30s", timeout="1h")
        step.sleep("replay", "1m")
        return found == (1, b"x")

    harness.send("job/typed", {}, id="typed")
    harness.settle()
    harness.advance(61)
    assert harness.run_of("typed").result is True


def test_a_run_shows_the_looks_and_the_next_one(any_harness: Harness) -> None:
    """1.13: with the number of looks, and the time of the next one."""
    poll_in(any_harness.durable, Looks(None, None))
    start(any_harness)
    any_harness.advance(31)

    run = any_harness.run_of("job")
    [step] = run.steps
    assert (step.kind, step.status, step.looks, step.attempt) == (
        "poll",
        "waiting",
        2,
        0,
    )
    assert step.due is not None
    assert step.started is not None
    assert 25 < (step.due - run.created).total_seconds() < 60
    shown = "\n".join(describe(run))
    assert "ready (poll)" in shown
    assert "waiting, 2 looks" in shown
    assert f"until {step.due:%Y-%m-%d %H:%M:%S}" in shown


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": None}, "no timeout"),
        ({"every": None}, "every=None"),
        ({"every": "0.5s"}, "1 second is the shortest"),
        ({"every": "now"}, "not a duration"),
        ({"timeout": "soon"}, "not a duration"),
    ],
)
def test_a_poll_that_could_not_end_well_is_refused(
    harness: Harness, options: dict[str, t.Any], told: str
) -> None:
    """1.13: an error says what to do."""
    looks = Looks()
    poll_in(harness.durable, looks, **options)
    start(harness)

    run = harness.run_of("job")
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == StepUsageError.code
    assert told in run.failure.message
    assert looks.number == 0


def test_a_poll_runs_more_than_once(harness: Harness) -> None:
    """1.13: at_most_once is refused."""

    @harness.durable.function(on="job/started")
    def job(event: Event[t.Any], step: Step) -> None:
        once = step.options(at_most_once=True)
        once.poll("ready", Looks(), every="30s", timeout="1h")

    start(harness)
    failure = harness.run_of("job").failure
    assert failure is not None
    assert "at_most_once" in failure.message
