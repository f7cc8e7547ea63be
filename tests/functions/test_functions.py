"""Declared functions: what they are called with, and which are refused."""

from __future__ import annotations

import functools
import typing as t

import pytest

from flask_durable.errors import DefinitionError
from flask_durable.events.model import EventData
from flask_durable.functions.retries import Backoff

from .declared import App
from .declared import async_generator
from .declared import asynchronous
from .declared import bare
from .declared import Base
from .declared import generator
from .declared import keyword
from .declared import message
from .declared import one
from .declared import plain
from .declared import three
from .declared import Uploaded

# -- declaring -------------------------------------------------------------------------


def test_a_declared_function_is_called_like_the_plain_one(durable: App) -> None:
    function = durable.function(on="a/b")(plain)
    assert function(t.cast(t.Any, 1), t.cast(t.Any, 2)) == "1 2"
    assert function.id == "plain"
    assert function.__wrapped__ is plain  # type: ignore[attr-defined]
    assert function.__name__ == "plain"  # type: ignore[attr-defined]


def test_a_function_is_found_by_id_and_by_event(durable: App) -> None:
    first = durable.function(on=["a/b", "c/*"], id="first")(plain)
    second = durable.function(on="*", id="second")(plain)
    assert durable.functions.get("first") is first
    assert durable.functions.get("third") is None
    assert "second" in durable.functions
    assert list(durable.functions) == [first, second]
    assert durable.functions.matching("c/d") == [second, first]
    assert durable.functions.matching("a/b") == [first, second]
    assert durable.functions.matching("durable/function.failed") == []


def test_queues_are_named_once_each(durable: App) -> None:
    for id, queue in [("a", "media"), ("b", "default"), ("c", "media")]:
        durable.function(on="a/b", id=id, queue=queue)(plain)
    assert durable.functions.queues() == ["default", "media"]


def test_defaults_are_those_of_the_documentation(durable: App) -> None:
    function = durable.function(on=None)(plain)
    assert (function.queue, function.retries, function.max_attempts) == (
        "default",
        3,
        4,
    )
    assert function.backoff == Backoff("2s", factor=4, maximum="1h", jitter=True)
    assert (function.timeout, function.start_timeout) == (None, None)
    assert (function.non_retriable, function.triggers) == ((), ())


def test_durations_become_seconds(durable: App) -> None:
    function = durable.function(on=None, timeout="1h", start_timeout=90)(plain)
    assert (function.timeout, function.start_timeout) == (3600, 90)


def test_the_specification_is_what_a_process_publishes(durable: App) -> None:
    @durable.function(
        on=[Uploaded, "media/*"], queue="media", retries=1, where=lambda event: True
    )
    def transcode(event: t.Any, step: t.Any) -> None: ...

    @transcode.on_failure
    def report(event: t.Any, step: t.Any, failure: t.Any) -> None: ...

    assert transcode.spec() == {
        "id": "transcode",
        "triggers": ["media/uploaded", "media/*"],
        "crons": [],
        "queue": "media",
        "where": True,
        "timeout": None,
        "start_timeout": None,
        "version": transcode.version,
        "failure_handler": "transcode/on_failure",
        "max_attempts": 2,
        "awaits": [],
    }


def test_any_callable_can_be_a_body(durable: App) -> None:
    class Body:
        def __call__(self, event: t.Any, step: t.Any) -> int:
            return 1

        def method(self, event: t.Any, step: t.Any) -> int:
            return 2

    bodies: dict[str, t.Any] = {
        "object": Body(),
        "bound": Body().method,
        "partial": functools.partial(lambda more, event, step: more, 3),
        "anonymous": lambda event, step: 4,
    }
    results: list[t.Any] = [
        durable.function(on=None, id=id)(body)(t.cast(t.Any, 0), t.cast(t.Any, 0))
        for id, body in bodies.items()
    ]
    assert results == [1, 2, 3, 4]


# -- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (one, r'takes \(event\).*Write "def one\(event, step\)"'),
        (three, r"takes \(event, step, more\)"),
        (keyword, "more"),
        (generator, "yield"),
        (asynchronous, "asyncio.run"),
        (async_generator, "async"),
        (functools.partial(asynchronous), "async"),
        (lambda event, step: None, "Give it id="),
        (functools.partial(plain), "Give it id="),
        (7, "not a function"),
    ],
)
def test_a_body_that_cannot_be_durable_is_refused(
    durable: App, body: t.Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        durable.function(on="a/b")(body)
    assert len(durable.functions) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": ""}, "queue="),
        ({"queue": "a b"}, "letters"),
        ({"queue": "é"}, "letters"),
        ({"queue": "a" * 61}, "60 characters"),
        ({"queue": "events"}, "where events wait"),
        ({"queue": "media-dlq"}, "dead-letter"),
        ({"queue": 7}, "queue=7"),
        ({"retries": -1}, "one attempt"),
        ({"retries": 1.5}, "retries="),
        ({"retries": True}, "retries="),
        ({"retries": None}, "retries="),
        ({"backoff": "2s"}, "not a Backoff"),
        ({"non_retriable": ValueError}, r"write \(ValueError,\)"),
        ({"non_retriable": ["ValueError"]}, "not an exception class"),
        ({"non_retriable": [KeyboardInterrupt]}, "not an exception class"),
        ({"non_retriable": 3}, "not a sequence"),
        ({"timeout": "soon"}, "timeout='soon'"),
        ({"timeout": 0}, "timeout=0"),
        ({"start_timeout": -1}, "start_timeout=-1"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    durable: App, options: dict[str, t.Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        durable.function(on="a/b", **options)


@pytest.mark.parametrize("name", ["concurrency", "retry", "trigger"])
def test_an_unknown_option_is_a_type_error(durable: App, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        durable.function(on="a/b", **{name: 1})  # type: ignore[call-overload]


@pytest.mark.parametrize("id", ["", "a/b", "a b", "é", "a" * 129, 7])
def test_an_id_has_letters_digits_and_few_signs(durable: App, id: t.Any) -> None:
    with pytest.raises(DefinitionError, match=r"id=|not text"):
        durable.function(on="a/b", id=id)(plain)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("order/placed", 'on="order/placed"'),
        (Uploaded, "on=Uploaded"),
        (["a/b", "c/d"], "on=['a/b', 'c/d']"),
    ],
)
def test_an_event_that_is_given_by_place_is_told_where_it_goes(
    durable: App, given: t.Any, written: str
) -> None:
    function: t.Any = durable.function
    with pytest.raises(DefinitionError) as caught:
        function(given)
    assert written in str(caught.value)
    assert "parentheses" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "option", "known"),
    [
        ("function", "concurrency", "on, id, where, queue, retries"),
        ("function", "retry", "Did you mean retries?"),
        ("function", "event", "There are: on, id"),
        ("step", "retry", "Did you mean retries?"),
        ("step", "queue", "retries, backoff, non_retriable, timeout, lease"),
    ],
)
def test_an_option_that_there_is_not_is_answered_with_those_that_there_are(
    durable: App, kind: str, option: str, known: str
) -> None:
    declare: t.Any = getattr(durable, kind)
    given = {option: 5} | ({"on": "a/b"} if kind == "function" else {})
    with pytest.raises(TypeError) as caught:
        declare(**given)(bare if kind == "function" else int)
    assert f"A {kind} has no option {option!r}" in str(caught.value)
    assert known in str(caught.value)


def test_the_decorator_without_parentheses_is_refused(durable: App) -> None:
    with pytest.raises(DefinitionError, match=r'"@durable.function\(on=...\)"'):
        durable.function(plain)  # type: ignore[call-overload]


def test_a_function_says_what_starts_it(durable: App) -> None:
    with pytest.raises(DefinitionError, match="on=None"):
        durable.function()(plain)  # type: ignore[call-overload]


def test_a_function_is_not_declared_twice_over(durable: App) -> None:
    function = durable.function(on="a/b")(plain)
    with pytest.raises(DefinitionError, match=r"on=\[A, B\]"):
        durable.function(on="c/d", id="again")(function)


def test_two_functions_with_one_id_are_refused_with_both_places(durable: App) -> None:
    durable.function(on="a/b", id="same")(plain)
    with pytest.raises(DefinitionError) as error:
        durable.function(on="c/d", id="same")(lambda event, step: None)
    code = plain.__code__
    assert f"{code.co_filename}:{code.co_firstlineno}" in str(error.value)
    assert f"{__file__}:" in str(error.value)
    assert durable.functions.matching("c/d") == []


def test_a_module_that_is_imported_twice_is_named_as_the_cause(durable: App) -> None:
    durable.function(on="a/b")(plain)
    with pytest.raises(DefinitionError, match="imported under two names"):
        durable.function(on="a/b")(plain)


@pytest.mark.parametrize(
    "where", ["data.size > 0", lambda: True, lambda a, b: True, asynchronous]
)
def test_a_filter_takes_an_event(durable: App, where: t.Any) -> None:
    with pytest.raises(DefinitionError, match=r"where|event"):
        durable.function(on="a/b", where=where)(plain)


def test_two_schemas_of_one_event_are_refused(durable: App) -> None:
    class Other(EventData, name="media/uploaded"):
        pass

    durable.function(on=Uploaded)(plain)
    with pytest.raises(DefinitionError, match="two schemas"):
        durable.function(on=Other, id="other")(plain)
    with pytest.raises(DefinitionError, match="two schemas"):
        durable.event(Other)


def test_a_schema_can_be_declared_without_a_function(durable: App) -> None:
    assert durable.event(Uploaded) is Uploaded
    assert durable.functions.schemas.get("media/uploaded") is Uploaded
    for wrong in (Base, EventData, dict, "media/x"):
        with pytest.raises(DefinitionError):
            durable.event(t.cast(t.Any, wrong))


# -- failure handlers ------------------------------------------------------------------


def test_a_failure_handler_is_a_function_of_its_own(durable: App) -> None:
    function = durable.function(
        on=Uploaded, queue="media", retries=7, timeout="1h", backoff=Backoff("1s")
    )(plain)

    @function.on_failure
    def report(event: t.Any, step: t.Any, failure: t.Any) -> str:
        return f"{event} {step} {failure}"

    handler = durable.functions.get("plain/on_failure")
    assert handler is not None
    assert handler is function.failure_handler
    assert report(t.cast(t.Any, 1), t.cast(t.Any, 2), t.cast(t.Any, 3)) == "1 2 3"
    assert handler.body is report
    assert (handler.queue, handler.retries) == ("media", 7)
    assert handler.backoff == Backoff("1s")
    assert handler.triggers == ()
    assert handler.timeout is None
    assert list(durable.functions) == [function]
    event = handler.event_for(message("media/uploaded", path="x"))
    assert event.data == Uploaded(path="x")


def test_a_function_has_one_failure_handler(durable: App) -> None:
    function = durable.function(on="a/b")(plain)
    assert durable.functions.get("plain/on_failure") is None
    function.on_failure(three)
    place = rf"{three.__code__.co_filename}:\d+"
    with pytest.raises(DefinitionError, match=rf"{place}; .*{place}"):
        function.on_failure(three)


@pytest.mark.parametrize("handler", [plain, generator, asynchronous, 7])
def test_a_failure_handler_takes_the_failure(durable: App, handler: t.Any) -> None:
    function = durable.function(on="a/b")(plain)
    with pytest.raises(DefinitionError):
        function.on_failure(handler)
    assert function.failure_handler is None
