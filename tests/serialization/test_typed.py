"""Results of an annotated type come back as they were, or are refused."""

from __future__ import annotations

import datetime as dt
import decimal
import ipaddress
import math
import typing as t
import uuid
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_durable.serialization import codec_for
from flask_durable.serialization import UnreadableValue

from .values import BERLIN
from .values import Chunk
from .values import Colour
from .values import Fields
from .values import json_values
from .values import Level
from .values import Meta
from .values import NOW
from .values import Point
from .values import refusal
from .values import returning
from .values import Richer
from .values import same
from .values import through
from .values import unannotated
from .values import words

times = st.datetimes(
    min_value=dt.datetime(1, 1, 3), max_value=dt.datetime(9999, 12, 29)
)

zones = st.timezones() | st.just(dt.timezone.utc) | st.none()


metas = st.builds(
    Meta,
    owner=words,
    created=times,
    tags=st.dictionaries(words, json_values, max_size=3),
)

chunks = st.builds(
    Chunk,
    path=words.filter(lambda text: "\0" not in text).map(Path),
    data=st.binary(),
    gain=st.floats(allow_nan=False),
    meta=st.none() | metas,
)

typed: dict[t.Any, st.SearchStrategy[t.Any]] = {
    int: st.integers(),
    str: words,
    bool: st.booleans(),
    float: st.floats(),
    bytes: st.binary(),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    uuid.UUID: st.uuids(),
    dt.datetime: st.datetimes(),
    dt.date: st.dates(),
    dt.time: st.times(),
    dt.timedelta: st.timedeltas(
        dt.timedelta(days=-100_000), dt.timedelta(days=100_000)
    ),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Meta: metas,
    Chunk: chunks,
    Fields: st.fixed_dictionaries({"data": st.binary()}),
    Point: st.builds(Point, st.integers(), st.integers()),
    list[Chunk]: st.lists(chunks, max_size=3),
    dict[str, Meta]: st.dictionaries(words, metas, max_size=3),
    dict[int, uuid.UUID]: st.dictionaries(st.integers(), st.uuids(), max_size=3),
    t.Optional[decimal.Decimal]: st.none()  # noqa: UP045
    | st.decimals(allow_nan=False, allow_infinity=False),
    Meta | None: st.none() | metas,
    tuple[int, str]: st.tuples(st.integers(), words),
    tuple[bytes, ...]: st.lists(st.binary(), max_size=3).map(tuple),
    set[dt.date]: st.sets(st.dates(), max_size=3),
    t.Literal["a", 1]: st.sampled_from(["a", 1]),
    ipaddress.IPv4Address: st.ip_addresses(v=4),
    dict[str, t.Any]: st.dictionaries(words, json_values, max_size=3),
    dict: st.dictionaries(words, json_values, max_size=3),
    list: st.lists(json_values, max_size=3),
}


@pytest.mark.parametrize("annotation", typed, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_what_is_annotated_comes_back_with_its_value_and_type(
    annotation: t.Any, data: st.DataObject
) -> None:
    value = data.draw(typed[annotation])
    assert same(through(annotation, value), value)


@settings(max_examples=100)
@given(times, zones)
def test_a_time_comes_back_with_its_zone_or_is_refused(
    time: dt.datetime, zone: dt.tzinfo | None
) -> None:
    value = time.replace(tzinfo=zone)
    if zone is not None and zone.utcoffset(None) is None:
        hint = refusal(returning(dt.datetime), value).hint
        assert "astimezone(timezone.utc)" in hint
        value = value.astimezone(dt.timezone.utc)  # as the hint says
    loaded = through(dt.datetime, value)
    assert loaded == value
    assert loaded.utcoffset() == value.utcoffset()
    # Also where the zone's clocks have changed.
    later = dt.timedelta(days=180)
    assert loaded + later == value + later


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (dt.time, BERLIN.timetz()),
        (list[dt.datetime], [BERLIN]),
        (set[dt.datetime], {BERLIN}),
        (dict[dt.datetime, int], {BERLIN: 1}),
        (t.Any, BERLIN),
    ],
)
def test_a_zone_is_found_wherever_it_is(annotation: t.Any, value: object) -> None:
    assert "zone" in refusal(returning(annotation), value).hint


class Handle:
    """Nothing that could be stored."""


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (decimal.Decimal(1), decimal.Decimal),
        ({1: 2}, dict[int, t.Any]),
        (Handle(), None),
        ({(1, 2): 3}, None),
        ({None: 1}, None),
        ((i for i in ()), None),
    ],
)
def test_a_hint_names_an_annotation_only_if_that_works(
    value: object, annotation: t.Any
) -> None:
    hint = refusal(returning(t.Any), value).hint
    assert ("Annotate" in hint) == (annotation is not None)
    if annotation is not None:
        assert through(annotation, value) == value


def test_a_whole_number_may_be_returned_as_a_float() -> None:
    loaded = through(float, 3)
    assert (loaded, type(loaded)) == (3.0, float)
    assert refusal(returning(float), 2**53 + 1).path == ""


def test_a_tuple_may_be_returned_as_a_list() -> None:
    assert through(t.Sequence[int], (1, 2)) == [1, 2]
    assert through(list[int], (1, 2)) == [1, 2]
    assert through(dict[str, t.Any], {"a": (1, 2)}) == {"a": [1, 2]}


def test_a_subclass_is_read_as_the_type_that_is_annotated() -> None:
    class Text(str):
        pass

    class Later(dt.datetime):
        pass

    assert type(through(str, Text("a"))) is str
    assert type(through(dt.datetime, Later(2026, 1, 1))) is dt.datetime


def test_aliases_and_computed_fields_do_not_get_in_the_way() -> None:
    class Aliased(pydantic.BaseModel):
        size: int = pydantic.Field(
            validation_alias="SIZE", serialization_alias="theSize"
        )

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def double(self) -> int:
            return 2 * self.size

    value = Aliased(SIZE=3)  # type: ignore[call-arg]
    assert codec_for(returning(Aliased)).dump(value) == '{"size":3}'
    assert through(Aliased, value) == value


def test_further_fields_of_a_model_are_kept() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        size: int = 1

    value = Open(size=2, more=[1])  # type: ignore[call-arg]
    assert through(Open, value) == value
    error = refusal(returning(Open), Open(when=NOW))  # type: ignore[call-arg]
    assert error.path == '["when"]'


def test_what_a_model_keeps_in_private_is_not_stored() -> None:
    class Reply(pydantic.BaseModel):
        text: str
        _request_id: str | None = pydantic.PrivateAttr(None)

    value = Reply(text="a")
    value._request_id = "r1"
    assert through(Reply, value) == Reply(text="a")


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (int, "3", ""),
        (int, True, ""),
        (int, 3.0, ""),
        (int, None, ""),
        (str, 3, ""),
        (str, b"a", ""),
        (bool, 1, ""),
        (float, True, ""),
        (float, "1", ""),
        (bytes, "a", ""),
        (dt.datetime, "2026-01-02T03:04:05Z", ""),
        (dt.date, NOW, ""),
        (uuid.UUID, "12345678-1234-1234-1234-123456789012", ""),
        (decimal.Decimal, 1, ""),
        (decimal.Decimal, decimal.Decimal("NaN"), ""),
        (Colour, "red", ""),
        (int, Level.LOW, ""),
        (Meta, {"owner": "a", "created": NOW}, ""),
        (Meta, Richer(owner="a", created=NOW), ""),
        (Meta, None, ""),
        (list[int], [1, "2"], "[1]"),
        (list[Meta], [Richer(owner="a", created=NOW)], "[0]"),
        (tuple[int, int], (1, 2, 3), ""),
        (dict[str, int], {"a": {"b": 1}}, '["a"]'),
        (dict[str, int], {1: 1}, "[1]"),
        (list[t.Any], [Point(1, 2)], "[0]"),
        (list[t.Any], [{"a": NOW}], '[0]["a"]'),
        (dict[str, t.Any], {"a": [1, {2}]}, '["a"][1]'),
        (dict, {"a": {1: 2}}, '["a"]'),
        (dict, {"a": float("inf")}, '["a"]'),
        (Meta, Meta(owner="a", created=NOW, tags={"x": [NOW]}), '.tags["x"][0]'),
        (Meta, Meta.model_construct(owner=1, created=NOW), ".owner"),
        (Chunk, Chunk(Path("a"), t.cast(t.Any, 3)), ".data"),
        (Meta | Richer, {"owner": "a", "created": "2026-01-02"}, '["created"]'),
        (pydantic.SecretStr, pydantic.SecretStr("a"), ""),
        (str, "\ud800", ""),
        (list[str], ["\ud800"], None),
        (dict[str, t.Any], {"\ud800": 1}, None),
    ],
)
def test_what_would_not_come_back_as_annotated_is_refused(
    annotation: t.Any, value: t.Any, path: str | None
) -> None:
    error = refusal(returning(annotation), value)
    if path is not None:
        assert error.path == path
    assert error.hint


def test_bytes_in_a_model_without_base64_are_refused_not_changed() -> None:
    class Raw(pydantic.BaseModel):
        data: bytes

    assert through(Raw, Raw(data=b"text")) == Raw(data=b"text")
    refusal(returning(Raw), Raw(data=b"\xff"))

    class Encoded(Raw):
        model_config = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}

    assert through(Encoded, Encoded(data=b"\xff")) == Encoded(data=b"\xff")


def test_a_number_that_is_none_is_refused_in_a_model_that_writes_null() -> None:
    class Reading(pydantic.BaseModel):
        value: float | None

    error = refusal(returning(Reading), Reading(value=math.nan))
    assert error.path == ".value"


def test_a_field_that_is_left_out_is_refused() -> None:
    class Hidden(pydantic.BaseModel):
        token: str = pydantic.Field(default="none", exclude=True)

    assert through(Hidden, Hidden()) == Hidden()
    assert refusal(returning(Hidden), Hidden(token="a")).path == ".token"


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[t.Any] = []
    loop.append(loop)
    for function in (unannotated, returning(list), returning(list[t.Any])):
        refusal(function, loop)


def test_a_serializer_that_fails_is_the_results_fault() -> None:
    class Broken(pydantic.BaseModel):
        size: int

        @pydantic.field_serializer("size")
        def write(self, value: int) -> int:
            raise RuntimeError("no")

    assert "no" in refusal(returning(Broken), Broken(size=1)).message


def test_a_stored_result_that_no_longer_fits_is_told_apart() -> None:
    with pytest.raises(UnreadableValue, match="Meta"):
        codec_for(returning(Meta)).load('{"owner":"a"}')
