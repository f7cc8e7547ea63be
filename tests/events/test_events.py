from __future__ import annotations

import enum
import json
import math
import typing as t
from datetime import date
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from datetime import UTC
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic import computed_field
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator

from flask_durable.errors import DefinitionError
from flask_durable.errors import EventError
from flask_durable.events.acceptance import json_faults
from flask_durable.events.acceptance import read_time
from flask_durable.events.acceptance import to_message
from flask_durable.events.model import check_event_id
from flask_durable.events.model import check_event_name
from flask_durable.events.model import check_pattern
from flask_durable.events.model import Event
from flask_durable.events.model import EventData
from flask_durable.events.schemas import load
from flask_durable.events.schemas import Schemas
from flask_durable.messages import decode
from flask_durable.messages import EventMessage

LIMIT = 65_536


class Uploaded(EventData, name="media/uploaded"):
    audio_url: str
    seconds: float = 0


class Tags(BaseModel):
    names: list[str]


class Tagged(EventData, name="media/tagged"):
    model_config = ConfigDict(strict=True)

    tags: list[Tags]
    day: date
    owner: UUID


class Renamed(EventData, name="media/renamed"):
    new_name: str = Field(alias="newName")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.new_name)


@pytest.fixture
def schemas() -> Schemas:
    found = Schemas()
    for schema in (Uploaded, Tagged, Renamed):
        found.add(schema)
    return found


def message(schemas: Schemas, *args: t.Any, **kwargs: t.Any) -> EventMessage:
    return to_message(*args, **kwargs, schemas=schemas, limit=LIMIT)


def faults(call: t.Callable[[], object]) -> dict[str, str]:
    with pytest.raises(EventError) as caught:
        call()
    return {fault["field"]: fault["message"] for fault in caught.value.errors}


# Events and names


def test_an_event_gets_an_id_and_a_time_when_it_is_made() -> None:
    first, second = Event("a/b"), Event("a/b")
    assert first.id != second.id
    assert sorted([second.id, first.id])[0][:8] == first.id[:8]
    assert first.at.tzinfo is UTC
    assert first.data == {}


def test_an_event_of_a_model_is_named_by_its_class() -> None:
    event = Event.of(Uploaded(audio_url="x"), id="one")
    assert (event.name, event.id) == ("media/uploaded", "one")


def test_an_abstract_schema_cannot_be_sent() -> None:
    class Base(EventData):
        tenant: str

    class Sent(Base, name="sent"):
        pass

    assert Event.of(Sent(tenant="x")).name == "sent"
    with pytest.raises(EventError, match="name='a/b'"):
        Event.of(Base(tenant="x"))


def test_a_schema_with_a_malformed_name_is_refused_where_it_is_declared() -> None:
    with pytest.raises(DefinitionError, match="'a b'"):

        class Wrong(EventData, name="a b"):
            pass


def test_every_fault_of_an_event_is_named() -> None:
    naive = datetime(2026, 1, 1)
    found = faults(lambda: Event("a b", [], id="a/b", at=naive))
    assert set(found) == {"name", "data", "id", "at"}


@pytest.mark.parametrize("name", ["a", "media/uploaded", "a.b:c-d_e", "x" * 255])
def test_a_name_of_letters_digits_and_separators_is_fine(name: str) -> None:
    assert check_event_name(name) is None


@pytest.mark.parametrize(
    "name", ["", "/a", "a b", "ä", "a\n", "a*", "x" * 256, None, 1, b"a"]
)
def test_another_name_is_not(name: t.Any) -> None:
    assert check_event_name(name)


@pytest.mark.parametrize("id", ["", "a/b", "a b", "x" * 129, None, 1, "a\n"])
def test_a_malformed_id_is_refused(id: t.Any) -> None:
    assert check_event_id(id)


@pytest.mark.parametrize("pattern", ["*", "a/*", "a.*", "a/b"])
def test_a_wildcard_stands_at_the_end_after_a_separator(pattern: str) -> None:
    assert check_pattern(pattern) is None


@pytest.mark.parametrize("pattern", ["", "**", "a*", "*/a", "a/*/b", "/*", "a b/*"])
def test_another_wildcard_is_refused(pattern: str) -> None:
    assert check_pattern(pattern)


# Schemas


def test_two_classes_cannot_claim_one_name(schemas: Schemas) -> None:
    class Other(EventData, name="media/uploaded"):
        pass

    schemas.add(Uploaded)
    with pytest.raises(DefinitionError) as caught:
        schemas.add(Other)
    assert "test_events.Uploaded" in str(caught.value)
    assert "Other" in str(caught.value)
    assert schemas.get("media/uploaded") is Uploaded


def test_a_schema_without_a_name_cannot_be_added(schemas: Schemas) -> None:
    with pytest.raises(DefinitionError, match="no event name"):
        schemas.add(EventData)


def test_schemas_are_per_registry() -> None:
    assert Schemas().get("media/uploaded") is None


def test_valid_data_stays_as_it_was_sent(schemas: Schemas) -> None:
    data = {"audio_url": "x", "seconds": "2", "unknown": [1]}
    assert schemas.validate("media/uploaded", data) is data
    assert data == {"audio_url": "x", "seconds": "2", "unknown": [1]}


def test_data_of_a_name_without_schema_is_not_looked_at(schemas: Schemas) -> None:
    assert schemas.validate("other", {"a": 1}) == {"a": 1}


def test_data_that_does_not_fit_names_each_field(schemas: Schemas) -> None:
    data = {"tags": [{"names": ["a", 1]}, {}], "day": "2026-01-01"}
    assert faults(lambda: schemas.validate("media/tagged", data)) == {
        "data.tags[0].names[1]": "Input should be a valid string",
        "data.tags[1].names": "Field required",
        "data.owner": "Field required",
    }


def test_a_strict_schema_reads_dates_from_json_text() -> None:
    owner = UUID(int=1)
    loaded = load(Tagged, {"tags": [], "day": "2026-01-01", "owner": str(owner)})
    assert (loaded.day, loaded.owner) == (date(2026, 1, 1), owner)


def test_the_faults_of_an_event_are_bounded_and_printable(schemas: Schemas) -> None:
    class Numbers(EventData, name="numbers"):
        by_name: dict[str, int]

    schemas.add(Numbers)
    data = {"by_name": {"k" * 1000 + str(n): "x" for n in range(100)}}
    found = faults(lambda: schemas.validate("numbers", data))
    with pytest.raises(EventError) as caught:
        schemas.validate("numbers", data)
    assert len(caught.value.errors) == 20
    assert all(len(field) <= 120 for field in found)


def test_a_validator_that_breaks_is_an_event_error(
    schemas: Schemas, caplog: pytest.LogCaptureFixture
) -> None:
    class Fragile(EventData, name="fragile"):
        value: str

        @field_validator("value")
        @classmethod
        def look_up(cls, value: str) -> str:
            return {"known": "x"}[value]

    schemas.add(Fragile)
    found = faults(lambda: schemas.validate("fragile", {"value": "unknown"}))
    assert found == {"data": "made the schema raise KeyError"}
    assert "Fragile raised an error" in caplog.text


# Acceptance


def test_a_name_with_data_becomes_a_message(schemas: Schemas) -> None:
    at = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    headers = {"traceparent": "00-1-2-01"}
    made = message(schemas, "a/b", {"x": 1}, id="one", at=at, headers=headers)
    assert made == EventMessage(
        "a/b", {"x": 1}, "one", 1767218400000, headers, due=1767218400000
    )
    assert decode(made.encode()) == made


def test_a_model_becomes_a_message_of_its_fields(schemas: Schemas) -> None:
    made = message(schemas, Uploaded(audio_url="x"), id="one")
    assert (made.name, made.id) == ("media/uploaded", "one")
    assert made.data == {"audio_url": "x", "seconds": 0}


def test_an_event_keeps_its_id_and_time(schemas: Schemas) -> None:
    event = Event("a/b", {"x": 1}, id="one", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert message(schemas, event) == EventMessage(
        "a/b", {"x": 1}, "one", 1767225600000, due=1767225600000
    )
    assert message(schemas, event, id="two").id == "two"


def test_two_sends_of_a_name_have_ids_of_their_own(schemas: Schemas) -> None:
    assert message(schemas, "a/b").id != message(schemas, "a/b").id


def test_aliases_are_used_and_computed_fields_left_out(schemas: Schemas) -> None:
    made = message(schemas, Renamed(newName="x"))
    assert made.data == {"newName": "x"}


def test_a_model_that_does_not_survive_its_json_is_refused(schemas: Schemas) -> None:
    class Hidden(EventData, name="hidden"):
        secret: str = Field(exclude=True)

    found = faults(lambda: message(schemas, Hidden(secret="x")))
    assert found == {"data.secret": "Field required"}


def test_a_model_with_a_value_of_a_wrong_type_is_refused(schemas: Schemas) -> None:
    wrong = Uploaded.model_construct(audio_url=object())
    found = faults(lambda: message(schemas, wrong))
    assert "cannot be written as JSON" in found["data"]


def test_a_mapping_is_validated_by_the_schema_of_its_name(schemas: Schemas) -> None:
    found = faults(lambda: message(schemas, "media/uploaded", {"seconds": 1}))
    assert found == {"data.audio_url": "Field required"}


def test_the_queued_data_is_not_the_callers_object(schemas: Schemas) -> None:
    data = {"list": [1], "pair": (1, 2)}
    made = message(schemas, "a/b", data)
    data["list"].append(2)  # type: ignore[attr-defined]
    assert made.data == {"list": [1], "pair": [1, 2]}


@pytest.mark.parametrize(
    ("data", "field", "message_part"),
    [
        ({"x": math.nan}, "data.x", "finite"),
        ({"x": [1, -math.inf]}, "data.x[1]", "finite"),
        ({"x": {1: 2}}, "data.x", "key of type int"),
        ({None: 2}, "data", "key of type NoneType"),
        ({"x": "\ud800"}, "data.x", "surrogate"),
        ({"\udfff": 1}, "data", "surrogate"),
        ({"x": b"raw"}, "data.x", "type bytes"),
        ({"x": {1, 2}}, "data.x", "type set"),
        ({"x": Uploaded(audio_url="x")}, "data.x", "type Uploaded"),
        ({"x": [datetime.now(UTC)]}, "data.x[0]", "type datetime"),
        ({"x": 2**1024}, "data.x", "bits"),
        ([], "data", "object"),
        ("text", "data", "object"),
    ],
)
def test_data_that_json_does_not_keep_is_refused_with_its_path(
    schemas: Schemas, data: t.Any, field: str, message_part: str
) -> None:
    found = faults(lambda: message(schemas, "a/b", data))
    assert list(found) == [field]
    assert message_part in found[field]


def nested(levels: int) -> dict[str, t.Any]:
    data: dict[str, t.Any] = {}
    for _ in range(levels - 1):
        data = {"x": data}
    return data


def test_an_event_may_be_nested_64_deep_with_itself_counted(schemas: Schemas) -> None:
    assert message(schemas, "a/b", nested(63))
    found = faults(lambda: message(schemas, "a/b", nested(64)))
    assert list(found.values()) == ["is nested deeper than 64 levels"]


def test_an_object_that_holds_itself_is_refused(schemas: Schemas) -> None:
    data: dict[str, t.Any] = {}
    data["a"] = data["b"] = data
    with pytest.raises(EventError) as caught:
        message(schemas, "a/b", data)
    assert len(caught.value.errors) == 20


def test_the_size_of_the_whole_message_is_limited(schemas: Schemas) -> None:
    empty = len(message(schemas, "a/b", {"x": ""}, id="one").encode())
    fits = {"x": "x" * (LIMIT - empty)}
    assert len(message(schemas, "a/b", fits, id="one").encode()) == LIMIT
    fits["x"] += "x"
    found = faults(lambda: message(schemas, "a/b", fits, id="one"))
    assert str(LIMIT + 1) in found["data"]


def test_reserved_names_are_refused(schemas: Schemas) -> None:
    class Finished(EventData, name="durable/function.finished"):
        pass

    for event in ("durable/x", Event("durable/x"), Finished()):
        assert "reserved" in faults(lambda e=event: message(schemas, e))["name"]  # type: ignore[misc]


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 1, 1),
        datetime(1970, 1, 20, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
    ],
)
def test_a_time_without_zone_or_out_of_range_is_refused(
    schemas: Schemas, at: datetime
) -> None:
    assert list(faults(lambda: message(schemas, "a/b", at=at))) == ["at"]
    assert list(faults(lambda: message(schemas, "a/b", at=at))) == ["at"]


def test_data_beside_an_event_is_refused(schemas: Schemas) -> None:
    with pytest.raises(EventError, match="beside an event"):
        message(schemas, Event("a/b"), {"x": 1})


@pytest.mark.parametrize("event", [None, 1, {"name": "a/b"}, object(), Uploaded])
def test_what_is_no_event_is_an_event_error(schemas: Schemas, event: t.Any) -> None:
    with pytest.raises(EventError):
        message(schemas, event)


def test_enumerations_of_text_and_numbers_are_written_as_json(
    schemas: Schemas,
) -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    class Level(enum.IntEnum):
        LOW = 1

    made = message(schemas, "a/b", {"x": Colour.RED, "y": Level.LOW})
    assert made.data == {"x": "red", "y": 1}
    assert type(made.data["x"]) is str


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_JSON_LIKE = st.recursive(
    _SCALARS | st.binary(max_size=3) | st.text(st.characters(), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=4), _JSON_LIKE, max_size=4))
def test_data_is_refused_or_comes_back_equal(data: dict[str, t.Any]) -> None:
    try:
        made = to_message("a/b", data, schemas=Schemas(), limit=LIMIT)
    except EventError as error:
        faults_found = error.errors
    else:
        assert made.data == data
        assert decode(made.encode()) == made
        return
    assert faults_found == json_faults(data) != []
    json.dumps(faults_found, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("value", "millis"),
    [
        ("2026-01-01T00:00:00Z", 1767225600000),
        ("2026-01-01T02:00:00.5+02:00", 1767225600500),
        (1767225600000, 1767225600000),
    ],
)
def test_a_time_is_iso_text_or_milliseconds(value: t.Any, millis: int) -> None:
    assert read_time(value) == (millis, None)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("2026-01-01T00:00:00", "time zone"),
        ("yesterday", "ISO-8601"),
        ("", "ISO-8601"),
        (1767225600, "1980 and 2100"),
        (10**18, "1980 and 2100"),
        ("0001-01-01T00:00:00+23:59", "1980 and 2100"),
        ("9999-12-31T23:59:59-23:59", "1980 and 2100"),
        (1767225600000.0, "ISO-8601"),
        (True, "ISO-8601"),
        ([], "ISO-8601"),
        (None, "ISO-8601"),
    ],
)
def test_another_time_is_refused(value: t.Any, part: str) -> None:
    assert part in (read_time(value)[1] or "")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40) | st.integers() | st.datetimes().map(str))
def test_any_time_is_read_or_refused(value: t.Any) -> None:
    millis, problem = read_time(value)
    assert isinstance(millis, int)
    assert problem is None or problem
