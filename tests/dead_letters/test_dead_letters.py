"""``durable.dead_letters`` on both kinds of queue."""

from __future__ import annotations

import time
import typing as t

import pytest

import flask_durable.dead_letters.dead_letters
from flask_durable import DeadLetterNotFound
from flask_durable.app.health import HealthChecks
from flask_durable.dead_letters.dead_letters import DeadLetters
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import RunMessage
from flask_durable.queue.delivery import Delivery
from flask_durable.queue.transport import QueueCounts

from ..support.harness import Harness
from ..support.servers import wait_until


@pytest.fixture
def calls(any_harness: Harness) -> list[int]:
    """Declare a function, and return what it was called with."""
    found: list[int] = []

    @any_harness.durable.function(on="order/placed")
    def order(event: t.Any, step: t.Any) -> None:
        step.run("note", found.append, event.data["number"])

    any_harness.publish()
    return found


@pytest.fixture
def letters(any_harness: Harness, calls: list[int]) -> DeadLetters:
    return any_harness.state.dead_letters


def bury(
    harness: Harness,
    number: int,
    reason: str = "because",
    *,
    name: str = "order/placed",
    receives: int = 3,
) -> str:
    """Put an event into the dead letters; return its id."""
    message = harness.state.message(name, {"number": number}, id=f"order-{number}")
    harness.state.message_sender.send_dead(
        EVENT_QUEUE, message.encode(), reason, receives=receives
    )
    return message.id


def bury_run(harness: Harness, run: str, function: str = "order") -> None:
    body = RunMessage(run, function, queued=1).encode()
    harness.state.message_sender.send_dead("default", body, "tired")


# -- Looking ----------------------------------------------------------------------


def test_a_dead_letter_tells_what_it_is_about_and_why_it_died(
    any_harness: Harness, letters: DeadLetters
) -> None:
    bury(any_harness, 1, "data.number: too small")
    bury_run(any_harness, "run-1")
    event, run = sorted(letters.list(), key=lambda letter: letter.queue, reverse=True)
    assert (event.queue, event.reason, event.receives) == (
        "events",
        "data.number: too small",
        3,
    )
    assert (event.event, event.event_id) == ("order/placed", "order-1")
    assert (event.run, event.function) == (None, None)
    assert (run.queue, run.run, run.function) == ("default", "run-1", "order")
    assert (run.event, run.event_id) == (None, None)
    assert letters.counts() == {"events": 1, "default": 1}
    assert letters.count() == 2
    assert letters.count("default") == 1
    assert letters.get(event.id) == event


def test_what_cannot_be_decoded_is_shown_as_it_is(
    any_harness: Harness, letters: DeadLetters
) -> None:
    any_harness.state.message_sender.send_dead(EVENT_QUEUE, "{nonsense", "not JSON")
    [letter] = letters.list()
    assert letter.body == "{nonsense"
    assert (letter.event, letter.run) == (None, None)


def test_letters_are_chosen_by_everything_that_is_given(harness: Harness) -> None:
    harness.durable.function(on="order/placed", id="order")(lambda event, step: None)
    letters = harness.state.dead_letters
    bury(harness, 1, "Too SMALL")
    bury(harness, 2, "too large")
    bury(harness, 3, "too small", name="order/cancelled")
    bury_run(harness, "run-1")
    bury_run(harness, "run-2", "invoice")

    def chosen(**which: t.Any) -> set[str | None]:
        return {letter.event_id or letter.run for letter in letters.list(**which)}

    assert chosen(event="order/placed") == {"order-1", "order-2"}
    assert chosen(reason="too small") == {"order-1", "order-3"}
    assert chosen(reason="too small", event="order/placed") == {"order-1"}
    assert chosen(function="invoice") == {"run-2"}
    assert chosen(run="run-1") == {"run-1"}
    assert chosen(queue="default") == {"run-1", "run-2"}
    assert chosen(older_than="1h") == set()
    assert len(chosen(older_than=0, queue="events")) <= 3
    assert chosen(ids=[]) == set()
    assert chosen(queue=None, event=None) == chosen()
    assert len(letters.list(limit=2)) == 2


def test_a_letter_that_is_old_enough_is_chosen(
    any_harness: Harness, letters: DeadLetters
) -> None:
    bury(any_harness, 1)
    wait_until(lambda: len(letters.list(older_than="1ms")) == 1)
    assert letters.list(older_than="1h") == []


def test_mistakes_choose_nothing(any_harness: Harness, letters: DeadLetters) -> None:
    bury(any_harness, 1)
    with pytest.raises(TypeError, match="unexpected evnet"):
        letters.purge(evnet="order/placed")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="a list of ids"):
        letters.purge(ids="events/1")
    with pytest.raises(ValueError, match="never end"):
        letters.redrive(rate=0)
    assert letters.purge(ids=[]).done == 0
    assert letters.count() == 1


@pytest.mark.parametrize("id", ["events/1-0", "elsewhere/1-0", "nonsense", ""])
def test_a_letter_that_is_not_there_is_not_found(letters: DeadLetters, id: str) -> None:
    with pytest.raises(DeadLetterNotFound, match="moved back or deleted"):
        letters.get(id)


def test_the_last_error_is_shown_where_the_queue_knows_none(
    any_harness: Harness, letters: DeadLetters
) -> None:
    noted = time.time() * 1000
    any_harness.state.failures.note({"event:order-1": "KeyError: of its first life"})
    wait_until(lambda: time.time() * 1000 > noted + 50)
    bury(any_harness, 1, "received 10 times without being deleted")
    bury(any_harness, 2, "received 10 times without being deleted")
    assert [letter.error for letter in letters.list(queue="events")] == [None, None]
    any_harness.state.failures.note({"event:order-1": "ValueError: spilt milk"})
    [letter] = letters.list(queue="events", reason="spilt MILK")
    assert (letter.event_id, letter.error) == ("order-1", "ValueError: spilt milk")


# -- Moving back ------------------------------------------------------------------


def test_a_redriven_event_is_run_exactly_once(
    any_harness: Harness, letters: DeadLetters, calls: list[int]
) -> None:
    bury(any_harness, 1)
    handled = letters.redrive()
    assert (handled.done, handled.failed, handled.complete) == (1, 0, True)
    any_harness.settle()
    assert calls == [1]
    # What a mover that died between its two calls leaves: the event and its letter.
    bury(any_harness, 1)
    letters.redrive()
    any_harness.settle()
    assert calls == [1]
    assert any_harness.run_of("order-1").status == "completed"
    assert letters.count() == 0


def test_a_redriven_event_that_is_fit_by_now_is_run_and_another_dies_again(
    any_harness: Harness, letters: DeadLetters, calls: list[int]
) -> None:
    bury(any_harness, 1)
    any_harness.state.message_sender.send_dead(EVENT_QUEUE, "{nonsense", "not JSON")
    assert letters.redrive().done == 2
    any_harness.settle()
    assert calls == [1]
    [letter] = letters.list()
    assert (letter.body, letter.receives) == ("{nonsense", 1)


def test_a_redriven_run_message_runs_nothing_twice(
    any_harness: Harness, letters: DeadLetters, calls: list[int]
) -> None:
    any_harness.in_place = 0
    any_harness.send("order/placed", {"number": 1}, id="order-1")
    any_harness.route()
    run = any_harness.run_of("order-1")
    bury_run(any_harness, run.id)
    assert letters.redrive(run=run.id).done == 1
    any_harness.settle()
    assert calls == [1]
    assert any_harness.state.transport.counts("default") == QueueCounts(0, 0, 0, 0)


def test_some_are_moved_back_by_id_and_by_filter(
    any_harness: Harness, letters: DeadLetters, calls: list[int]
) -> None:
    for number in range(6):
        bury(any_harness, number, f"because {number % 2}")
    [chosen] = [x for x in letters.list() if x.event_id == "order-1"]
    assert letters.redrive(ids=[chosen.id]).done == 1
    assert letters.redrive(reason="because 0", limit=2).done == 2
    any_harness.settle()
    assert len(calls) == 3
    assert 1 in calls
    assert letters.redrive(reason="because 0").done == 1
    any_harness.settle()
    assert sorted(calls) == [0, 1, 2, 4]
    assert {letter.event_id for letter in letters.list()} == {"order-3", "order-5"}


def test_those_that_are_there_are_moved_when_others_are_not(
    any_harness: Harness, letters: DeadLetters
) -> None:
    bury(any_harness, 1)
    [letter] = letters.list()
    with pytest.raises(DeadLetterNotFound, match="events/none"):
        letters.redrive(ids=[letter.id, "events/none"])
    assert letters.count() == 0
    with pytest.raises(DeadLetterNotFound):
        letters.redrive(ids=[letter.id])


def test_a_queue_that_takes_nothing_ends_the_work(
    any_harness: Harness, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        bury(any_harness, number)
    queues = any_harness.state.transport.dead_letters
    open_of = queues.open_cursor
    asked = []

    def open_cursor(queue: str, hold: float) -> t.Any:
        found = open_of(queue, hold)

        def refuse(letters: t.Sequence[t.Any]) -> list[Exception]:
            asked.append(queue)
            return [OSError("full")] * len(letters)

        monkeypatch.setattr(found, "move_back", refuse)
        return found

    monkeypatch.setattr(queues, "open_cursor", open_cursor)
    handled = letters.redrive(rate=2.0)
    assert (handled.done, handled.failed) == (0, 2)
    assert handled.error == "OSError: full"
    assert len(asked) == 1
    assert letters.count() == 3


class Clock:
    """Stands still but for those who sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.mark.parametrize("rate", [None, 2.5, 0.5, 100])
def test_letters_are_moved_back_no_faster_than_asked(
    any_harness: Harness,
    letters: DeadLetters,
    monkeypatch: pytest.MonkeyPatch,
    rate: float | None,
) -> None:
    clock = Clock()
    for number in range(7):
        bury(any_harness, number)
    monkeypatch.setattr(flask_durable.dead_letters.dead_letters, "time", clock)
    moved: list[tuple[float, int]] = []
    handled = letters.redrive(
        rate=rate,
        limit=7,
        progress=lambda looked: moved.append((clock.now - 1000, looked)),
    )
    assert handled.done == sum(looked for _, looked in moved) == 7
    earlier = 0
    for moment, looked in moved:
        # What went before has had its time, and a second's worth goes at a time.
        assert moment == pytest.approx(earlier / rate if rate else 0)
        assert looked <= (max(1, rate) if rate else 7)
        earlier += looked


# -- The runs that they are about ---------------------------------------------------


def test_a_queued_run_shows_why_its_message_died(
    any_harness: Harness, letters: DeadLetters, calls: list[int]
) -> None:
    any_harness.in_place = 0
    any_harness.send("order/placed", {"number": 1}, id="order-1")
    any_harness.route()
    [run] = any_harness.runs.of_event("order-1")
    broker = any_harness.state.broker
    assert any_harness.runs.get(run.id).message_error is None

    [delivery] = receive(any_harness, "default")
    delivery.failed(ValueError("spilt milk"))
    assert broker.flush_settled(5)
    shown = any_harness.runs.get(run.id)
    assert (shown.status, shown.message_error) == ("queued", "ValueError: spilt milk")

    broker.transport.max_receives = lambda queue: 2
    [delivery] = receive(any_harness, "default")
    delivery.failed(ValueError("spilt again"))
    assert broker.flush_settled(5)
    error = "received 2 times, at last ValueError: spilt again"
    assert any_harness.runs.get(run.id).message_error == error
    [letter] = letters.list(run=run.id)
    assert (letter.reason, letter.error) == (error, error)

    letters.redrive(run=run.id)
    any_harness.settle()
    run = any_harness.runs.get(run.id)
    assert (run.status, run.message_error) == ("completed", None)
    assert calls == [1]


def test_a_run_that_was_queued_again_shows_nothing_of_its_earlier_messages(
    harness: Harness,
) -> None:
    @harness.durable.function(on="order/placed")
    def order(event: t.Any, step: t.Any) -> None:
        step.sleep("rest", "1h")

    run = harness.send_and_settle("order/placed", {}, id="order-1")
    harness.state.failures.note({f"run:{run.id}": "ValueError: spilt milk"})
    assert harness.runs.get(run.id).message_error is None
    noted = time.time() * 1000
    wait_until(lambda: time.time() * 1000 > noted + 5)
    harness.move_clock(3601)
    harness.sweep()
    run = harness.runs.get(run.id)
    assert (run.status, run.message_error) == ("queued", None)


def receive(harness: Harness, queue: str) -> list[Delivery]:
    found: list[Delivery] = []

    def look() -> bool:
        found.extend(harness.state.broker.deliveries(queue, 1, 0.1))
        return bool(found)

    wait_until(look)
    return found


# -- Deleting ---------------------------------------------------------------------


def test_letters_are_deleted_all_or_some(
    any_harness: Harness, letters: DeadLetters, calls: list[int]
) -> None:
    for number in range(4):
        bury(any_harness, number, f"because {number % 2}")
    bury_run(any_harness, "run-1")
    assert letters.purge(reason="because 1").done == 2
    assert letters.counts() == {"events": 2, "default": 1}
    assert letters.purge(queue="events").done == 2
    assert letters.counts() == {"events": 0, "default": 1}
    assert letters.purge().done == 1
    any_harness.settle()
    assert calls == []
    assert letters.list() == []


# -- Health -----------------------------------------------------------------------


def test_health_counts_dead_letters_and_does_not_fail_for_them(
    any_harness: Harness, letters: DeadLetters
) -> None:
    def check() -> t.Any:
        return {c.name: c for c in HealthChecks(any_harness.state).everything()}[
            "dead letters"
        ]

    assert (check().ok, check().detail) == (True, "0")
    bury(any_harness, 1)
    bury_run(any_harness, "run-1")
    assert check().ok
    assert check().detail == '1 in events, 1 in default, see "flask durable dlq list"'
