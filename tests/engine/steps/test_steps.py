"""Steps: names, results, retries, limits, and where they may be used."""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t
import weakref
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from decimal import Decimal

import pytest
from flask import current_app
from flask import g

from flask_durable import Backoff
from flask_durable import current_run
from flask_durable import Event
from flask_durable import NonRetriable
from flask_durable import RetryAfter
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepInterrupted
from flask_durable import StepTimeout
from flask_durable import StepUsageError
from flask_durable import UnserializableResult
from flask_durable.common.interruption import Body
from flask_durable.common.interruption import shielded
from flask_durable.common.interruption import TimeoutInterrupt
from flask_durable.engine.control import Signal
from flask_durable.errors import RunStateError

from ...support.harness import Harness


def run_body(harness: Harness, body: t.Callable[..., t.Any], **options: t.Any) -> Run:
    """Declare *body*, send it an event, settle, and return the run."""
    harness.durable.function(on="test/run", id="work", **options)(body)
    return harness.send_and_settle("test/run", {"n": 1})


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


@dataclasses.dataclass
class Meta:
    seconds: Decimal
    made: datetime
    raw: bytes


def test_a_typed_result_is_the_same_at_first_and_on_replay(harness: Harness) -> None:
    made = datetime(2026, 1, 2, tzinfo=timezone.utc)
    seen: list[Meta] = []

    def probe() -> Meta:
        return Meta(Decimal("1.10"), made, b"\x00abc")

    def body(event: Event[t.Any], step: Step) -> None:
        seen.append(step.run("probe", probe))
        step.sleep("wait", 60)

    run_body(harness, body)
    harness.advance(61)

    assert seen == [probe(), probe()]


def test_a_result_that_json_would_change_fails_the_step_by_path(
    harness: Harness,
) -> None:
    calls: list[int] = []
    caught: list[UnserializableResult] = []

    def probe():  # type: ignore[no-untyped-def]
        calls.append(1)
        return {"rows": [{"at": datetime.now(timezone.utc)}]}

    def body(event: Event[t.Any], step: Step) -> None:
        try:
            step.run("probe", probe)
        except UnserializableResult as error:
            caught.append(error)
            raise

    run = run_body(harness, body)

    assert run.status == RunStatus.FAILED
    assert "rows" in caught[0].path
    assert "at" in caught[0].path
    assert "Annotate" in str(caught[0])
    assert calls == [1], "the body must not run again for a result that cannot be kept"


def test_retry_after_chooses_the_delay(harness: Harness) -> None:
    calls: list[int] = []

    def throttled() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RetryAfter("1h", "busy")
        return "ok"

    def body(event: Event[t.Any], step: Step) -> str:
        return step.run("call", throttled)

    run = run_body(harness, body)
    harness.advance(3500)
    assert len(calls) == 1
    harness.advance(101)
    assert harness.runs.get(run.id).result == "ok"


@pytest.mark.parametrize("how", ["raised", "declared", "of the step"])
def test_what_cannot_be_retried_is_not(harness: Harness, how: str) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise NonRetriable("no") if how == "raised" else LookupError("no")

    def body(event: Event[t.Any], step: Step) -> None:
        if how == "of the step":
            step = step.options(non_retriable=[LookupError])
        step.run("call", broken)

    declared = (LookupError,) if how == "declared" else ()
    run = run_body(harness, body, non_retriable=declared)

    assert run.status == RunStatus.FAILED
    assert calls == [1]


def test_a_step_has_retries_of_its_own(harness: Harness) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise OSError

    def body(event: Event[t.Any], step: Step) -> None:
        quick = step.options(retries=1, backoff=Backoff(1, factor=1, jitter=False))
        quick.run("call", broken)

    run = run_body(harness, body, retries=9)
    harness.advance(2)

    assert harness.runs.get(run.id).status == RunStatus.FAILED
    assert len(calls) == 2


def test_a_step_that_takes_too_long_is_interrupted_and_counts_as_failed(
    harness: Harness,
) -> None:
    errors: list[StepTimeout] = []
    ended = threading.Event()

    def endless() -> None:
        try:
            while True:
                ended.wait(0.01)
        finally:
            ended.set()

    def body(event: Event[t.Any], step: Step) -> None:
        try:
            step.options(timeout="50ms", retries=0).run("slow", endless)
        except StepTimeout as error:
            errors.append(error)

    run = run_body(harness, body)

    assert run.status == RunStatus.COMPLETED
    assert errors[0].failure.code == "step.timeout"
    assert ended.is_set()


def test_a_timeout_that_the_body_swallows_is_a_timeout_all_the_same(
    harness: Harness,
) -> None:
    def stubborn() -> str:
        try:
            while True:
                threading.Event().wait(0.01)
        except BaseException:
            return "fine"

    def body(event: Event[t.Any], step: Step) -> str:
        return step.options(timeout="50ms", retries=0).run("slow", stubborn)

    run = run_body(harness, body)

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "step.timeout"


def test_a_short_step_is_never_hit_by_its_timeout_after_it_ended(
    harness: Harness,
) -> None:
    def body(event: Event[t.Any], step: Step) -> int:
        quick = step.options(timeout="2ms", retries=50, backoff=Backoff(0))
        return sum(quick.run(f"s{n}", lambda: 1) for n in range(200))

    run = run_body(harness, body)
    for _ in range(60):
        if run.status.finished:
            break
        harness.advance(1)
        run = harness.runs.get(run.id)

    assert (run.status, run.result) == (RunStatus.COMPLETED, 200)


def test_an_at_most_once_step_has_no_retries_unless_given(harness: Harness) -> None:
    calls: list[str] = []

    def charge(name: str) -> None:
        calls.append(name)
        raise OSError

    def body(event: Event[t.Any], step: Step) -> None:
        for name, retries in (("plain", None), ("given", 1)):
            once = step.options(at_most_once=True, retries=retries, backoff=Backoff(1))
            with pytest.raises(StepError):
                once.run(name, charge, name)

    run = run_body(harness, body, retries=5)
    harness.advance(60)

    assert harness.runs.get(run.id).status == RunStatus.COMPLETED
    assert calls == ["plain", "given", "given"]


def test_an_at_most_once_step_without_an_outcome_is_interrupted(
    harness: Harness,
) -> None:
    calls: list[int] = []
    errors: list[StepInterrupted] = []

    class PowerCut(Signal):
        pass

    def charge() -> None:
        calls.append(1)
        raise PowerCut

    def body(event: Event[t.Any], step: Step) -> str:
        try:
            step.options(at_most_once=True).run("charge", charge)
        except StepInterrupted as error:
            errors.append(error)
            return "unknown"
        return "charged"

    run = run_body(harness, body)
    assert run.steps[0].status == "intent"
    harness.expire_leases()
    harness.settle()

    assert harness.runs.get(run.id).result == "unknown"
    assert calls == [1]
    assert errors[0].step == "charge"


def test_an_at_most_once_step_whose_time_was_over_is_not_called_again(
    harness: Harness,
) -> None:
    calls: list[int] = []

    def charge() -> str:
        calls.append(1)
        while len(calls) == 1:
            time.sleep(0.001)
        return "charged"

    def body(event: Event[t.Any], step: Step) -> str:
        once = step.options(at_most_once=True, retries=3, timeout="10ms")
        return once.run("charge", charge)

    run = run_body(harness, body)
    assert run.status == RunStatus.FAILED
    assert run.failure.type == "StepTimeout"
    with pytest.raises(RunStateError, match="may have had its effect"):
        harness.runs.retry(run.id)
    assert calls == [1]

    harness.runs.retry(run.id, steps=["charge"])
    harness.settle()
    assert harness.runs.get(run.id).result == "charged"
    assert calls == [1, 1]


def test_the_idempotency_key_is_the_same_for_each_attempt_of_a_step_only(
    harness: Harness,
) -> None:
    keys: list[tuple[str, int, bool]] = []

    def note(fail: bool) -> None:
        assert current_run.step is not None
        context = current_run.step
        keys.append(
            (context.idempotency_key, context.attempt, context.is_final_attempt)
        )
        if fail and context.attempt == 1:
            raise OSError

    def body(event: Event[t.Any], step: Step) -> None:
        step.run("a", note, True)
        step.run("b", note, False)

    run_body(harness, body, retries=1)
    harness.advance(60)

    first, again, other = keys
    assert first[0] == again[0] != other[0]
    assert [k[1:] for k in keys] == [(1, False), (2, True), (1, False)]


def test_each_step_and_the_body_have_contexts_of_their_own(harness: Harness) -> None:
    ended: list[str] = []
    committed_at_end: list[list[str]] = []

    @harness.app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        name = g.get("name")
        if name is not None:
            ended.append(name)
            runs = harness.runs.list()
            steps = harness.runs.get(runs[0].id).steps
            committed_at_end.append([s.name for s in steps])

    def use(name: str) -> bool:
        found = "name" in g
        g.name = name
        assert current_app.name == harness.app.name
        return found

    def body(event: Event[t.Any], step: Step) -> list[bool]:
        found = [use("body"), step.run("one", use, "one"), step.run("two", use, "two")]
        return [*found, g.name != "body"]

    run = run_body(harness, body)

    assert run.result == [False, False, False, False]
    assert ended == ["one", "two", "body"]
    assert committed_at_end[:2] == [[], ["one"]], "a context ends before the commit"


def test_a_context_whose_end_fails_fails_its_step(harness: Harness) -> None:
    failures = ["once"]

    @harness.app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        if g.get("dirty") and failures:
            failures.pop()
            raise OSError("the session could not be given back")

    def soil() -> int:
        g.dirty = True
        return 1

    def body(event: Event[t.Any], step: Step) -> int:
        return step.run("soil", soil)

    run = run_body(harness, body, retries=1)
    assert run.status == RunStatus.SUSPENDED
    harness.advance(60)
    assert harness.runs.get(run.id).result == 1


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


def test_durable_send_works_in_a_steps_body(harness: Harness) -> None:
    def body(event: Event[t.Any], step: Step) -> str:
        return step.run("send", lambda: harness.durable.send("other/event"))

    run = run_body(harness, body)

    assert run.status == RunStatus.COMPLETED


def test_sleep_until_a_moment_in_the_past_is_no_sleep(harness: Harness) -> None:
    past = datetime.now(timezone.utc) - timedelta(days=1)

    def body(event: Event[t.Any], step: Step) -> str:
        step.sleep_until("past", past)
        step.sleep("zero", 0)
        return "on"

    run = run_body(harness, body)

    assert (run.status, run.result) == (RunStatus.COMPLETED, "on")
    assert [s.status for s in run.steps] == ["done", "done"]


def test_sleep_until_a_moment_ends_then(harness: Harness) -> None:
    until = datetime.now(timezone.utc) + timedelta(hours=2)

    def body(event: Event[t.Any], step: Step) -> str:
        step.sleep_until("then", until)
        return "on"

    run = run_body(harness, body)
    assert run.due is not None
    assert abs(run.due - until) < timedelta(milliseconds=2)
    harness.advance(7201)
    assert harness.runs.get(run.id).result == "on"


def test_a_sleep_keeps_the_end_it_had_when_the_code_changes(harness: Harness) -> None:
    durations = [3600, 5]

    def body(event: Event[t.Any], step: Step) -> None:
        step.sleep("wait", durations[0])

    run = run_body(harness, body)
    durations.reverse()
    # A caller wakes it early: the sleep goes on to the end that was fixed.
    harness.state.server.client.zadd(
        f"{harness.state.store.keys.root}:timers", {f"wake:{run.id}": 0}
    )
    before = run.due
    client = harness.state.server.client
    tag = harness.state.store.keys.root
    client.hdel(f"{tag}:run:{run.id}", "waiting")
    harness.sweep()
    harness.settle()

    run = harness.runs.get(run.id)
    assert (run.status, run.due) == (RunStatus.SUSPENDED, before)


def test_send_event_sends_once_and_its_ids_stay(harness: Harness) -> None:
    got: list[tuple[str, t.Any]] = []
    ids: list[list[str]] = []

    @harness.durable.function(on="made/*")
    def receive(event: Event[t.Any], step: Step) -> None:
        got.append((event.id, event.data))

    def body(event: Event[t.Any], step: Step) -> None:
        events = [Event("made/a", {"n": 1}), Event("made/b", {"n": 2}, id="mine")]
        ids.append(step.send_event("tell", *events))
        step.sleep("wait", 60)

    run_body(harness, body)
    harness.advance(61)

    assert ids[0] == ids[1]
    assert ids[0][1] == "mine"
    assert sorted(got) == sorted([(ids[0][0], {"n": 1}), ("mine", {"n": 2})])


def test_a_step_function_is_a_step_in_a_body_and_a_call_elsewhere(
    harness: Harness,
) -> None:
    calls: list[int] = []

    @harness.durable.step("square", retries=0)
    def square(n: int) -> int:
        calls.append(n)
        return n * n

    def body(event: Event[t.Any], step: Step) -> list[int]:
        inside = step.run("inside", lambda: square(5))
        return [square(3), square(4), inside, step.run("named", square, 6)]

    run = run_body(harness, body)

    assert run.result == [9, 16, 25, 36]
    assert [s.name for s in run.steps] == ["inside", "square", "square#2", "named"]
    assert square(2) == 4


def test_an_orm_object_is_refused_as_an_argument(harness: Harness) -> None:
    class Row:
        def __init__(self) -> None:
            self._sa_instance_state = object()

    def body(event: Event[t.Any], step: Step) -> None:
        step.run("use", lambda row: 1, Row())

    run = run_body(harness, body)

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "step.usage"


def test_a_step_that_exits_the_interpreter_has_failed(harness: Harness) -> None:
    def body(event: Event[t.Any], step: Step) -> None:
        step.options(retries=0).run("exit", exit_now)

    def exit_now() -> None:
        raise SystemExit(3)

    run = run_body(harness, body)

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.type == "SystemExit"


def test_a_result_that_is_too_large_fails_its_step_once(
    valkey: t.Any, namespace: str
) -> None:
    harness = Harness(
        valkey.url, namespace, DURABLE_MAX_VALUE=2048, DURABLE_INLINE_LIMIT=2048
    )
    calls: list[int] = []

    def body(event: Event[t.Any], step: Step) -> int:
        def large() -> str:
            calls.append(1)
            return "ä" * 1100

        with pytest.raises(UnserializableResult, match="2048 bytes"):
            step.run("large", large)
        return len(step.run("fits", lambda: "x" * 2000))

    run = run_body(harness, body)

    assert (run.status, run.result, calls) == (RunStatus.COMPLETED, 2000, [1])
    harness.close()


def test_an_interrupt_waits_until_our_own_io_is_done(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    send = harness.state.message_sender.send

    def interrupted_send(queue: str, bodies: t.Sequence[str]) -> t.Any:
        (attempt,) = harness.leases.held
        assert attempt.body is not None
        interrupt = threading.Thread(
            target=attempt.body.interrupt, args=(TimeoutInterrupt,)
        )
        interrupt.start()
        interrupt.join()
        outcome = send(queue, bodies)
        done.append("sent")
        return outcome

    def tell() -> None:
        harness.durable.send("other/event")
        done.append("went on")

    def body(event: Event[t.Any], step: Step) -> None:
        monkeypatch.setattr(harness.state.message_sender, "send", interrupted_send)
        with pytest.raises(StepTimeout):
            step.options(timeout=60, retries=0).run("tell", tell)
        monkeypatch.undo()

    run = run_body(harness, body)

    assert run.status == RunStatus.COMPLETED
    assert done == ["sent"]


def test_an_interrupt_that_came_before_our_own_io_keeps_it_from_starting() -> None:
    done: list[str] = []

    with Body() as body:
        with body._lock:
            body.interrupted = TimeoutInterrupt  # raised, and not delivered yet
        with pytest.raises(TimeoutInterrupt), shielded():
            done.append("started")
    with shielded():
        done.append("outside any body")

    assert done == ["outside any body"]


def test_arguments_of_a_step_are_not_kept_until_the_run_ends(harness: Harness) -> None:
    class Large:
        pass

    alive: list[bool] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        large = Large()
        reference = weakref.ref(large)
        step.run("use", lambda value: None, large)
        del large
        alive.append(reference() is not None)

    harness.send_and_settle("a/b")
    assert alive == [False]


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
