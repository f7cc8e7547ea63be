"""``step.run``: results, retries, limits, and the contexts of its body."""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t
import weakref
from datetime import datetime
from datetime import timezone
from decimal import Decimal

import pytest

from flask_durable import Backoff
from flask_durable import current_run
from flask_durable import Event
from flask_durable import NonRetriable
from flask_durable import RetryAfter
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepError
from flask_durable import StepInterrupted
from flask_durable import StepTimeout
from flask_durable import UnserializableResult
from flask_durable.common.interruption import Body
from flask_durable.common.interruption import shielded
from flask_durable.common.interruption import TimeoutInterrupt
from flask_durable.engine.control import Signal
from flask_durable.errors import RunStateError

from ...support.harness import Harness
from ..bodies import run_body


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


def test_durable_send_works_in_a_steps_body(harness: Harness) -> None:
    def body(event: Event[t.Any], step: Step) -> str:
        return step.run("send", lambda: harness.durable.send("other/event"))

    run = run_body(harness, body)

    assert run.status == RunStatus.COMPLETED


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


def _nothing(*_: t.Any) -> None: ...


@pytest.mark.parametrize(
    "use",
    [
        lambda step: step.sleep("x", "1h"),
        lambda step: step.sleep_until("x", datetime.now(timezone.utc)),
        lambda step: step.invoke("x", "work"),
        lambda step: step.wait_for_event("x", "a/b", timeout="1h"),
        lambda step: step.wait_for_signal("x", "go", timeout="1h"),
        lambda step: step.create_url("x", expires="1h"),
        lambda step: step.wait_for_url("x", None),
        lambda step: step.parallel("x", a=_nothing),
        lambda step: step.first("x", a=_nothing),
        lambda step: step.map("x", lambda item, step: item, [1]),
        lambda step: step.map("x", "work", [{}]),
    ],
)
def test_options_are_refused_by_what_calls_no_function(
    harness: Harness, use: t.Callable[[Step], t.Any]
) -> None:
    run = run_body(harness, lambda event, step: use(step.options(retries=5)))

    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert "step.options(...) do not apply" in run.failure.message
    assert not run.steps


def test_options_that_say_nothing_are_none(harness: Harness) -> None:
    run = run_body(harness, lambda event, step: step.options().sleep("x", "1h"))
    assert run.status == RunStatus.SUSPENDED
