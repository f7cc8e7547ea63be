"""Clocks of senders and workers: wrong by an hour, they decide about nothing."""

from __future__ import annotations

import time
import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import UTC

import pytest

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage

from ..support.harness import Harness

HOUR = 3600


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> t.Callable[[float], None]:
    """Return what puts the clock of this process ahead by some seconds."""
    right = time.time

    def put_ahead(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: right() + seconds)

    return put_ahead


def declare(harness: Harness) -> list[str]:
    started: list[str] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        started.append(event.id)

    return started


def test_an_event_of_a_sender_whose_clock_is_ahead_starts_at_once(
    any_harness: Harness, set_clock: t.Callable[[float], None]
) -> None:
    started = declare(any_harness)

    set_clock(HOUR)
    event_id = any_harness.send("a/b")
    set_clock(0)
    any_harness.settle()

    assert started == [event_id]


@pytest.mark.parametrize("in_place", [0, 8])
@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
def test_a_worker_whose_clock_is_wrong_starts_no_run_before_its_time(
    harness: Harness, set_clock: t.Callable[[float], None], ahead: int, in_place: int
) -> None:
    harness.in_place = in_place
    started = declare(harness)
    event_id = harness.send("a/b", at=datetime.now(UTC) + timedelta(minutes=30))

    set_clock(ahead)
    harness.settle()
    harness.sweep()
    harness.settle()
    assert started == []
    assert harness.run_of(event_id).reason == "scheduled"
    assert harness.run_of(event_id).status == RunStatus.SUSPENDED

    harness.advance(1801)
    assert started == [event_id]


def test_a_worker_whose_clock_is_slow_puts_off_nothing_that_is_due(
    harness: Harness, set_clock: t.Callable[[float], None]
) -> None:
    started = declare(harness)
    event_id = harness.send("a/b", at=datetime.now(UTC))

    set_clock(-HOUR)
    harness.settle()

    assert started == [event_id]


def test_an_event_that_is_sent_again_by_a_step_does_not_wait_for_the_time_it_was_given(
    harness: Harness, set_clock: t.Callable[[float], None]
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("on", lambda: harness.durable.send(event, id="again"))

    set_clock(HOUR)
    harness.send("a/b", id="first")
    set_clock(0)
    harness.route()
    harness.execute()
    harness.route()

    assert harness.run_of("again").reason != "scheduled"


def test_an_event_of_a_message_without_a_due_time_does_not_wait(
    harness: Harness,
) -> None:
    started = declare(harness)
    harness.start()
    later = round((time.time() + HOUR) * 1000)
    message = EventMessage("a/b", {}, "e1", later)
    harness.state.message_sender.send(EVENT_QUEUE, [message.encode()])

    harness.settle()

    assert started == ["e1"]
