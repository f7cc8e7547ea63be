"""Calling: a run of one function started by another one, or by its name."""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
import typing as t
from datetime import datetime
from datetime import timezone

import pytest

from flask_durable import current_run
from flask_durable import Durable
from flask_durable import DurableGroup
from flask_durable import Event
from flask_durable import EventData
from flask_durable import EventError
from flask_durable import Failure
from flask_durable import FunctionCancelled
from flask_durable import FunctionFailed
from flask_durable import InvokeError
from flask_durable import Middleware
from flask_durable import NonRetriable
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepUsageError
from flask_durable import UnavailableError
from flask_durable.cli.family import family_of
from flask_durable.cli.timeline import describe
from flask_durable.middleware import AttemptInfo
from flask_durable.middleware import SendInfo
from flask_durable.middleware import StepInfo

from ..support.harness import Harness
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

AnyEvent = Event[t.Any]
Body = t.Callable[[AnyEvent, Step], t.Any]


class Cut(EventData, name="film/cut"):
    path: str
    seconds: int = 1


def child_of(harness: Harness, parent: Run) -> Run:
    """Return the newest child of a run, with its steps."""
    found = harness.runs.list(parent=parent.id)
    assert found, "it has no child"
    return t.cast(Run, harness.runs.get(found[0].id))


def parent_that(harness: Harness, body: Body, **options: t.Any) -> None:
    """Declare the function that ``a/b`` starts."""
    harness.durable.function(on="a/b", id="parent", **{"retries": 0, **options})(body)


# -- 2.1: a run of another function, and its result ----------------------------------


def test_an_invoked_run_waits_on_its_own_queue_and_gives_its_result(
    any_harness: Harness,
) -> None:
    """2.1: invoke starts a run on the function's own queue and returns its result."""
    bodies: list[str] = []

    @any_harness.durable.function(on=Cut, queue="media")
    def cut(event: Event[Cut], step: Step) -> datetime:
        bodies.append(event.data.path)
        step.run("cut", lambda: event.data.seconds)
        return datetime(2026, 1, event.data.seconds, tzinfo=timezone.utc)

    def body(event: AnyEvent, step: Step) -> str:
        made = step.invoke("cut", cut, Cut(path="a.mp4", seconds=7))
        return f"{type(made).__name__} {made.day}"

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")

    assert (run.status, run.result) == (RunStatus.COMPLETED, "datetime 7")
    assert bodies == ["a.mp4", "a.mp4"][: len(bodies)]
    child = child_of(any_harness, run)
    assert (child.parent, child.queue, child.function) == (run.id, "media", "cut")
    assert child.status == RunStatus.COMPLETED
    [step] = run.steps
    assert (step.kind, step.status, step.child) == ("invoke", "done", child.id)
    assert step.duration is not None


def test_a_run_that_waits_for_its_child_holds_nothing(any_harness: Harness) -> None:
    """2.1: the run that waits is suspended with the reason ``child``."""
    any_harness.in_place = 0

    @any_harness.durable.function(on=None, queue="far")
    def far(event: AnyEvent, step: Step) -> None:
        step.sleep("long", "1d")

    parent_that(any_harness, lambda event, step: step.invoke("far", far))
    run = any_harness.send_and_settle("a/b")

    assert (run.status, run.reason, run.due) == (RunStatus.SUSPENDED, "child", None)
    assert [step.status for step in run.steps] == ["waiting"]
    any_harness.advance(2 * 86400)
    assert any_harness.runs.get(run.id).status == RunStatus.COMPLETED


def test_a_function_elsewhere_is_invoked_by_its_id(any_harness: Harness) -> None:
    """2.1: the callee's queue comes from the directory if its code is elsewhere."""
    specs = {
        "far": {
            "id": "far",
            "triggers": ["far/asked", "far/*"],
            "crons": [],
            "queue": "elsewhere",
            "where": True,
            "timeout": 60.0,
            "start_timeout": None,
            "version": "v",
            "failure_handler": None,
            "max_attempts": 1,
            "schemas": {},
        }
    }
    parent_that(any_harness, lambda event, step: step.invoke("x", "far", {"n": 1}))
    any_harness.state.directory.publish(specs)
    run = any_harness.send_and_settle("a/b")

    child = child_of(any_harness, run)
    assert (child.queue, child.event_name) == ("elsewhere", "far/asked")
    assert child.event.data == {"n": 1}
    assert any_harness.state.store.read(child.id)[0]["timeout"] == "60000"


def test_a_function_that_nobody_has_is_no_callee(any_harness: Harness) -> None:
    """2.1: the error of an unknown callee says what to do."""
    parent_that(any_harness, lambda event, step: step.invoke("x", "gone"))
    run = any_harness.send_and_settle("a/b")

    assert run.status == RunStatus.FAILED
    assert "No process has a function 'gone'" in run.failure.message
    assert any_harness.runs.list(parent=run.id) == []


def test_a_paused_child_is_shown_with_the_parent_that_waits_for_it(
    any_harness: Harness,
) -> None:
    """2.1: the parent waits for as long as it takes; what holds it up is shown."""
    deployed: list[str] = []

    @any_harness.durable.function(on="far/asked")
    def far(event: Event[t.Any], step: Step) -> str:
        if deployed:
            return step.run("nap", lambda: "another kind of step")
        step.sleep("nap", "1h")
        return "slept"

    parent_that(any_harness, lambda event, step: step.invoke("x", "far"))
    run = any_harness.send_and_settle("a/b")
    deployed.append("another release")
    any_harness.advance(3601)

    child = child_of(any_harness, run)
    assert child.status == RunStatus.PAUSED
    parent = any_harness.runs.get(run.id)
    assert parent is not None
    assert (parent.status, parent.reason) == (RunStatus.SUSPENDED, "child")
    shown = "\n".join(describe(parent, family_of(any_harness.runs, parent)))
    assert child.id in shown
    assert "paused" in shown
    assert "is a 'run' step now" in shown


def test_a_failure_handler_is_no_callee(any_harness: Harness) -> None:
    """2.1: only the failure of a run starts a handler."""

    @any_harness.durable.function(on="far/asked")
    def far(event: Event[t.Any], step: Step) -> None: ...

    @far.on_failure
    def handle(event: Event[t.Any], step: Step, failure: Failure) -> None: ...

    parent_that(any_harness, lambda event, step: step.invoke("x", "far/on_failure"))
    run = any_harness.send_and_settle("a/b")

    assert run.status == RunStatus.FAILED
    assert "is a failure handler" in run.failure.message
    assert any_harness.runs.list(parent=run.id) == []


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({"seconds": 1}, "path"),
        (Cut(path="x"), "takes other"),
        ({"path": object()}, "path"),
    ],
)
def test_data_that_does_not_fit_the_callee_starts_nothing(
    any_harness: Harness, data: t.Any, what: str
) -> None:
    """2.1: the data is checked against the callee's model."""

    class Other(EventData, name="other"):
        path: str

    @any_harness.durable.function(on=Other)
    def callee(event: Event[Other], step: Step) -> None: ...

    def body(event: AnyEvent, step: Step) -> str:
        with pytest.raises(EventError) as caught:
            step.invoke("x", callee, data)
        return str(caught.value)

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")

    assert what in run.result
    assert any_harness.runs.list(parent=run.id) == []


def test_a_callee_that_no_event_starts_gets_the_data_as_a_dict(
    any_harness: Harness,
) -> None:
    """2.1: a function with ``on=None`` is there to be invoked."""

    @any_harness.durable.function(on=None)
    def plain(event: AnyEvent, step: Step) -> list[str]:
        return [event.name, event.data["x"]]

    parent_that(any_harness, lambda event, step: step.invoke("p", plain, {"x": "y"}))
    run = any_harness.send_and_settle("a/b")
    assert run.result == ["durable/function.invoked", "y"]


@pytest.mark.parametrize("data", [{"path": "a.mp4"}, Cut(path="a.mp4")])
def test_a_callee_that_no_event_starts_gets_the_model_of_its_annotation(
    any_harness: Harness, data: t.Any
) -> None:
    """2.1: the data is checked against the callee's model, and comes as that model."""

    @any_harness.durable.function(on=None)
    def cut(event: Event[Cut], step: Step) -> list[t.Any]:
        return [event.name, type(event.data).__name__, event.data.seconds]

    def body(event: AnyEvent, step: Step) -> t.Any:
        with pytest.raises(EventError, match="seconds"):
            step.invoke("wrong", cut, {"path": "a.mp4", "seconds": "many"})
        return step.invoke("cut", cut, data)

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == ["film/cut", "Cut", 1]
    any_harness.send("film/cut", {"path": "b.mp4"})
    any_harness.settle()
    assert len(any_harness.runs.list(function="cut")) == 1


def test_a_model_of_a_function_elsewhere_is_found_by_its_name(
    any_harness: Harness,
) -> None:
    """2.1: the callee gets its model, whichever process invokes it."""
    far = {
        "id": "far",
        "triggers": [],
        "crons": [],
        "queue": "elsewhere",
        "where": False,
        "timeout": None,
        "start_timeout": None,
        "version": "v",
        "failure_handler": None,
        "max_attempts": 1,
        "schemas": {"film/cut": "0123456789ab"},
    }
    parent_that(any_harness, lambda event, step: step.invoke("x", "far", {"path": "a"}))
    any_harness.state.directory.publish({"far": far})
    run = any_harness.send_and_settle("a/b")

    assert child_of(any_harness, run).event_name == "film/cut"


def test_an_invoked_run_has_its_own_retries(any_harness: Harness) -> None:
    """2.1: the child has its function's retries, not the parent's."""

    @any_harness.durable.function(on=None, retries=2)
    def flaky(event: AnyEvent, step: Step) -> int:
        if current_run.attempt < 3:
            raise OSError("not yet")
        return current_run.attempt

    parent_that(any_harness, lambda event, step: step.invoke("f", flaky))
    run = any_harness.send_and_settle("a/b")
    for _ in range(3):
        any_harness.advance(3600)
    assert any_harness.runs.get(run.id).result == 3


def test_the_failure_of_an_invoked_run_is_an_error_that_can_be_caught(
    any_harness: Harness,
) -> None:
    """2.1: the child's failure raises InvokeError with ``run_id`` and ``failure``."""

    def refuse() -> None:
        raise NonRetriable("no such file")

    @any_harness.durable.function(on=None, retries=0)
    def broken(event: AnyEvent, step: Step) -> None:
        step.run("refuse", refuse)

    def body(event: AnyEvent, step: Step) -> list[str]:
        try:
            step.invoke("broken", broken)
        except InvokeError as error:
            first = [error.run_id, error.failure.message, error.step]
            step.sleep("nap", "1m")  # and it is the same after a replay
            return first
        return []

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    any_harness.advance(61)

    child = child_of(any_harness, run)
    assert child.status == RunStatus.FAILED
    run = any_harness.runs.get(run.id)
    assert run.result == [child.id, "no such file", "broken"]


def test_an_uncaught_invoke_error_fails_the_run_at_that_step(
    any_harness: Harness,
) -> None:
    """2.1: uncaught, it fails the parent at once, at the step that invoked."""
    told: list[t.Any] = []

    @any_harness.durable.function(on=None, retries=0)
    def broken(event: AnyEvent, step: Step) -> None:
        raise NonRetriable("no")

    @any_harness.durable.function(on="a/b", id="parent", retries=3)
    def parent(event: AnyEvent, step: Step) -> None:
        step.invoke("call", broken)

    @parent.on_failure
    def report(event: AnyEvent, step: Step, failure: Failure) -> None:
        told.append((failure.step, failure.message))

    event_id = any_harness.send("a/b")
    any_harness.settle()
    run = any_harness.run_of(event_id, "parent")

    assert run.status == RunStatus.FAILED
    assert (run.failure.step, run.failure.message) == ("call", "no")
    assert told == [("call", "no")]


def test_a_retried_run_invokes_a_new_child(any_harness: Harness) -> None:
    """2.1: the retry of a failed parent never gets an old child back."""
    broken = [True]

    @any_harness.durable.function(on=None, retries=0)
    def callee(event: AnyEvent, step: Step) -> str:
        if broken[0]:
            raise NonRetriable("broken")
        return current_run.id

    parent_that(any_harness, lambda event, step: step.invoke("call", callee))
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    first = child_of(any_harness, run)

    broken[0] = False
    any_harness.runs.retry(run.id)
    any_harness.settle()

    run = any_harness.runs.get(run.id)
    assert run.status == RunStatus.COMPLETED
    assert run.result != first.id
    assert {r.id for r in any_harness.runs.list(parent=run.id)} == {
        first.id,
        run.result,
    }


def test_an_invoked_run_invokes_in_turn_in_the_same_partition(
    any_harness: Harness,
) -> None:
    """2.1: calls nest; the whole tree is in one partition."""

    @any_harness.durable.function(on=None)
    def count(event: AnyEvent, step: Step) -> int:
        depth: int = event.data["depth"]
        if depth == 0:
            return 0
        below: int = step.invoke("deeper", "count", {"depth": depth - 1})
        return below + 1

    parent_that(any_harness, lambda event, step: step.invoke("c", count, {"depth": 4}))
    run = any_harness.send_and_settle("a/b")
    assert run.result == 5 - 1
    ids = [found.id for found in any_harness.runs.list(function="count")]
    assert len(ids) == 5
    assert {id.partition(".")[0] for id in ids} == {run.id}
    assert all(id.count(".") == 1 for id in ids)


def test_a_tree_of_runs_is_in_one_of_several_partitions(
    valkey: ValkeyServer, namespace: str
) -> None:
    """2.1: the script that answers the parent touches one partition."""
    harness = Harness(valkey.url, namespace, DURABLE_PARTITIONS=8)

    @harness.durable.function(on=None)
    def callee(event: AnyEvent, step: Step) -> str:
        return current_run.id

    parent_that(harness, lambda event, step: step.invoke("call", callee))
    keys = harness.state.store.keys
    runs = [harness.send_and_settle("a/b") for _ in range(12)]
    tags = {keys.tag_of(run.id) for run in runs}
    assert len(tags) > 1
    for run in runs:
        assert keys.tag_of(run.result) == keys.tag_of(run.id)
        assert [child.id for child in harness.runs.list(parent=run.id)] == [run.result]
    harness.close()


def test_a_result_is_found_although_its_function_is_gone(any_harness: Harness) -> None:
    """2.1: what was invoked stays the same on replay, whatever is deployed since."""

    @any_harness.durable.function(on=Cut)
    def cut(event: Event[Cut], step: Step) -> str:
        return event.data.path

    def body(event: AnyEvent, step: Step) -> list[str]:
        first: str = step.invoke("by-object", cut, Cut(path="a"))
        second: str = step.invoke("by-id", "cut", {"path": "b"})
        step.sleep("deploy", "1m")
        return [first, second]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.reason == "sleep"
    functions = any_harness.durable.functions
    functions._functions.pop("cut")
    any_harness.state.directory.remembered.functions.clear()
    any_harness.advance(61)
    assert any_harness.runs.get(run.id).result == ["a", "b"]


def test_something_else_than_a_function_cannot_be_invoked(any_harness: Harness) -> None:
    """2.1: the error of a plain function says to use step.run."""

    def body(event: AnyEvent, step: Step) -> str:
        with pytest.raises(StepUsageError) as caught:
            step.invoke("len", t.cast(t.Any, len))
        return str(caught.value)

    parent_that(any_harness, body)
    assert "step.run" in any_harness.send_and_settle("a/b").result


def test_a_failure_handler_may_invoke(any_harness: Harness) -> None:
    """2.1: a failure handler's run is a parent like any other."""

    @any_harness.durable.function(on=None)
    def refund(event: AnyEvent, step: Step) -> str:
        return "refunded"

    @any_harness.durable.function(on="a/b", id="parent", retries=0)
    def parent(event: AnyEvent, step: Step) -> None:
        raise NonRetriable("no")

    @parent.on_failure
    def report(event: AnyEvent, step: Step, failure: Failure) -> str:
        text: str = step.invoke("refund", refund)
        return text

    any_harness.send("a/b")
    any_harness.settle()
    [handled] = any_harness.runs.list(function="parent/on_failure")
    assert handled.result == "refunded"


def test_a_body_whose_worker_dies_creates_no_second_child(
    any_harness: Harness,
) -> None:
    """2.1: the child is created once, although a body is called again."""
    calls: list[str] = []

    @any_harness.durable.function(on=None)
    def callee(event: AnyEvent, step: Step) -> int:
        calls.append(current_run.id)
        return len(calls)

    def body(event: AnyEvent, step: Step) -> list[int]:
        first: int = step.invoke("one", callee)
        step.sleep("nap", "1m")
        second: int = step.invoke("two", callee)
        third: int = step.invoke("two", callee)
        return [first, second, third]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    any_harness.advance(61)
    assert any_harness.runs.get(run.id).result == [1, 2, 3]
    assert len(set(calls)) == 3


def test_a_tree_of_sealed_runs_reads_what_it_stored(
    valkey: ValkeyServer, namespace: str, tmp_path: pathlib.Path
) -> None:
    """2.1: a child's event and result are sealed and checked in as any others are."""
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_ENCRYPTION_KEYS=[KEY],
        DURABLE_BLOB_URL=f"file://{tmp_path}",
        DURABLE_INLINE_LIMIT=1024,
    )
    large = "large" * 1000

    @harness.durable.function(on=Cut, retries=0)
    def cut(event: Event[Cut], step: Step) -> str:
        if event.data.seconds == 2:
            raise NonRetriable("secret")
        return event.data.path.upper()

    def body(event: AnyEvent, step: Step) -> list[str]:
        text = step.invoke("large", cut, Cut(path=large))
        with pytest.raises(InvokeError, match="secret"):
            step.invoke("broken", cut, Cut(path="x", seconds=2))
        with pytest.raises(InvokeError, match="took longer"):
            step.invoke("slow", "sleeper", timeout="1h")
        return [text[:5], str(len(text))]

    sleeper(harness)
    parent_that(harness, body)
    event_id = harness.send("a/b")
    harness.settle()
    harness.advance(3601)
    run = harness.run_of(event_id, "parent")
    assert run.result == ["LARGE", "5000"]
    stored = [harness.state.store.read(found.id) for found in harness.runs.list()]
    assert "secret" not in str(stored)
    assert "blob:runs/" in str(stored)
    harness.close()


def test_middleware_and_metrics_know_a_step_that_invokes(
    valkey: ValkeyServer, namespace: str
) -> None:
    """2.1: hooks see a step of the kind invoke that waits; it is no time of a step."""
    seen: list[tuple[str, str, str]] = []

    class Watching(Middleware):
        @contextlib.contextmanager
        def around_step(self, step: StepInfo) -> t.Iterator[None]:
            yield
            seen.append((step.name, step.kind, step.outcome))

        @contextlib.contextmanager
        def around_attempt(self, attempt: AttemptInfo) -> t.Iterator[None]:
            yield
            seen.append((attempt.function, attempt.outcome, attempt.reason))

    harness = Harness(valkey.url, namespace, durable=Durable(middleware=[Watching()]))
    times: list[t.Any] = []
    harness.state.histograms.add = lambda *args: times.append(args[0])  # type: ignore[method-assign]

    @harness.durable.function(on=None)
    def callee(event: AnyEvent, step: Step) -> None: ...

    parent_that(harness, lambda event, step: step.invoke("call", callee))
    harness.send_and_settle("a/b")
    assert seen == [
        ("call", "invoke", "waiting"),
        ("parent", "suspended", "child"),
        ("callee", "completed", ""),
        ("parent", "completed", ""),
    ]
    assert "step" not in times
    harness.close()


def test_a_child_goes_on_with_the_trace_of_its_parents_event(
    valkey: ValkeyServer, namespace: str
) -> None:
    """2.1: the child's event has the trace headers of the parent's."""
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}

    class Tracing(Middleware):
        @contextlib.contextmanager
        def around_send(self, send: SendInfo) -> t.Iterator[None]:
            send.headers.update(trace)
            yield

    durable = Durable(middleware=[Tracing()])
    harness = Harness(valkey.url, namespace, durable=durable)

    @durable.function(on=None)
    def callee(event: AnyEvent, step: Step) -> None: ...

    parent_that(harness, lambda event, step: step.invoke("call", callee))
    run = harness.send_and_settle("a/b")
    record, _ = harness.state.store.read(child_of(harness, run).id)
    assert json.loads(record["event"])["headers"] == trace
    harness.close()


# -- 2.2: time-out and cancellation ---------------------------------------------------


def sleeper(harness: Harness) -> t.Any:
    @harness.durable.function(on=None, id="sleeper")
    def sleeper(event: AnyEvent, step: Step) -> str:
        step.sleep("night", "8h")
        return "morning"

    return sleeper


def test_a_child_that_takes_too_long_is_cancelled(any_harness: Harness) -> None:
    """2.2: when the time is over the child is cancelled and InvokeError says so."""
    slow = sleeper(any_harness)

    def body(event: AnyEvent, step: Step) -> list[str]:
        try:
            step.invoke("slow", slow, timeout="1h")
        except InvokeError as error:
            return [error.failure.code, str(error), error.run_id]
        return []

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.due is not None
    any_harness.advance(3601)

    run = any_harness.runs.get(run.id)
    child = child_of(any_harness, run)
    code, text, run_id = run.result
    assert (code, run_id) == ("invoke.timeout", child.id)
    assert "took longer than 1h" in text
    assert child.status == RunStatus.CANCELLED
    assert child.reason == "the run that invoked it does not wait any more"


def test_a_child_that_ends_first_leaves_no_timer(any_harness: Harness) -> None:
    """2.2: the first answer stands; the time-out comes to nothing."""
    slow = sleeper(any_harness)
    parent_that(
        any_harness,
        lambda event, step: step.invoke("slow", slow, timeout="9h"),
    )
    run = any_harness.send_and_settle("a/b")
    any_harness.advance(8 * 3600 + 1)
    any_harness.advance(2 * 3600)
    assert any_harness.runs.get(run.id).result == "morning"
    tag = any_harness.state.store.keys.root
    assert any_harness.state.server.client.zcard(f"{tag}:timers") == 0


def test_cancelling_a_run_cancels_its_children_and_theirs(
    any_harness: Harness,
) -> None:
    """2.2: cancelling a run cancels the tree below it, with its events."""
    told: list[str] = []
    slow = sleeper(any_harness)

    @any_harness.durable.function(on=None)
    def middle(event: AnyEvent, step: Step) -> None:
        step.invoke("slow", slow)

    @any_harness.durable.function(on=FunctionCancelled)
    def watch(event: Event[FunctionCancelled], step: Step) -> None:
        told.append(event.data.function_id)

    parent_that(any_harness, lambda event, step: step.invoke("middle", middle))
    event_id = any_harness.send("a/b")
    any_harness.settle()
    run = any_harness.run_of(event_id, "parent")
    any_harness.runs.cancel(run.id)

    found = any_harness.runs.list(function="sleeper")
    found += any_harness.runs.list(function="middle")
    assert {run.status for run in found} == {RunStatus.CANCELLED}
    any_harness.settle()
    assert sorted(told) == ["middle", "parent", "sleeper"]


def test_a_sweep_cancels_the_tree_if_the_canceller_dies(any_harness: Harness) -> None:
    """2.2: whatever dies, the children of a cancelled run end."""
    slow = sleeper(any_harness)

    @any_harness.durable.function(on=None)
    def middle(event: AnyEvent, step: Step) -> None:
        step.invoke("slow", slow)

    parent_that(any_harness, lambda event, step: step.invoke("middle", middle))
    run = any_harness.send_and_settle("a/b")
    # As far as a process comes that dies behind the script.
    any_harness.state.store.admin(run.id, "cancel", reason="x")
    assert child_of(any_harness, run).status == RunStatus.SUSPENDED

    any_harness.sweep()
    any_harness.sweep()

    found = any_harness.runs.list(function="sleeper")
    found += any_harness.runs.list(function="middle")
    assert {run.status for run in found} == {RunStatus.CANCELLED}


def test_a_run_that_times_out_cancels_its_child(any_harness: Harness) -> None:
    """2.2: the parent's own time-out ends its children as well."""
    slow = sleeper(any_harness)
    parent_that(
        any_harness, lambda event, step: step.invoke("slow", slow), timeout="1h"
    )
    run = any_harness.send_and_settle("a/b")
    any_harness.advance(3601)
    assert any_harness.runs.get(run.id).status == RunStatus.CANCELLED
    assert child_of(any_harness, run).status == RunStatus.CANCELLED


def test_cancelling_the_child_alone_fails_the_step(any_harness: Harness) -> None:
    """2.1: a child that is cancelled raises InvokeError as well."""
    slow = sleeper(any_harness)

    def body(event: AnyEvent, step: Step) -> str:
        try:
            return str(step.invoke("slow", slow))
        except InvokeError as error:
            return error.failure.code

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    any_harness.runs.cancel(child_of(any_harness, run).id)
    any_harness.settle()
    assert any_harness.runs.get(run.id).result == "run.cancelled"


def test_a_cancelled_run_that_is_retried_waits_for_a_new_child(
    any_harness: Harness,
) -> None:
    """2.2: an old child that is still about is refused, and cancelled."""
    slow = sleeper(any_harness)
    parent_that(any_harness, lambda event, step: step.invoke("slow", slow))
    run = any_harness.send_and_settle("a/b")
    old = child_of(any_harness, run)
    # The canceller dies before it came to the child, and the run is retried at once.
    any_harness.state.store.admin(run.id, "cancel", reason="x")
    any_harness.runs.retry(run.id)
    any_harness.settle()
    assert any_harness.runs.get(run.id).status == RunStatus.SUSPENDED

    any_harness.sweep()
    new = {found.id: found.status for found in any_harness.runs.list(parent=run.id)}
    assert new.pop(old.id) == RunStatus.CANCELLED
    assert list(new.values()) == [RunStatus.SUSPENDED]
    any_harness.advance(8 * 3600 + 1)
    assert any_harness.runs.get(run.id).result == "morning"


def test_a_timeout_that_is_none_is_refused(any_harness: Harness) -> None:
    """2.2: a time-out is a duration."""
    slow = sleeper(any_harness)

    def body(event: AnyEvent, step: Step) -> list[str]:
        errors = []
        for number, wrong in enumerate(("soon", 0, -1)):
            with pytest.raises(StepUsageError) as caught:
                step.invoke(f"x{number}", slow, timeout=t.cast(t.Any, wrong))
            errors.append(str(caught.value))
        return errors

    parent_that(any_harness, body)
    assert len(any_harness.send_and_settle("a/b").result) == 3


# -- 2.3: starting a run by its function -----------------------------------------------


def started(harness: Harness, function: t.Any, *args: t.Any, **given: t.Any) -> str:
    """Start a run from inside the app, as a view does."""
    with harness.app.app_context():
        return str(function.start(*args, **given))


def test_a_function_is_started_without_an_event(any_harness: Harness) -> None:
    """2.3: start starts a run of one function and returns its id; wait waits for it."""
    heard: list[str] = []

    @any_harness.durable.function(on=Cut, queue="media")
    def cut(event: Event[Cut], step: Step) -> str:
        return step.run("shout", event.data.path.upper)

    @any_harness.durable.function(on="*")
    def other(event: AnyEvent, step: Step) -> None:
        heard.append(event.name)

    run_id = started(any_harness, cut, Cut(path="a"))
    assert any_harness.runs.get(run_id).status == RunStatus.QUEUED
    any_harness.settle()

    run = any_harness.runs.wait(run_id, timeout=0)
    assert (run.id, run.result, run.queue) == (run_id, "A", "media")
    assert (run.event_name, run.parent) == ("film/cut", None)
    assert heard == []


def test_two_starts_with_one_id_are_one_run(any_harness: Harness) -> None:
    """2.3: the same id twice is the same run, finished or not."""
    bodies: list[str] = []

    @any_harness.durable.function(on=None)
    def work(event: AnyEvent, step: Step) -> None:
        bodies.append(event.id)

    @any_harness.durable.function(on=None)
    def more(event: AnyEvent, step: Step) -> None: ...

    first = started(any_harness, work, {"n": 1}, id="order-7")
    assert started(any_harness, work, {"n": 2}, id="order-7") == first
    any_harness.settle()
    assert started(any_harness, work, {"n": 3}, id="order-7") == first
    assert started(any_harness, more, id="order-7") != first
    any_harness.settle()
    assert bodies == ["order-7"]
    assert any_harness.runs.get(first).event.data == {"n": 1}


def test_data_that_does_not_fit_starts_nothing(any_harness: Harness) -> None:
    """2.3: the data is checked against the function's model."""

    @any_harness.durable.function(on=Cut)
    def cut(event: Event[Cut], step: Step) -> None: ...

    for wrong in ({"seconds": 1}, None, {"path": float("nan")}):
        with pytest.raises(EventError):
            started(any_harness, cut, wrong)
    with pytest.raises(EventError, match="id"):
        started(any_harness, cut, {"path": "x"}, id="not an id")
    assert any_harness.runs.list() == []


@pytest.mark.parametrize(
    ("data", "id", "what"),
    [
        ([1], None, "data must be an object"),
        ({}, "x" * 200, "id must have at most 128 characters"),
        ({"a": object()}, None, "data.a is of type object"),
    ],
)
def test_the_error_of_a_start_names_the_function(
    any_harness: Harness, data: t.Any, id: str | None, what: str
) -> None:
    """2.3: a function without a model says what it was not started with."""

    @any_harness.durable.function(on=None)
    def work(event: AnyEvent, step: Step) -> None: ...

    with (
        any_harness.app.app_context(),
        pytest.raises(EventError, match=f"a run of 'work' is not valid: {what}") as e,
    ):
        work.start(data, id=id)
    [fault] = e.value.errors
    assert fault["field"] in what


def test_a_start_in_a_body_is_refused_and_in_a_step_it_is_not(
    any_harness: Harness,
) -> None:
    """2.3: from anywhere, except where every replay would repeat it."""

    @any_harness.durable.function(on=None)
    def work(event: AnyEvent, step: Step) -> None: ...

    def start() -> str:
        return work.start(id="from-a-step")

    def body(event: AnyEvent, step: Step) -> str:
        with pytest.raises(StepUsageError, match=r"step\.invoke"):
            work.start()
        return step.run("start", start)

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert any_harness.runs.get(run.result).status == RunStatus.COMPLETED


def test_a_function_of_a_group_is_started_in_the_current_app(
    valkey: ValkeyServer, namespace: str
) -> None:
    """2.3: of several apps that have the function, the current one starts it."""
    group = DurableGroup("films")

    @group.function(on=None)
    def work(event: AnyEvent, step: Step) -> None: ...

    with pytest.raises(RuntimeError, match="not registered"):
        work.start()
    harnesses = [Harness(valkey.url, f"{namespace}{n}") for n in range(2)]
    for harness in harnesses:
        harness.durable.register(group)
    with pytest.raises(RuntimeError, match="not registered"):
        work.start()
    for harness in harnesses:
        run_id = started(harness, work)
        assert [run.id for run in harness.runs.list()] == [run_id]
        assert harness.runs.get(run_id).function == "films.work"
        harness.close()


def test_a_start_outside_of_an_app_says_so(any_harness: Harness) -> None:
    """2.3: it needs an app context."""

    @any_harness.durable.function(on=None)
    def work(event: AnyEvent, step: Step) -> None: ...

    with pytest.raises(RuntimeError, match="app context"):
        work.start()


def test_a_run_that_is_started_waits_for_its_queue_to_be_back(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.3: the run is owned by the state server as soon as start returns."""

    @any_harness.durable.function(on=None)
    def work(event: AnyEvent, step: Step) -> str:
        return "done"

    sender = any_harness.state.message_sender
    with monkeypatch.context() as patch:
        away = UnavailableError("the queue is away")
        patch.setattr(sender, "send", lambda queue, bodies, **_: [away] * len(bodies))
        run_id = started(any_harness, work)
    assert any_harness.runs.get(run_id).status == RunStatus.QUEUED
    any_harness.state.outbox._resting.clear()
    any_harness.advance(6)
    assert any_harness.runs.get(run_id).result == "done"


def test_a_state_server_that_is_away_is_an_error_of_the_start(namespace: str) -> None:
    """2.3: it gives up after DURABLE_ACCEPT_TIMEOUT, and says what to do."""
    with valkey_server() as server:
        harness = Harness(server.url, namespace, DURABLE_ACCEPT_TIMEOUT=1)

        @harness.durable.function(on=None)
        def work(event: AnyEvent, step: Step) -> None: ...

        started(harness, work)
    with pytest.raises(UnavailableError):
        started(harness, work, id="order-7")
    harness.close()


def test_listeners_of_failures_do_not_set_themselves_off(any_harness: Harness) -> None:
    """2.1: an invoked run tells of its end, unless its parent listens to ends."""
    told: list[str] = []

    @any_harness.durable.function(on=None, retries=0)
    def broken(event: AnyEvent, step: Step) -> None:
        raise NonRetriable("no")

    @any_harness.durable.function(on=FunctionFailed)
    def watch(event: Event[FunctionFailed], step: Step) -> None:
        told.append(event.data.run_id)
        with pytest.raises(InvokeError):
            step.invoke("again", broken)

    def body(event: AnyEvent, step: Step) -> str:
        with pytest.raises(InvokeError):
            step.invoke("broken", broken)
        return "caught"

    parent_that(any_harness, body)
    event_id = any_harness.send("a/b")
    any_harness.settle()
    run = any_harness.run_of(event_id, "parent")
    assert run.result == "caught"
    assert set(told) == {child_of(any_harness, run).id}  # at each of its replays


def test_the_log_tells_which_run_a_step_waits_for(
    any_harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """2.1: logs know the step kind invoke."""
    caplog.set_level(logging.INFO, logger="flask_durable")
    slow = sleeper(any_harness)
    parent_that(any_harness, lambda event, step: step.invoke("slow", slow))
    run = any_harness.send_and_settle("a/b")
    lines = [r.getMessage() for r in caplog.records if "waits for run" in r.message]
    assert lines == [
        f"Step 'slow' of run {run.id} waits for run {child_of(any_harness, run).id} "
        "of sleeper."
    ]
