"""``@durable.step`` and the options of steps."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import current
from flask_durable.errors import DefinitionError
from flask_durable.errors import StepUsageError
from flask_durable.functions import step_function
from flask_durable.functions.options import StepOptions
from flask_durable.functions.step_function import StepFunction

from .declared import App
from .declared import asynchronous
from .declared import generator
from .declared import plain

# -- declared steps --------------------------------------------------------------------


class RecordedStep:
    """Stands for the step tools: what is asked of them is noted."""

    def __init__(self) -> None:
        self.asked: list[t.Any] = []

    def options(self, **given: t.Any) -> RecordedStep:
        self.asked.append(given)
        return self

    def run(self, name: str, function: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        self.asked.append((name, function, args, kwargs))
        return "stored"


@pytest.fixture
def body() -> t.Iterator[RecordedStep]:
    """Calls are made in a run's body, between its steps."""
    step = RecordedStep()
    given: t.Any = step
    token = step_function._tools.set(given)
    yield step
    step_function._tools.reset(token)


def test_a_declared_step_is_a_plain_call_outside_a_run(durable: App) -> None:
    @durable.step
    def fetch(url: str, *, tries: int = 1) -> str:
        """Fetch it."""
        return url * tries

    assert isinstance(fetch, StepFunction)
    assert fetch("a", tries=2) == "aa"
    assert (fetch.name, fetch.__name__, fetch.__doc__) == (  # type: ignore[attr-defined]
        "fetch",
        "fetch",
        "Fetch it.",
    )
    assert fetch.options == StepOptions()


def test_a_declared_step_is_a_step_in_a_body(durable: App, body: RecordedStep) -> None:
    @durable.step("get", retries=1, timeout="5s")
    def fetch(url: str, *, tries: int = 1) -> str:
        return url

    assert fetch("a", tries=2) == "stored"
    assert body.asked == [
        {"retries": 1, "timeout": "5s"},
        ("get", fetch.function, ("a",), {"tries": 2}),
    ]


def test_a_declared_step_is_a_plain_call_inside_another_step(
    durable: App, body: RecordedStep
) -> None:
    fetch = durable.step("fetch")(lambda: "called")
    step = current.StepContext("fetch", 1, False, t.cast(t.Any, None))
    reset = current._step.set(step)
    try:
        assert fetch() == "called"
    finally:
        current._step.reset(reset)
    assert body.asked == []


def test_a_declared_step_can_be_a_method(durable: App, body: RecordedStep) -> None:
    class Client:
        @durable.step
        def fetch(self, url: str) -> str:
            return url

    client = Client()
    assert client.fetch("a") == "stored"
    assert body.asked[-1][2] == (client, "a")
    assert Client.fetch.name == "fetch"


def test_two_declared_steps_with_one_name_are_refused(durable: App) -> None:
    durable.step("fetch")(plain)
    with pytest.raises(DefinitionError) as error:
        durable.step("fetch")(lambda: None)
    places = (plain.__code__.co_filename, __file__)
    assert all(f"{place}:" in str(error.value) for place in places)


@pytest.mark.parametrize("name", ["", " ", "fetch#2", "a\n#12", "x" * 256, 7])
def test_a_step_name_that_cannot_be_found_again_is_refused(
    durable: App, name: t.Any
) -> None:
    with pytest.raises(DefinitionError):
        durable.step(name)(plain)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (asynchronous, "async"),
        (generator, "yield"),
        (lambda: None, "Give it a name"),
        (7, "not a function"),
    ],
)
def test_a_function_that_cannot_be_a_step_is_refused(
    durable: App, function: t.Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        durable.step()(function)


def test_a_declared_function_is_not_a_step(durable: App) -> None:
    function = durable.function(on="a/b")(plain)
    with pytest.raises(DefinitionError, match="plain function"):
        durable.step(function)
    with pytest.raises(DefinitionError, match="plain function"):
        durable.step("other")(durable.step("fetch")(plain))


def test_a_wrong_option_of_a_declared_step_is_a_definition_error(durable: App) -> None:
    with pytest.raises(DefinitionError, match=r"'fetch'.*lease=0"):
        durable.step("fetch", lease=0)(plain)
    with pytest.raises(TypeError, match="priority"):
        durable.step("fetch", priority=1)(plain)  # type: ignore[call-overload]


# -- step options ----------------------------------------------------------------------


def test_options_of_a_step_are_put_over_those_declared() -> None:
    declared = StepOptions(retries=5, timeout=60, non_retriable=(KeyError,))
    merged = declared.merged(StepOptions(retries=0, lease=30, at_most_once=True))
    assert merged == StepOptions(
        retries=0, timeout=60, non_retriable=(KeyError,), lease=30, at_most_once=True
    )
    assert declared.merged(StepOptions()) == declared


def test_a_step_that_runs_at_most_once_has_no_retries_but_its_own() -> None:
    assert StepOptions().effective_retries(3) == 3
    assert StepOptions(retries=1).effective_retries(3) == 1
    assert StepOptions(at_most_once=True).effective_retries(3) == 0
    assert StepOptions(at_most_once=True, retries=2).effective_retries(3) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"timeout": "soon"},
        {"timeout": 0},
        {"lease": 0},
        {"backoff": 2},
        {"non_retriable": KeyError},
    ],
)
def test_a_wrong_option_in_a_run_is_a_usage_error(options: dict[str, t.Any]) -> None:
    with pytest.raises(StepUsageError, match=next(iter(options))):
        StepOptions.of(options)
