"""Several sources as one: order, budget, memory and outages."""

from __future__ import annotations

import logging
import threading
import typing as t

import pytest

from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import ServiceTime
from flask_durable.scaler.sources import SourceChain
from flask_durable.scaler.sources.remembered import ProcessAnswerStore

from ...support.servers import wait_until

LOGGER = "flask_durable.scaler.sources.chain"


class Source:
    """Knows what a test tells it, fails when told, waits while it is held."""

    def __init__(self, name: str, **means: float) -> None:
        self.name = name
        self.means = means
        self.failure: Exception | None = None
        self.asked: list[set[str]] = []
        self.released = threading.Event()
        self.released.set()

    def describe(self) -> str:
        return self.name

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        self.asked.append(set(functions))
        assert self.released.wait(30)
        if self.failure is not None:
            raise self.failure
        return {
            key: ServiceTime(m) for key, m in self.means.items() if key in functions
        }


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def means(chain: SourceChain, *functions: str) -> dict[str, float]:
    return {key: time.mean for key, time in chain.read(functions).items()}


def test_the_first_source_that_knows_a_function_wins() -> None:
    chain = SourceChain([Source("a", x=1), Source("b", x=2, y=2), Source("c", z=3)])
    assert means(chain, "x", "y", "z", "w") == {"x": 1, "y": 2, "z": 3}
    assert chain.describe() == "a, b, c"


def test_all_sources_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(2)

    class Meeting(Source):
        def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
            together.wait(30)
            return super().read(functions)

    assert means(SourceChain([Meeting("a", x=1), Meeting("b", y=2)]), "x", "y") == {
        "x": 1,
        "y": 2,
    }


def test_an_answer_is_fresh_for_five_minutes(clock: Clock) -> None:
    source = Source("a", x=1)
    chain = SourceChain([source], clock=clock)
    assert means(chain, "x", "unknown") == {"x": 1}
    source.means = {"x": 5, "new": 6}
    clock.now += 299
    assert means(chain, "x", "unknown", "new") == {"x": 1, "new": 6}
    clock.now += 1
    assert means(chain, "x", "unknown", "new") == {"x": 5, "new": 6}
    assert source.asked == [{"x", "unknown"}, {"new"}, {"x", "unknown"}]


def test_it_is_said_which_source_knew_a_function() -> None:
    chain = SourceChain([Source("a", x=1), Source("b", x=2, y=2)])
    found = chain.read(["x", "y"])
    assert {key: time.source for key, time in found.items()} == {"x": "a", "y": "b"}


def test_another_process_does_not_ask_again(clock: Clock) -> None:
    memory = ProcessAnswerStore()
    sources = [Source("a", x=1), Source("b", y=2)]
    answers = [
        means(SourceChain(sources, memory, clock=clock), "x", "y", "z")
        for _ in range(3)
    ]
    assert answers == [{"x": 1, "y": 2}] * 3
    assert [len(source.asked) for source in sources] == [1, 1]


def test_a_source_that_fails_is_told_once_an_outage_and_passed_over(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    broken, sound = Source("a", x=1), Source("b", x=2)
    broken.failure = PlatformError("It is on fire.")
    memory = ProcessAnswerStore()

    def ask() -> dict[str, float]:
        clock.now += 60
        return means(SourceChain([broken, sound], memory, clock=clock), "x")

    assert [ask() for _ in range(3)] == [{"x": 2}] * 3
    assert caplog.messages == ["a gives no durations: It is on fire."]
    assert len(broken.asked) == 3
    broken.failure = None
    assert ask() == {"x": 1}
    assert caplog.messages[1:] == ["a answers again."]


def test_while_a_source_fails_what_it_said_last_holds_for_a_day(clock: Clock) -> None:
    source = Source("a", x=1)
    chain = SourceChain([source], clock=clock)
    assert means(chain, "x") == {"x": 1}
    source.failure = PlatformError("Gone.")
    clock.now += 24 * 3600 - 1
    assert means(chain, "x") == {"x": 1}
    clock.now += 1
    assert means(chain, "x") == {}
    assert len(source.asked) == 2


@pytest.mark.parametrize(
    ("wanted", "rest"), [(None, 60), (1, 60), (300, 300), (10**9, 3600)]
)
def test_a_source_that_fails_is_left_alone_for_as_long_as_it_wants(
    clock: Clock, wanted: float | None, rest: float
) -> None:
    source = Source("a", x=1)
    source.failure = PlatformError("Too many.", retry_after=wanted)
    chain = SourceChain([source], clock=clock)
    means(chain, "x")
    clock.now += rest - 1
    means(chain, "x")
    assert len(source.asked) == 1
    clock.now += 1
    means(chain, "x")
    assert len(source.asked) == 2


def test_answers_from_the_future_are_used_and_asked_again(clock: Clock) -> None:
    source = Source("a", x=1)
    chain = SourceChain([source], clock=clock)
    assert means(chain, "x") == {"x": 1}
    source.failure = PlatformError("Gone.", retry_after=3600)
    clock.now -= 1000
    assert means(chain, "x") == {"x": 1}
    clock.now -= 10_000
    source.failure = None
    source.means = {"x": 2}
    assert means(chain, "x") == {"x": 2}


def test_what_another_error_says_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source("a")
    source.failure = ValueError("token=s3cret")
    assert means(SourceChain([source]), "x") == {}
    assert caplog.messages == ["a gives no durations: ValueError"]


def test_a_slow_source_is_waited_for_no_longer_than_the_budget(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    slow, quick = Source("slow", x=1), Source("quick", x=2)
    slow.released.clear()
    chain = SourceChain([slow, quick], budget=0.05, clock=clock)
    try:
        assert [means(chain, "x") for _ in range(3)] == [{"x": 2}] * 3
        assert len(slow.asked) == 1, "a hung source is asked once more"
        assert len(caplog.messages) == 1
    finally:
        slow.released.set()
    wait_until(lambda: means(chain, "x") == {"x": 1})
    assert len(slow.asked) == 1, "a late answer is lost"


def test_nothing_is_asked_about_no_function() -> None:
    source = Source("a", x=1)
    assert SourceChain([source]).read([]) == {}
    assert source.asked == []
