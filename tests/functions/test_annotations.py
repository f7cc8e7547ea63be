"""The model of a function's event, by its annotation, and the event that it gets."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import timezone

import pytest
from pydantic import BaseModel

from flask_durable.errors import DefinitionError
from flask_durable.errors import EventError
from flask_durable.events.model import Event
from flask_durable.events.model import EventData
from flask_durable.messages import EventMessage

from .declared import App
from .declared import bare
from .declared import Base
from .declared import message
from .declared import plain
from .declared import Removed
from .declared import Uploaded


class Strict(EventData, name="media/strict", strict=True):
    at: datetime


class Fields(t.TypedDict):
    path: str


class Settings(BaseModel):
    path: str


# -- annotations -----------------------------------------------------------------------


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
