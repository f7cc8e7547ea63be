"""Long steps: checkpoints, drains in the middle, and progress.

The numbers are those of the sentences in the programming model.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
import typing as t

import pytest

from flask_durable import current_run
from flask_durable import Event
from flask_durable import NonRetriable
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepUsageError
from flask_durable.common import interruption
from flask_durable.common.interruption import ShutdownInterrupt
from flask_durable.engine import progress
from flask_durable.engine.control import OwnershipLost
from flask_durable.engine.steps import checkpoint
from flask_durable.errors import PayloadLocked
from flask_durable.store import run_store

from ..support.harness import Harness
from ..support.servers import ValkeyServer
from ..support.servers import wait_until

KEY = "dGhlIGtleSBvZiBhIHRlc3QsIDMyIGJ5dGVzIGxvbmc="


class Clock:
    """The monotonic clock of checkpoints and of progress, which a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (checkpoint, progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Writes:
    """The calls of one script."""

    def __init__(
        self, harness: Harness, script: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.count = 0
        server = harness.state.server
        call = server.call

        def counted(name: str, *args: t.Any) -> t.Any:
            self.count += name == script
            return call(name, *args)

        monkeypatch.setattr(server, "call", counted)


def here() -> t.Any:
    """Return the step whose body is running."""
    assert current_run.step is not None
    return current_run.step


def declare(
    harness: Harness,
    body: t.Callable[[], t.Any],
    *,
    retries: int = 3,
    **options: t.Any,
) -> None:
    """Declare a function whose one step calls *body*."""

    @harness.durable.function(on="work/long", id="long", retries=retries)
    def long(event: Event[t.Any], step: Step) -> t.Any:
        return step.options(**options).run("long", body)


def run_step(harness: Harness, body: t.Callable[[], t.Any], **options: t.Any) -> Run:
    """Run *body* as the step of a new run, settle, and return the run."""
    declare(harness, body, **options)
    return harness.send_and_settle("work/long")


def attempt_once(harness: Harness, event: str) -> Run:
    """Let the run of *event* be claimed once, by a worker that does not drain."""
    harness.state.services.draining.clear()
    wait_until(lambda: harness.route() + harness.execute() > 0)
    return harness.run_of(event)


def again(harness: Harness, run: Run, seconds: float = 3600) -> Run:
    """Let *seconds* go by, settle, and return the run as it is then."""
    harness.advance(seconds)
    return t.cast(Run, harness.runs.get(run.id))


def die(harness: Harness, run: Run) -> None:
    """Have the worker that owns *run* die: its lease runs out."""
    harness.expire_leases()


def drain(harness: Harness) -> None:
    harness.state.services.draining.set()


# -- 3.1 ------------------------------------------------------------------------------


def test_a_retried_body_goes_on_from_its_checkpoint(any_harness: Harness) -> None:
    """3.1: The next attempt finds the value as ``resumed_from``, None at first."""
    found: list[t.Any] = []

    def body() -> str:
        found.append(here().resumed_from)
        if here().attempt < 3:
            here().checkpoint({"line": len(found), "seen": ["ä", 1.5, None]})
            raise OSError("not yet")
        return "done"

    run = run_step(any_harness, body)
    run = again(any_harness, run)
    run = again(any_harness, run)

    assert run.result == "done"
    assert found == [
        None,
        {"line": 1, "seen": ["ä", 1.5, None]},
        {"line": 2, "seen": ["ä", 1.5, None]},
    ]


def test_a_body_that_died_goes_on_from_what_was_stored_last(
    any_harness: Harness, clock: Clock
) -> None:
    """3.1: Also after a death: the call is no attempt, and finds the last write."""
    found: list[t.Any] = []

    def body() -> str:
        step = here()
        found.append((step.attempt, step.resumed_from))
        if len(found) == 1:
            step.checkpoint(1)
            step.checkpoint(2)  # within a second of the write: it is held back
            raise die_in_body(any_harness)
        return "done"

    run = run_step(any_harness, body)
    assert run.status == RunStatus.RUNNING
    die(any_harness, run)
    run = again(any_harness, run, 0)

    assert run.result == "done"
    assert found == [(1, None), (1, 1)]


def test_at_most_one_checkpoint_a_second_is_written_unless_forced(
    any_harness: Harness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.1: At most once a second unless ``force``."""
    writes = Writes(any_harness, "step_checkpoint", monkeypatch)
    counts: list[int] = []

    def body() -> None:
        for n, force, seconds in (
            (1, False, 0.5),
            (2, False, 0.4),
            (3, False, 0.1),
            (4, False, 0.5),
            (5, True, 0.9),
            (6, False, 0.1),
            (7, False, 0.0),
            (7, True, 0.0),  # it is stored already
        ):
            here().checkpoint(n, force=force)
            counts.append(writes.count)
            clock.now += seconds

    assert run_step(any_harness, body).status == RunStatus.COMPLETED
    assert counts == [1, 1, 1, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("ends", ["error", "interrupt"])
def test_a_body_that_ends_early_leaves_its_newest_checkpoint(
    any_harness: Harness, clock: Clock, ends: str
) -> None:
    """3.1: Always when the body ends by an error or an interrupt."""
    found: list[t.Any] = []

    def body() -> str:
        found.append(here().resumed_from)
        if len(found) == 1:
            here().checkpoint("written")
            here().checkpoint("held back")
            if ends == "error":
                raise OSError("not yet")
            interrupt(any_harness)
        return "done"

    run = run_step(any_harness, body)
    run = again(any_harness, run)

    assert run.result == "done"
    assert found == [None, "held back"]


def test_a_step_that_timed_out_leaves_its_newest_checkpoint(harness: Harness) -> None:
    """3.1: A timeout is an error of the attempt."""
    found: list[t.Any] = []

    def body() -> str:
        found.append(here().resumed_from)
        if len(found) == 1:
            here().checkpoint("first")
            here().checkpoint("second")
            while True:
                time.sleep(0.001)
        return "done"

    run = run_step(harness, body, timeout=0.05)
    run = again(harness, run)

    assert run.result == "done"
    assert found == [None, "second"]


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_a_checkpoint_is_removed_when_its_step_ends(
    any_harness: Harness, outcome: str
) -> None:
    """3.1: Nothing of it is left, neither in the memo nor in the run's bytes."""
    inside: list[str] = []

    def body() -> str:
        here().checkpoint("x" * 5000)
        inside.append(stored_bytes(any_harness, current_run.id))
        if outcome == "failed":
            raise NonRetriable("no")
        return "done"

    run = run_step(any_harness, body)

    assert [step.status for step in run.steps] == [outcome]
    assert run.steps[0].checkpoint is None
    assert "xxx" not in str(memos_of(any_harness, run.id))
    assert int(inside[0]) > 5000 > int(stored_bytes(any_harness, run.id))


def test_the_retry_of_a_failed_run_begins_without_a_checkpoint(
    harness: Harness,
) -> None:
    """3.1: The failed step has ended, and its checkpoint with it."""
    found: list[t.Any] = []

    def body() -> None:
        found.append(here().resumed_from)
        here().checkpoint("there")
        raise NonRetriable("no")

    run = run_step(harness, body)
    harness.runs.retry(run.id)
    harness.settle()

    assert found == [None, None]


def test_a_checkpoint_counts_within_the_bytes_of_its_run(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.1: A run that has reached its limit fails, as by a result."""
    monkeypatch.setattr(run_store, "MAX_MEMO_BYTES", 4000)

    run = run_step(harness, lambda: here().checkpoint("x" * 5000))

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert "limit" in run.failure.message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 64 * 1024, "larger than 64 KiB"),
        ("ä" * 33 * 1024, "larger than 64 KiB"),
        ({"rows": [object()]}, 'checkpoint["rows"][0]'),
        (float("nan"), "checkpoint"),
    ],
)
def test_what_cannot_be_a_checkpoint_is_refused(
    harness: Harness, value: t.Any, said: str
) -> None:
    """3.1: JSON, at most 64 KiB."""
    run = run_step(harness, lambda: here().checkpoint(value))

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert said in run.failure.message
    assert run.failure.code == StepUsageError.code


def test_a_checkpoint_of_64_kib_is_taken(harness: Harness) -> None:
    """3.1: At most 64 KiB."""
    run = run_step(harness, lambda: here().checkpoint("x" * (64 * 1024 - 2)))

    assert run.status == RunStatus.COMPLETED


def test_a_checkpoint_is_encrypted_like_a_result(
    valkey: ValkeyServer, namespace: str
) -> None:
    """3.1: It is the user's data."""
    harness = Harness(valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=[KEY])
    found: list[t.Any] = []
    memos: list[str] = []

    def body() -> str:
        found.append(here().resumed_from)
        if here().attempt == 2:
            return "done"
        here().checkpoint({"secret": "gooseberry"})
        memos.append(str(memos_of(harness, current_run.id)))
        raise OSError("not yet")

    run = run_step(harness, body)
    memos.append(str(memos_of(harness, run.id)))
    assert run.steps[0].checkpoint == {"secret": "gooseberry"}
    again(harness, run)
    harness.close()

    assert found == [None, {"secret": "gooseberry"}]
    assert not [memo for memo in memos if "gooseberry" in memo]


def test_a_checkpoint_that_cannot_be_read_pauses_the_run(
    valkey: ValkeyServer, namespace: str
) -> None:
    """3.1: A body never begins from nothing because a key is missing."""
    harness = Harness(valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=[KEY])
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        here().checkpoint("half")
        raise OSError("not yet")

    run = run_step(harness, body)
    harness.state.services.payloads._cipher = None
    run = again(harness, run)
    harness.close()

    assert run.status == RunStatus.PAUSED
    assert PayloadLocked.__name__ in str(run.failure) or "key" in str(run.reason)
    assert calls == [1]


def test_a_thread_of_the_body_may_checkpoint_until_the_step_ends(
    harness: Harness,
) -> None:
    """3.1: The call of a thread that was left behind is refused."""
    refused: list[str] = []
    go_on = threading.Event()

    def late(step: t.Any) -> None:
        step.checkpoint("in time", force=True)
        go_on.wait(20)
        try:
            step.checkpoint("late", force=True)
        except StepUsageError as error:
            refused.append(str(error))

    threads: list[threading.Thread] = []

    def body() -> str:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(late, here()))
        threads.append(thread)
        thread.start()
        wait_until(lambda: "in time" in str(memos_of(harness, current_run.id)))
        return "done"

    run = run_step(harness, body)
    go_on.set()
    threads[0].join(20)

    assert "has ended" in refused[0]
    assert harness.runs.get(run.id).result == "done"


def test_the_usual_step_costs_no_call_more(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.1: A step without a checkpoint is one call, and its memo as it was."""
    checkpoints = Writes(harness, "step_checkpoint", monkeypatch)
    progresses = Writes(harness, "run_progress", monkeypatch)
    commits = Writes(harness, "step_commit", monkeypatch)

    run = run_step(harness, lambda: here().resumed_from)

    assert (commits.count, checkpoints.count, progresses.count) == (1, 0, 0)
    assert "progress" not in record_of(harness, run.id)


# -- 3.1 and at_most_once -------------------------------------------------------------


def test_a_retry_of_an_at_most_once_step_finds_the_checkpoint(harness: Harness) -> None:
    """3.1: The retries that an at-most-once step was given go on from it."""
    found: list[t.Any] = []

    def body() -> str:
        found.append(here().resumed_from)
        if here().attempt < 3:
            here().checkpoint(here().attempt)
            raise OSError("not yet")
        return "done"

    run = run_step(harness, body, at_most_once=True, retries=0)
    assert run.status == RunStatus.FAILED, "it has no retries of its own"

    found.clear()
    options = {"at_most_once": True, "retries": 2}

    @harness.durable.function(on="work/again")
    def once(event: Event[t.Any], step: Step) -> t.Any:
        return step.options(**t.cast(t.Any, options)).run("once", body)

    harness.publish()
    run = harness.send_and_settle("work/again")
    again(harness, run)
    assert again(harness, run).result == "done"
    assert found == [None, 1, 2]


def test_a_checkpoint_does_not_have_an_at_most_once_body_called_again(
    harness: Harness,
) -> None:
    """3.1: A death after a checkpoint is ``StepInterrupted``, as without one."""
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        here().checkpoint("half", force=True)
        raise die_in_body(harness)

    run = run_step(harness, body, at_most_once=True)
    assert run.steps[0].checkpoint == "half"
    die(harness, run)
    run = again(harness, run, 0)

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "step.interrupted"
    assert calls == [1]


def test_a_drain_does_not_interrupt_an_at_most_once_body_at_a_checkpoint(
    harness: Harness,
) -> None:
    """3.2: It could not begin again, so it has the time of the drain."""

    def body() -> str:
        drain(harness)
        here().checkpoint("half")
        return "done"

    run = run_step(harness, body, at_most_once=True)

    assert [step.status for step in run.steps] == ["done"]


# -- 3.2 ------------------------------------------------------------------------------


def test_a_drain_interrupts_a_body_at_its_checkpoint(any_harness: Harness) -> None:
    """3.2: The run is handed back, and nothing is counted; the value is stored."""
    found: list[t.Any] = []
    reached: list[str] = []

    def body() -> str:
        step = here()
        found.append((step.attempt, step.resumed_from))
        if len(found) < 8:  # more often than a run may be claimed without progress
            step.checkpoint(f"held {len(found)}", force=True)
            drain(any_harness)
            step.checkpoint(f"here {len(found)}")
            reached.append("past the checkpoint")
        return "done"

    declare(any_harness, body, retries=0)
    event = any_harness.send("work/long")
    for _ in range(7):
        run = attempt_once(any_harness, event)
        assert run.status == RunStatus.QUEUED
        assert run.dispatches == 0
    run = attempt_once(any_harness, event)

    assert run.result == "done"
    assert run.attempt == 1
    assert run.steps[0].attempt == 1
    assert reached == []
    assert found == [(1, None), *[(1, f"here {n}") for n in range(1, 8)]]


def test_a_body_that_catches_the_interruption_of_a_drain_changes_nothing(
    harness: Harness,
) -> None:
    """3.2: A bare ``except`` cannot keep the run: what it returns is refused."""
    found: list[t.Any] = []

    def body() -> str:
        found.append(here().resumed_from)
        if len(found) == 1:
            drain(harness)
            for _ in range(3):
                with contextlib.suppress(BaseException):
                    here().checkpoint("half")
            return "swallowed"
        return "done"

    declare(harness, body)
    event = harness.send("work/long")
    assert attempt_once(harness, event).status == RunStatus.QUEUED

    assert attempt_once(harness, event).result == "done"
    assert found == [None, "half"]


@pytest.mark.parametrize("how", ["cancelled", "lost"])
def test_a_run_that_is_not_ours_any_more_ends_at_a_checkpoint(
    any_harness: Harness, how: str
) -> None:
    """3.2: It is also where a lost or cancelled run stops; nothing is written."""
    reached: list[str] = []
    before: list[t.Any] = []

    def body() -> str:
        if before:
            return "by another worker"
        here().checkpoint("mine", force=True)
        if how == "cancelled":
            any_harness.runs.cancel(current_run.id)
        else:
            any_harness.expire_leases()
        before.append(memos_of(any_harness, current_run.id))
        here().checkpoint("not mine", force=True)
        reached.append("past the checkpoint")
        return "done"

    run = run_step(any_harness, body)

    assert reached == []
    assert "not mine" not in str(memos_of(any_harness, run.id))
    if how == "cancelled":
        assert run.status == RunStatus.CANCELLED
        assert memos_of(any_harness, run.id) == before[0]
    else:
        assert again(any_harness, run, 0).result == "by another worker"


# -- 3.3 ------------------------------------------------------------------------------


def test_progress_is_shown_with_its_run_at_once(any_harness: Harness) -> None:
    """3.3: 0 to 1 and a message, in ``Run.progress``."""
    shown: list[t.Any] = []

    def body() -> None:
        current_run.progress(0.25, "a\n quarter")
        shown.append(progress_of(any_harness, current_run.id))

    run = run_step(any_harness, body)

    assert shown == [(0.25, "a quarter")]
    assert run.progress is not None
    assert run.progress.at >= run.created


def test_at_most_one_progress_a_second_is_written_and_the_last_always(
    any_harness: Harness, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.3: At most one write a second; the last value arrives when the step ends."""
    writes = Writes(any_harness, "run_progress", monkeypatch)
    counts: list[int] = []

    def body() -> None:
        for n in range(10):
            current_run.progress(n / 10)
            counts.append(writes.count)
            clock.now += 0.25

    run = run_step(any_harness, body)

    assert counts == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    assert writes.count == 4
    assert progress_of(any_harness, run.id) == (0.9, "")


@pytest.mark.parametrize("ends", ["fails", "retries", "drains", "sleeps", "body"])
def test_the_last_progress_arrives_however_the_step_ends(
    harness: Harness, clock: Clock, ends: str
) -> None:
    """3.3: The value that was held back is written before the step's end."""

    def work() -> None:
        current_run.progress(0.1)
        current_run.progress(0.5, ends)
        if ends == "fails":
            raise NonRetriable("no")
        if ends == "retries":
            raise OSError("not yet")
        if ends == "drains":
            drain(harness)
            here().checkpoint(1)

    @harness.durable.function(on="work/long")
    def long(event: Event[t.Any], step: Step) -> None:
        if ends in ("sleeps", "body"):
            current_run.progress(0.1)
            current_run.progress(0.5, ends)
        else:
            step.run("work", work)
        if ends == "sleeps":
            step.sleep("nap", 60)

    run = attempt_once(harness, harness.send("work/long"))

    assert progress_of(harness, run.id) == (0.5, ends)


@pytest.mark.parametrize("fails", [True, False])
def test_the_last_progress_of_a_step_is_there_when_the_next_begins(
    harness: Harness, clock: Clock, fails: bool
) -> None:
    """3.3: The value that was held back is not held until the run ends."""
    shown: list[t.Any] = []

    def work() -> None:
        current_run.progress(0.1)
        current_run.progress(0.5)
        if fails:
            raise NonRetriable("no")

    @harness.durable.function(on="work/long")
    def long(event: Event[t.Any], step: Step) -> None:
        with contextlib.suppress(StepError):
            step.run("work", work)
        step.run("look", lambda: shown.append(progress_of(harness, current_run.id)))

    harness.send_and_settle("work/long")

    assert shown == [(0.5, "")]


@pytest.mark.parametrize("how", ["cancelled", "lost"])
def test_a_lost_run_shows_no_progress(any_harness: Harness, how: str) -> None:
    """3.3: No write for a lost run."""
    reached: list[str] = []

    def body() -> str:
        if reached:
            return "by another worker"
        reached.append("begin")
        if how == "cancelled":
            any_harness.runs.cancel(current_run.id)
        else:
            any_harness.expire_leases()
        current_run.progress(0.5)
        reached.append("past it")
        return "done"

    run = run_step(any_harness, body)

    assert run.progress is None
    assert reached == ["begin"]


def test_a_replay_shows_no_progress(harness: Harness) -> None:
    """3.3: What the body said on its way is not said again."""

    @harness.durable.function(on="work/long")
    def long(event: Event[t.Any], step: Step) -> None:
        for n in range(3):
            current_run.progress(n / 3)
            step.run("part", int, n)
        step.run("fail", fail)

    def fail() -> None:
        if here().attempt == 1:
            raise OSError("not yet")
        shown.append(progress_of(harness, current_run.id))

    shown: list[t.Any] = []
    run = harness.send_and_settle("work/long")
    before = record_of(harness, run.id)["progress"]
    run = again(harness, run)

    assert run.status == RunStatus.COMPLETED
    assert record_of(harness, run.id)["progress"] == before


@pytest.mark.parametrize(
    ("given", "shown"), [(1.5, 1.0), (-1, 0.0), (True, 1.0), (float("inf"), 1.0)]
)
def test_a_fraction_outside_is_taken_as_the_nearer_end(
    harness: Harness, given: float, shown: float
) -> None:
    """3.3: 0 to 1."""
    run = run_step(harness, lambda: current_run.progress(given, "x" * 300))

    assert progress_of(harness, run.id) == (shown, "x" * 200)


@pytest.mark.parametrize("given", [float("nan"), "half", None])
def test_what_is_no_fraction_is_refused(harness: Harness, given: t.Any) -> None:
    """3.3: 0 to 1."""
    run = run_step(harness, lambda: current_run.progress(given))

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == StepUsageError.code


def test_the_message_of_a_progress_is_encrypted(
    valkey: ValkeyServer, namespace: str
) -> None:
    """3.3: The words may be the user's data; the fraction is always shown."""
    harness = Harness(valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=[KEY])

    run = run_step(harness, lambda: current_run.progress(0.5, "of gooseberries"))

    assert progress_of(harness, run.id) == (0.5, "of gooseberries")
    assert "gooseberries" not in record_of(harness, run.id)["progress"]
    harness.close()


# -- 3.4 ------------------------------------------------------------------------------


def test_a_body_is_given_up_five_seconds_after_its_time_was_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3.4: After a grace of 5 s; ``tests/engine/test_lost_threads.py`` has the rest."""
    clock = Clock()
    given_up = threading.Event()
    monkeypatch.setattr(interruption, "time", clock)
    monkeypatch.setattr(interruption, "try_to_raise", lambda *_: False)
    with interruption.Body(give_up=lambda kind: given_up.set()) as body:
        body.press()  # from now on its time is over
        clock.now += 4.9
        body.press()
        assert not body.given_up
        clock.now += 0.2
        body.press()
        assert body.given_up
    assert given_up.wait(20)


def test_a_body_that_was_given_up_leaves_its_newest_checkpoint_and_progress(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.4 with 3.1 and 3.3: It is settled from outside with what it said last."""
    monkeypatch.setattr(interruption, "GRACE", 0.05)
    gate = threading.Lock()
    found: list[t.Any] = []

    def body() -> str:
        found.append(here().resumed_from)
        if len(found) == 1:
            for place in (1, 2):
                here().checkpoint(place)
                current_run.progress(place / 10)
            gate.acquire()
        return "done"

    declare(any_harness, body, timeout="2s")
    event = any_harness.send("work/long")
    any_harness.route()
    with gate:
        thread = threading.Thread(target=any_harness.execute)
        thread.start()
        wait_until(lambda: any_harness.run_of(event).status == RunStatus.SUSPENDED)
        run = any_harness.run_of(event)
        assert progress_of(any_harness, run.id) == (0.2, "")
        assert run.steps[0].checkpoint == 2
    thread.join(20)
    gate.release()
    run = again(any_harness, run)

    assert run.result == "done"
    assert found == [None, 2]


# -- Helpers --------------------------------------------------------------------------


def record_of(harness: Harness, run_id: str) -> dict[str, str]:
    return harness.state.store.read(run_id)[0]


def memos_of(harness: Harness, run_id: str) -> dict[str, t.Any]:
    return harness.state.store.read(run_id)[1]


def stored_bytes(harness: Harness, run_id: str) -> str:
    return record_of(harness, run_id)["bytes"]


def progress_of(harness: Harness, run_id: str) -> tuple[float, str]:
    shown = harness.runs.get(run_id).progress
    return shown.fraction, shown.message


def interrupt(harness: Harness) -> None:
    """Interrupt the body of the calling thread as the end of a drain does."""
    (attempt,) = harness.leases.held
    assert attempt.body is not None
    attempt.body.interrupt(ShutdownInterrupt)
    while True:
        time.sleep(0.001)


def die_in_body(harness: Harness) -> BaseException:
    """Return the error of a worker that dies: it writes nothing more."""
    (attempt,) = harness.leases.held
    return attempt.stop(OwnershipLost("the worker died"))
