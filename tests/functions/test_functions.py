from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import typing as t
from datetime import datetime
from datetime import timezone
from pathlib import Path

import pytest
from pydantic import BaseModel

from flask_durable import current
from flask_durable.errors import DefinitionError
from flask_durable.errors import EventError
from flask_durable.errors import StepUsageError
from flask_durable.events.model import Event
from flask_durable.events.model import EventData
from flask_durable.functions import step_function
from flask_durable.functions.callables import code_version
from flask_durable.functions.decorators import Decorators
from flask_durable.functions.function import Function
from flask_durable.functions.groups import DurableGroup
from flask_durable.functions.options import StepOptions
from flask_durable.functions.registry import FunctionRegistry
from flask_durable.functions.retries import Backoff
from flask_durable.functions.step_function import StepFunction
from flask_durable.messages import EventMessage


class Base(EventData):
    path: str


class Uploaded(Base, name="media/uploaded"):
    size: int = 0
    taken: datetime | None = None


class Removed(Base, name="media/removed"):
    pass


class Strict(EventData, name="media/strict", strict=True):
    at: datetime


class Fields(t.TypedDict):
    path: str


class Settings(BaseModel):
    path: str


class App(Decorators):
    """An extension, as far as declaring goes."""

    def __init__(self) -> None:
        self.functions = FunctionRegistry()

    def register(self, group: DurableGroup) -> None:
        group.apply(self.functions)


@pytest.fixture
def durable() -> App:
    return App()


def plain(event: t.Any, step: t.Any) -> str:
    return f"{event} {step}"


def message(name: str, **data: t.Any) -> EventMessage:
    return EventMessage(name, data, "e1", 1_700_000_000_123)


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


def one(event: t.Any) -> None: ...
def three(event: t.Any, step: t.Any, more: t.Any) -> None: ...
def keyword(event: t.Any, step: t.Any, *, more: t.Any) -> None: ...
def generator(event: t.Any, step: t.Any) -> t.Iterator[int]:
    yield 1


async def asynchronous(event: t.Any, step: t.Any) -> None: ...
async def async_generator(event: t.Any, step: t.Any) -> t.AsyncIterator[int]:
    yield 1


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
    places = [f"{__file__}:{n}" for n in (plain.__code__.co_firstlineno,)]
    assert all(place in str(error.value) for place in places)
    assert str(error.value).count(__file__) == 2
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


# -- annotations -----------------------------------------------------------------------


def bare(event: Event, step: t.Any) -> None: ...
def anything(event: Event[t.Any], step: t.Any) -> None: ...
def exact(event: Event[Uploaded], step: t.Any) -> None: ...
def base(event: Event[Base], step: t.Any) -> None: ...
def either(event: Event[Uploaded | Removed], step: t.Any) -> None: ...
def either_old(event: Event[t.Union[Uploaded, Removed]], step: t.Any) -> None: ...  # noqa: UP007
def other(event: Event[Removed], step: t.Any) -> None: ...
def mapping(event: Event[dict[str, t.Any]], step: t.Any) -> None: ...
def typed_dict(event: Event[Fields], step: t.Any) -> None: ...
def data(event: Uploaded, step: t.Any) -> None: ...
def plain_model(event: Event[Settings], step: t.Any) -> None: ...
def unannotated(event, step) -> None: ...  # type: ignore[no-untyped-def]
def unknown_event(event: Missing, step: t.Any) -> None: ...  # type: ignore[name-defined] # noqa: F821
def unknown(event: Event[Unknown], step: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize(
    ("body", "on"),
    [
        (bare, Uploaded),
        (anything, Uploaded),
        (exact, Uploaded),
        (exact, [Uploaded]),
        (exact, None),
        (base, [Uploaded, Removed]),
        (either, [Uploaded, Removed]),
        (either_old, [Uploaded, Removed]),
        (mapping, "media/*"),
        (mapping, None),
        (typed_dict, "media/*"),
        (exact, [Uploaded, "media/*"]),
        (unknown, Uploaded),
    ],
)
def test_an_annotation_that_agrees_is_accepted(
    durable: App, body: t.Any, on: t.Any
) -> None:
    durable.function(on=on)(body)


@pytest.mark.parametrize(
    ("body", "on", "fix"),
    [
        (other, Uploaded, r"Event\[Uploaded\]"),
        (exact, [Uploaded, Removed], r"Event\[Uploaded \| Removed\]"),
        (either, Uploaded, r"Event\[Uploaded\]"),
        (exact, "media/uploaded", r"name the class"),
        (exact, "media/*", r"Event\[dict\[str, Any\]\]"),
        (mapping, Uploaded, r"Event\[Uploaded\]"),
        (typed_dict, Uploaded, r"Event\[Uploaded\]"),
        (data, Uploaded, r"Event\[Uploaded\]"),
    ],
)
def test_an_annotation_that_disagrees_is_refused(
    durable: App, body: t.Any, on: t.Any, fix: str
) -> None:
    with pytest.raises(DefinitionError, match=fix):
        durable.function(on=on)(body)


@pytest.mark.parametrize(
    ("body", "schemas"),
    [
        (exact, {"media/uploaded": Uploaded}),
        (either, {"media/uploaded": Uploaded, "media/removed": Removed}),
        (mapping, {}),
        (bare, {}),
        (anything, {}),
        (typed_dict, {}),
        (unannotated, {}),
        (unknown_event, {}),
    ],
)
def test_the_annotation_says_the_model_of_a_function_that_no_event_starts(
    durable: App, body: t.Any, schemas: t.Any
) -> None:
    function = durable.function(on=None, id="one")(body)

    assert (function.schemas, function.triggers) == (schemas, ())
    assert [durable.functions.schemas.get(name) for name in schemas] == [
        *schemas.values()
    ]
    # An older worker tells by it that another release takes an event it does not.
    assert list(durable.functions.specs()["one"]["schemas"]) == [*schemas]


@pytest.mark.parametrize(
    ("body", "fix"),
    [
        (base, r"class Base\(EventData, name='a/b'\)"),
        (data, r'"event: Event\[Uploaded\]"'),
        (plain_model, r"class Settings\(EventData, name='a/b'\)"),
        (unknown, r"'Unknown' is not defined.*outside of TYPE_CHECKING"),
    ],
)
def test_an_annotation_that_gives_no_model_is_refused(
    durable: App, body: t.Any, fix: str
) -> None:
    with pytest.raises(DefinitionError, match=fix):
        durable.function(on=None)(body)


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
    with pytest.raises(DefinitionError, match=rf"{__file__}:\d+; .*{__file__}:\d+"):
        function.on_failure(three)


@pytest.mark.parametrize("handler", [plain, generator, asynchronous, 7])
def test_a_failure_handler_takes_the_failure(durable: App, handler: t.Any) -> None:
    function = durable.function(on="a/b")(plain)
    with pytest.raises(DefinitionError):
        function.on_failure(handler)
    assert function.failure_handler is None


# -- events ----------------------------------------------------------------------------


def test_data_is_a_model_exactly_where_on_names_the_class(durable: App) -> None:
    by_class = durable.function(on=[Uploaded, "media/*"], id="a")(plain)
    by_name = durable.function(on="media/uploaded", id="b")(plain)
    sent = message("media/uploaded", path="x", size="3", unknown=1)
    assert by_class.event_for(sent).data == Uploaded(path="x", size=3)
    assert by_class.event_for(message("media/other", path=1)).data == {"path": 1}
    assert by_name.event_for(sent).data == {"path": "x", "size": "3", "unknown": 1}


def test_an_event_keeps_its_id_and_its_time(durable: App) -> None:
    event = durable.function(on="a/b")(plain).event_for(message("a/b"))
    assert (event.name, event.id) == ("a/b", "e1")
    assert event.at == datetime(2023, 11, 14, 22, 13, 20, 123_000, timezone.utc)


def test_data_that_does_not_fit_names_its_fields(durable: App) -> None:
    function = durable.function(on=Uploaded)(plain)
    with pytest.raises(EventError) as error:
        function.event_for(message("media/uploaded", size="large"))
    assert {fault["field"] for fault in error.value.errors} == {
        "data.path",
        "data.size",
    }


def test_a_strict_schema_reads_the_text_of_a_date(durable: App) -> None:
    function = durable.function(on=Strict)(plain)
    event = function.event_for(message("media/strict", at="2026-01-02T03:04:05Z"))
    assert event.data.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize("at", [10**18, -(10**18)])
def test_a_time_beyond_the_calendar_is_an_event_error(durable: App, at: int) -> None:
    function = durable.function(on="a/b")(plain)
    with pytest.raises(EventError, match="at is not a time"):
        function.event_for(EventMessage("a/b", {}, "e1", at))


# -- versions --------------------------------------------------------------------------


def load(source: str, at_line: int = 1) -> t.Any:
    namespace: dict[str, t.Any] = {}
    exec("\n" * (at_line - 1) + textwrap.dedent(source), namespace)
    return namespace["body"]


SOURCE = """
def body(event, step):
    colours = {"red", "green", "blue", "yellow", "black", "white"}
    return step.run("a", lambda: event.name in {"x", "y", "z"}), colours
"""


def test_a_version_does_not_depend_on_the_process() -> None:
    script = (
        "import sys\n"
        "from flask_durable.functions.callables import code_version\n"
        f"exec({SOURCE!r})\n"
        "sys.stdout.write(code_version(body))"
    )
    versions = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert versions == {code_version(load(SOURCE))}


def test_a_version_changes_with_the_code_and_not_with_its_place() -> None:
    version = code_version(load(SOURCE))
    assert len(version) == 12
    assert code_version(load(SOURCE, at_line=50)) == version
    for old, new in [('"a"', '"b"'), ("event.name", "event.id"), ('"z"', '"w"')]:
        assert code_version(load(SOURCE.replace(old, new))) != version


def test_a_decorated_body_has_the_version_and_place_of_the_inner_one() -> None:
    @functools.wraps(plain)
    def wrapper(*args: t.Any) -> t.Any:
        return plain(*args)

    assert code_version(wrapper) == code_version(plain)
    assert Function(wrapper, id="x").defined_at == Function(plain, id="y").defined_at


# -- groups ----------------------------------------------------------------------------


def test_a_group_puts_its_name_before_ids_and_steps(durable: App) -> None:
    group = DurableGroup("media", queue="media", retries=5)
    first = group.function(on="a/b")(plain)
    second = group.function(on="a/b", id="other", retries=0)(plain)
    step = group.step("fetch")(lambda: 1)
    group.event(Uploaded)
    durable.register(group)
    assert [f.id for f in durable.functions] == ["media.plain", "media.other"]
    assert (first.queue, first.retries) == ("media", 5)
    assert (second.queue, second.retries) == ("media", 0)
    assert durable.functions.steps == {"media.fetch": step}
    assert durable.functions.schemas.get("media/uploaded") is Uploaded
    assert durable.functions.matching("a/b") == [first, second]


def test_a_failure_handler_may_be_declared_after_its_group(durable: App) -> None:
    group = DurableGroup("media")
    function = group.function(on="a/b")(plain)
    durable.register(group)
    function.on_failure(three)
    assert durable.functions.get("media.plain/on_failure") is function.failure_handler


def test_a_group_is_registered_once_an_app(durable: App) -> None:
    group = DurableGroup("media")
    group.function(on="a/b")(plain)
    durable.register(group)
    with pytest.raises(DefinitionError, match="'media' is registered already"):
        durable.register(group)
    with pytest.raises(DefinitionError, match="'media' is registered already"):
        durable.register(DurableGroup("media"))
    App().register(group)


def test_nothing_is_declared_in_a_group_that_is_registered(durable: App) -> None:
    group = DurableGroup("media")
    durable.register(group)
    with pytest.raises(DefinitionError, match=r"before durable\.register"):
        group.function(on="a/b")(plain)
    with pytest.raises(DefinitionError, match=r"before durable\.register"):
        group.step("x")(plain)
    with pytest.raises(DefinitionError, match=r"before durable\.register"):
        group.event(Uploaded)


def test_a_group_with_a_wrong_name_or_default_is_refused() -> None:
    with pytest.raises(DefinitionError):
        DurableGroup("a/b")
    with pytest.raises(DefinitionError, match="retries"):
        DurableGroup("media", retries=-1)
    with pytest.raises(TypeError, match="concurrency"):
        DurableGroup("media", concurrency=1)  # type: ignore[call-arg]


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
    assert str(error.value).count(__file__) == 2


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
