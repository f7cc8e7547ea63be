"""Hooks around sends, routings, attempts and steps, and the signals of the same."""

from __future__ import annotations

import contextlib
import logging
import typing as t

import pytest

from flask_durable import Backoff
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Middleware
from flask_durable import NonRetriable
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.middleware import Around
from flask_durable.middleware import AttemptInfo
from flask_durable.middleware import MiddlewareChain
from flask_durable.middleware import RouteInfo
from flask_durable.middleware import SendInfo
from flask_durable.middleware import StepInfo
from flask_durable.signals import attempt_finished
from flask_durable.signals import attempt_started
from flask_durable.signals import events_routed
from flask_durable.signals import events_sent
from flask_durable.signals import step_finished
from flask_durable.signals import step_started

from .support.harness import Harness
from .support.servers import ValkeyServer


class Recorder(Middleware):
    """Notes what it is told, when a hook is left."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.headers: list[t.Mapping[str, str]] = []
        self.sends: list[SendInfo] = []
        self.routes: list[RouteInfo] = []

    @contextlib.contextmanager
    def around_send(self, send: SendInfo) -> t.Iterator[None]:
        send.headers["traceparent"] = f"of-{send.events[0].id}"
        yield
        self.sends.append(send)

    @contextlib.contextmanager
    def around_route(self, route: RouteInfo) -> t.Iterator[None]:
        yield
        self.routes.append(route)

    @contextlib.contextmanager
    def around_attempt(self, attempt: AttemptInfo) -> t.Iterator[None]:
        self.headers.append(attempt.event.headers)
        self.lines.append(f"{attempt.function} {attempt.number} begins")
        yield
        self.lines.append(
            f"{attempt.function} {attempt.number} {attempt.outcome} {attempt.reason}"
            f" {attempt.memoized} {_name(attempt.error)}".strip()
        )

    @contextlib.contextmanager
    def around_step(self, step: StepInfo) -> t.Iterator[None]:
        yield
        self.lines.append(
            f"{step.kind} {step.name} {step.number} {step.outcome} {_name(step.error)}"
        )


def _name(error: BaseException | None) -> str:
    return type(error).__name__ if error else "-"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def watched(
    valkey: ValkeyServer, namespace: str, recorder: Recorder
) -> t.Iterator[Harness]:
    durable = Durable(middleware=[recorder])
    harness = Harness(valkey.url, namespace, durable=durable)
    yield harness
    harness.close()


def test_a_run_tells_of_its_attempts_and_of_each_step_that_is_not_stored(
    watched: Harness, recorder: Recorder
) -> None:
    fails = [True]

    def flaky() -> None:
        if fails.pop():
            fails.append(False)
            raise OSError("not now")

    @watched.durable.function(on="a/b", backoff=Backoff("2s"))
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("first", int)
        step.sleep("nap", "1m")
        step.run("second", flaky)
        step.send_event("tell", Event("a/c", {}))

    event_id = watched.send("a/b")
    watched.settle()
    watched.advance(61)
    watched.advance(10)

    run = watched.run_of(event_id)
    assert run.status is RunStatus.COMPLETED
    assert recorder.lines == [
        "work 1 begins",
        "run first 1 completed -",
        "work 1 suspended sleep 0 -",
        "work 1 begins",
        "run second 1 retried OSError",
        "work 1 suspended retry 2 -",
        "work 1 begins",
        "run second 2 completed -",
        "send_event tell 1 completed -",
        "work 1 completed  3 -",
    ]


def test_failures_of_steps_bodies_and_runs_are_told_with_their_errors(
    watched: Harness, recorder: Recorder
) -> None:
    def broken() -> None:
        raise NonRetriable("no")

    @watched.durable.function(on="a/step")
    def step_fails(event: Event[t.Any], step: Step) -> None:
        step.run("broken", broken)

    @watched.durable.function(on="a/body", retries=1, backoff=Backoff("2s"))
    def body_fails(event: Event[t.Any], step: Step) -> None:
        raise KeyError("x")

    watched.send("a/step")
    watched.send("a/body")
    watched.settle()
    watched.advance(10)

    assert [line for line in recorder.lines if "begins" not in line] == [
        "run broken 1 failed NonRetriable",
        "step_fails 1 failed  0 StepError",
        "body_fails 1 suspended retry 0 KeyError",
        "body_fails 2 failed  0 KeyError",
    ]


class Failures(Middleware):
    """Notes what is told of earlier failures, and of the step that failed a run."""

    def __init__(self) -> None:
        self.previous: list[str] = []
        self.failed_steps: list[str] = []

    def around_step(self, step: StepInfo) -> Around:
        if step.previous is not None:
            self.previous.append(f"{step.name} {step.number}: {step.previous.message}")
        return super().around_step(step)

    @contextlib.contextmanager
    def around_attempt(self, attempt: AttemptInfo) -> t.Iterator[None]:
        if attempt.previous is not None:
            self.previous.append(f"body {attempt.number}: {attempt.previous.message}")
        yield
        if attempt.outcome == "failed":
            self.failed_steps.append(attempt.failed_step)


@pytest.mark.parametrize("keys", [None, 43 * "a" + "="])
def test_an_attempt_is_told_what_the_one_before_it_failed_with(
    valkey: ValkeyServer, namespace: str, keys: str | None
) -> None:
    failures = Failures()
    durable = Durable(middleware=[failures])
    harness = Harness(
        valkey.url, namespace, durable=durable, DURABLE_ENCRYPTION_KEYS=keys
    )

    def broken() -> None:
        raise OSError("the step's")

    @durable.function(on="a/b", retries=1, backoff=Backoff("2s"))
    def step_fails(event: Event[t.Any], step: Step) -> None:
        step.run("broken", broken)

    @durable.function(on="a/b", retries=1, backoff=Backoff("2s"))
    def body_fails(event: Event[t.Any], step: Step) -> None:
        raise OSError("the body's")

    harness.send("a/b")
    harness.settle()
    harness.advance(10)
    harness.close()

    assert sorted(failures.previous) == ["body 2: the body's", "broken 2: the step's"]
    assert sorted(failures.failed_steps) == ["", "broken"]


def test_sizes_are_told_of_what_is_sent_routed_and_stored(
    watched: Harness, recorder: Recorder
) -> None:
    watched.send("a/b", {"text": 100 * "x"})
    watched.settle()
    [send], [route] = recorder.sends, recorder.routes
    assert send.size == route.events[0].size > 100


def test_a_run_that_is_cancelled_in_between_is_lost_to_its_attempt(
    watched: Harness, recorder: Recorder
) -> None:
    @watched.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        def cancel() -> None:
            watched.runs.cancel(watched.runs.of_event(event.id)[0].id)

        step.run("cancel", cancel)

    watched.send_and_settle("a/b")

    assert recorder.lines[1:] == [
        "run cancel 1 interrupted -",
        "work 1 lost cancelled 0 -",
    ]


def test_what_a_hook_adds_at_a_send_is_there_in_every_attempt(
    watched: Harness, recorder: Recorder
) -> None:
    @watched.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("nap", "1m")
        step.send_event("tell", Event("a/c", {}, id="child"))

    @watched.durable.function(on="a/c")
    def child(event: Event[t.Any], step: Step) -> None: ...

    event_id = watched.send("a/b")
    watched.settle()
    watched.advance(61)

    parent = {"traceparent": f"of-{event_id}"}
    assert recorder.headers == [parent, parent, {"traceparent": "of-child"}]
    [routed, _] = recorder.routes
    assert routed.events[0].event.headers == parent


def test_a_routing_tells_which_runs_are_new_and_which_were_there(
    watched: Harness, recorder: Recorder
) -> None:
    @watched.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    for _ in range(2):
        watched.send("a/b", id="same")
        watched.settle()

    run_id = watched.run_of("same").id
    told = [(e.created, e.existing) for route in recorder.routes for e in route.events]
    assert told == [({"work": run_id}, {}), ({}, {"work": run_id})]


def test_a_send_tells_who_owns_each_event(
    watched: Harness, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.send("a/b", id="good")

    def refuse(queue: str, bodies: t.Sequence[str], **_: t.Any) -> list[t.Any]:
        return [OSError("full")] * len(bodies)

    monkeypatch.setattr(watched.state.message_sender, "send", refuse)
    with pytest.raises(UnavailableError):
        watched.send("a/b", id="bad")

    good, bad = (send.outcomes[0] for send in recorder.sends)
    assert good == "accepted"
    assert isinstance(bad, OSError)


class Raises(Middleware):
    """Raises in each hook, before or after."""

    def __init__(self, error: BaseException, moment: str) -> None:
        self._error = error
        self._moment = moment

    def around_send(self, send: SendInfo) -> Around:
        return self._around()

    def around_route(self, route: RouteInfo) -> Around:
        return self._around()

    def around_attempt(self, attempt: AttemptInfo) -> Around:
        return self._around()

    def around_step(self, step: StepInfo) -> Around:
        return self._around()

    def _around(self) -> Around:
        if self._moment == "called":
            raise self._error
        return self._raising()

    @contextlib.contextmanager
    def _raising(self) -> t.Iterator[None]:
        if self._moment == "entered":
            raise self._error
        yield
        raise self._error


@pytest.mark.parametrize("moment", ["called", "entered", "left"])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), GeneratorExit()])
def test_a_hook_that_raises_loses_nothing_and_keeps_no_other_hook_from_being_called(
    valkey: ValkeyServer,
    namespace: str,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    moment: str,
) -> None:
    durable = Durable(middleware=[Raises(error, moment), recorder])
    harness = Harness(valkey.url, namespace, durable=durable)

    @durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> int:
        return step.run("one", lambda: 1)

    with caplog.at_level(logging.ERROR):
        run = harness.send_and_settle("a/b")

    assert (run.status, run.result) == (RunStatus.COMPLETED, 1)
    assert recorder.lines == [
        "work 1 begins",
        "run one 1 completed -",
        "work 1 completed  0 -",
    ]
    failed = [r for r in caplog.records if vars(r).get("action") == "middleware_failed"]
    assert len(failed) == 4
    harness.close()


def test_a_keyboard_interrupt_goes_through_a_hook() -> None:
    chain = MiddlewareChain([Raises(KeyboardInterrupt(), "left")])
    with pytest.raises(KeyboardInterrupt), chain.around_send(SendInfo([])):
        pass


def test_the_first_middleware_is_the_outermost() -> None:
    order: list[str] = []

    class Named(Middleware):
        def __init__(self, name: str) -> None:
            self._name = name

        @contextlib.contextmanager
        def around_send(self, send: SendInfo) -> t.Iterator[None]:
            order.append(f"{self._name} in")
            yield
            order.append(f"{self._name} out")

    with MiddlewareChain([Named("a"), Named("b")]).around_send(SendInfo([])):
        order.append("sent")
    assert order == ["a in", "b in", "sent", "b out", "a out"]


def test_each_moment_is_a_signal_of_its_app(harness: Harness) -> None:
    heard: list[str] = []
    kept = []
    for signal in (
        events_sent,
        events_routed,
        attempt_started,
        attempt_finished,
        step_started,
        step_finished,
    ):

        def hear(sender: object, *, name: str = signal.name, **told: object) -> None:
            [info] = told.values()
            heard.append(f"{name} {type(info).__name__}")

        kept.append(hear)
        signal.connect(hear, sender=harness.app)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("one", int)

    harness.send_and_settle("a/b")
    assert heard == [
        "events-sent SendInfo",
        "events-routed RouteInfo",
        "attempt-started AttemptInfo",
        "step-started StepInfo",
        "step-finished StepInfo",
        "attempt-finished AttemptInfo",
    ]


def test_a_receiver_that_raises_loses_nothing(harness: Harness) -> None:
    def broken(sender: object, **told: object) -> None:
        raise ValueError("no")

    attempt_started.connect(broken, sender=harness.app)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    assert harness.send_and_settle("a/b").status is RunStatus.COMPLETED


def test_an_error_is_released_when_its_hooks_were_left(
    watched: Harness, recorder: Recorder
) -> None:
    told: list[StepInfo | AttemptInfo] = []

    class Keeps(Recorder):
        @contextlib.contextmanager
        def around_step(self, step: StepInfo) -> t.Iterator[None]:
            yield
            assert step.error is not None
            told.extend([step, step.attempt])

    durable = Durable(middleware=[Keeps()])
    harness = Harness(watched.state.server.url, "lets-go", durable=durable)

    @durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("fails", lambda: 1 / 0)

    harness.send_and_settle("a/b")
    assert [info.error for info in told] == [None, None]
    harness.close()
