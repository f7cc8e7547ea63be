"""Filters and validators that hang: they cost their own event, and no other one."""

from __future__ import annotations

import math
import threading
import typing as t
from contextvars import ContextVar

import pytest
from pydantic import field_validator

from flask_durable import Event
from flask_durable import EventData
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.engine import asking
from flask_durable.engine.asking import Answer
from flask_durable.engine.asking import Asker
from flask_durable.engine.asking import Question
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage

from ..support.harness import Harness
from ..support.servers import wait_until

pytestmark = pytest.mark.usefixtures("soon")

LATE = Answer(late=True)
RESTS = Answer(rests=True)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for what hangs."""
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(asking, "ANSWER_GRACE_SECONDS", 0.1)


@pytest.fixture
def gate() -> t.Iterator[threading.Lock]:
    """Return a lock that is held until the end: who takes it hangs in C code."""
    lock = threading.Lock()
    lock.acquire()
    yield lock
    lock.release()


@pytest.fixture
def stopping() -> t.Iterator[threading.Event]:
    """Return what ends an endless loop of Python code, at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def hang(lock: threading.Lock) -> bool:
    with lock:
        return True


def ask(asker: Asker, *asked: tuple[str, t.Callable[[], t.Any]]) -> list[Answer]:
    return asker.ask([Question(key, call) for key, call in asked])


def fail() -> t.NoReturn:
    raise SystemExit(1)


# -- Asking ---------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_questions() -> None:
    first, second, third = ask(
        Asker(), ("a", lambda: 1), ("b", fail), ("a", lambda: None)
    )
    assert (first, third) == (Answer(1), Answer(None))
    assert isinstance(second.error, SystemExit)
    assert ask(Asker()) == []


def test_code_that_cannot_be_interrupted_is_left_alone(gate: threading.Lock) -> None:
    asker = Asker()
    answers = ask(
        asker,
        ("a", lambda: 1),
        ("slow", lambda: hang(gate)),
        ("slow", lambda: 2),
        ("b", lambda: 3),
    )
    assert answers == [Answer(1), LATE, RESTS, Answer(3)]


def test_code_that_can_be_interrupted_is_late_and_keeps_no_thread() -> None:
    asker = Asker()
    stopping = threading.Event()

    def loop() -> None:
        while not stopping.is_set():
            pass

    def alive() -> set[threading.Thread]:
        threads = set(threading.enumerate())
        return {thread for thread in threads if thread.name == "durable-asker"}

    before = alive()
    try:
        assert ask(asker, ("loop", loop), ("b", lambda: 1)) == [LATE, Answer(1)]
        assert ask(asker, ("loop", lambda: 1)) == [RESTS]
        assert len(alive() - before) == 1
        assert asker._resting["loop"] < math.inf  # it is asked again after a while
    finally:
        stopping.set()


def test_what_a_question_sets_of_context_variables_ends_with_it() -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[str] = []

    def look(name: str) -> None:
        seen.append(tenant.get())
        tenant.set(name)

    asker = Asker()
    ask(asker, ("a", lambda: look("a")), ("b", lambda: look("b")))
    ask(asker, ("a", lambda: look("c")))
    assert seen == ["nobody"] * 3


def test_what_was_left_alone_is_asked_again_some_time_after_it_came_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "QUESTION_REST_SECONDS", 0.0)
    asker, lock = Asker(), threading.Lock()
    with lock:
        assert ask(asker, ("slow", lambda: hang(lock))) == [LATE]
        assert ask(asker, ("slow", lambda: 1)) == [RESTS]
    wait_until(lambda: ask(asker, ("slow", lambda: 1)) == [Answer(1)])


def test_many_ask_at_once_and_none_waits_for_another(gate: threading.Lock) -> None:
    asker = Asker()
    hanging = threading.Thread(target=ask, args=(asker, ("a", lambda: hang(gate))))
    hanging.start()

    assert ask(asker, ("b", lambda: 1)) == [Answer(1)]

    hanging.join()


# -- Routing --------------------------------------------------------------------------


def test_a_filter_that_hangs_fails_its_own_run_and_holds_up_no_other(
    harness: Harness, gate: threading.Lock
) -> None:
    told: list[str] = []

    @harness.durable.function(on="a/*", where=lambda event: hang(gate))
    def picky(event: Event[t.Any], step: Step) -> None: ...

    @picky.on_failure
    def tell(event: Event[t.Any], step: Step, failure: t.Any) -> None:
        told.append(failure.code)

    @harness.durable.function(on="a/b", where=lambda event: True)
    def other(event: Event[t.Any], step: Step) -> str:
        return "done"

    event_id = harness.send("a/b")
    harness.settle()

    assert harness.run_of(event_id, "other").result == "done"
    run = harness.run_of(event_id, "picky")
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == "filter.timeout"
    assert told == ["filter.timeout"]


def test_a_filter_that_hangs_for_one_event_fails_no_other_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "QUESTION_REST_SECONDS", 0.0)
    monkeypatch.setattr("flask_durable.common.redelivery.FIRST_PAUSE", 0.2)
    lock = threading.Lock()

    @harness.durable.function(
        on="a/b", where=lambda event: hang(lock) if event.data["bad"] else True
    )
    def picky(event: Event[t.Any], step: Step) -> str:
        return "done"

    @harness.durable.function(on="a/b")
    def other(event: Event[t.Any], step: Step) -> str:
        return "done"

    with lock:
        bad = harness.send("a/b", {"bad": True})
        good = harness.send("a/b", {"bad": False})
        harness.settle()
        assert harness.run_of(bad, "picky").status == RunStatus.FAILED
        # It was not asked about this one: the event goes back, for this function alone.
        assert [run.function for run in harness.runs.of_event(good)] == ["other"]
        assert harness.state.transport.counts(EVENT_QUEUE).delayed == 1

    def routed() -> bool:
        harness.settle()
        return len(harness.runs.of_event(good)) == 2

    wait_until(routed, "the event is asked about")
    assert harness.run_of(good, "picky").result == "done"


def test_a_filter_that_goes_on_for_ever_is_asked_of_later_events(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, stopping: threading.Event
) -> None:
    monkeypatch.setattr(asking, "QUESTION_REST_SECONDS", 0.0)

    @harness.durable.function(on="a/b", where=lambda event: loop_if_bad(event.data))
    def picky(event: Event[t.Any], step: Step) -> str:
        return "done"

    def loop_if_bad(data: dict[str, t.Any]) -> bool:
        while data["bad"] and not stopping.is_set():
            pass
        return True

    bad = harness.send("a/b", {"bad": True})
    harness.settle()
    good = harness.send("a/b", {"bad": False})
    harness.settle()

    assert harness.run_of(bad).status == RunStatus.FAILED
    assert harness.run_of(good).result == "done"


def test_a_validator_that_goes_on_for_ever_is_asked_of_later_events(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, stopping: threading.Event
) -> None:
    monkeypatch.setattr(asking, "QUESTION_REST_SECONDS", 0.0)

    class Slow(EventData, name="slow/sent"):
        path: str

        @field_validator("path")
        def check(cls, path: str) -> str:
            while path == "hang" and not stopping.is_set():
                pass
            return path

    @harness.durable.function(on=Slow)
    def work(event: Event[Slow], step: Step) -> str:
        return "done"

    harness.start()
    for id, path in ("e1", "hang"), ("e2", "good"):
        body = EventMessage("slow/sent", {"path": path}, id, 1).encode()
        harness.state.message_sender.send(EVENT_QUEUE, [body])
        harness.settle()

    assert harness.runs.of_event("e1") == []
    assert harness.run_of("e2").result == "done"


def test_a_run_that_failed_for_its_filter_asks_it_when_it_is_tried_again(
    harness: Harness,
) -> None:
    lock = threading.Lock()

    @harness.durable.function(on="a/b", where=lambda event: hang(lock))
    def picky(event: Event[t.Any], step: Step) -> str:
        return "done"

    with lock:
        run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    harness.runs.retry(run.id)
    harness.settle()

    assert harness.runs.get(run.id).result == "done"


def test_a_validator_that_hangs_sends_its_event_back_and_holds_up_no_other(
    harness: Harness, gate: threading.Lock
) -> None:
    class Slow(EventData, name="slow/sent"):
        path: str

        @field_validator("path")
        def check(cls, path: str) -> str:
            if path == "hang" and threading.current_thread().name == "durable-asker":
                hang(gate)
            return path

    @harness.durable.function(on=[Slow, "a/b"])
    def work(event: Event[t.Any], step: Step) -> str:
        return "done"

    broker = harness.state.broker
    harness.start()
    bodies = [EventMessage("slow/sent", {"path": "hang"}, "e1", 1).encode()]
    bodies += [EventMessage("a/b", {}, "e2", 1).encode()]
    broker.sender.send(EVENT_QUEUE, bodies)
    harness.settle()

    assert harness.run_of("e2").result == "done"
    assert harness.runs.of_event("e1") == []
    counts = broker.transport.counts(EVENT_QUEUE)
    assert (counts.delayed, counts.dead) == (1, 0)


def test_the_data_of_plain_models_is_checked_without_another_thread(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Item(EventData):
        when: t.Literal["now"]
        tags: list[str] = []

    class Plain(EventData, name="plain/sent"):
        items: list[Item]
        count: int | None = None

    @harness.durable.function(on=Plain)
    def work(event: Event[Plain], step: Step) -> None: ...

    def refuse() -> t.NoReturn:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(asking, "_start_thread", refuse)
    run = harness.send_and_settle(Plain(items=[Item(when="now")]))
    assert run.status == RunStatus.COMPLETED
