from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import gc
import ipaddress
import json
import math
import typing as t
import uuid
import weakref
import zoneinfo
from pathlib import Path
from unittest import mock

import pydantic
import pytest
from flask import current_app
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import MappedAsDataclass
from sqlalchemy.orm import Session
from typing_extensions import TypedDict
from werkzeug.local import LocalProxy

from flask_durable.errors import StepUsageError
from flask_durable.functions.step_function import StepFunction
from flask_durable.serialization import check_arguments
from flask_durable.serialization import codec_for
from flask_durable.serialization import UnreadableValue
from flask_durable.serialization import UnserializableValue

if t.TYPE_CHECKING:
    from decimal import Decimal as OnlyForTheTypeChecker


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Meta(pydantic.BaseModel):
    owner: str
    created: dt.datetime
    tags: dict[str, t.Any] = {}


class Richer(Meta):
    more: int = 1


@dataclasses.dataclass(frozen=True)
class Chunk:
    path: Path
    data: bytes
    gain: float = 1.0
    meta: Meta | None = None


class Point(t.NamedTuple):
    x: int
    y: int


class Fields(TypedDict):
    data: bytes


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)


class Song(MappedAsDataclass, Base):
    __tablename__ = "song"
    id: Mapped[int] = mapped_column(primary_key=True)


BERLIN = dt.datetime(2027, 3, 27, 9, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.timezone.utc)


def returning(annotation: t.Any) -> t.Any:
    """Return a function that says it returns *annotation*."""

    def function() -> None: ...

    function.__annotations__["return"] = annotation
    return function


def unannotated():  # type: ignore[no-untyped-def]
    ...


def through(annotation: t.Any, value: t.Any) -> t.Any:
    """Return what a replay gets for *value*."""
    codec = codec_for(returning(annotation))
    text = codec.dump(value)
    json.loads(text, parse_constant=pytest.fail)
    text.encode()
    return codec.load(text.encode())


def through_plain(value: t.Any) -> t.Any:
    codec = codec_for(unannotated)
    text = codec.dump(value)
    json.loads(text, parse_constant=pytest.fail)
    return codec.load(text)


def refusal(function: t.Any, value: t.Any) -> UnserializableValue:
    with pytest.raises(UnserializableValue) as error:
        codec_for(function).dump(value)
    str(error.value).encode()
    return error.value


def same(value: t.Any, other: t.Any) -> bool:
    """True if both have one value and, all the way down, one type."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        return list(value) == list(other) and all(
            same(value[key], other[key]) for key in value
        )
    if isinstance(value, (list, tuple)):
        pairs = zip(value, other, strict=False)
        return len(value) == len(other) and all(same(a, b) for a, b in pairs)
    if isinstance(value, float) and math.isnan(value):
        return math.isnan(other)
    return bool(value == other)


# -- with a return annotation ----------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]))
times = st.datetimes(
    min_value=dt.datetime(1, 1, 3), max_value=dt.datetime(9999, 12, 29)
)
zones = st.timezones() | st.just(dt.timezone.utc) | st.none()
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | words
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
    ),
    max_leaves=10,
)
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


# -- without one -----------------------------------------------------------------------


@given(json_values)
def test_what_json_gives_back_equal_is_kept(value: t.Any) -> None:
    assert same(through_plain(value), value)


def test_tuples_become_lists() -> None:
    assert through_plain({"a": (1, (2, []))}) == {"a": [1, [2, []]]}


def test_equal_subclasses_of_what_json_has_are_kept() -> None:
    class Text(str):
        pass

    assert through_plain([Text("a"), collections.OrderedDict(b=1)]) == ["a", {"b": 1}]


@pytest.mark.parametrize("annotation", [None, t.Any, object, t.TypeVar("T"), "None"])
def test_an_annotation_that_says_nothing_is_like_none(annotation: t.Any) -> None:
    assert through(annotation, {"a": (1,)}) == {"a": [1]}
    assert refusal(returning(annotation), [NOW]).path == "[0]"


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        (NOW, "", "datetime"),
        ([{"created": NOW}], '[0]["created"]', "datetime"),
        ({"a b": [decimal.Decimal(1)]}, '["a b"][0]', "Decimal"),
        ({"owner": {1: 2}}, '["owner"]', "key 1"),
        ({None: 2}, "", "key None"),
        ({Colour.RED: 2}, "", "Colour.RED"),
        ([math.nan], "[0]", "nan"),
        ({"x": (1.0, -math.inf)}, '["x"][1]', "-inf"),
        ([{1, 2}], "[0]", "set"),
        (b"a", "", "bytes"),
        ([1, bytearray()], "[1]", "bytearray"),
        (Meta(owner="a", created=NOW), "", "Meta"),
        ([Chunk(Path(), b"")], "[0]", "Chunk"),
        (Point(1, 2), "", "Point"),
        ([Level.LOW], "[0]", "Level"),
        ({"a": uuid.UUID(int=1)}, '["a"]', "UUID"),
        (object(), "", "object"),
        (len, "", "builtin_function_or_method"),
        (range(3), "", "range"),
        ({}.keys(), "", "dict_keys"),
        ("\ud800", "", "surrogate"),
        ({"a": ["é", "\udfff"]}, '["a"][1]', "surrogate"),
        ({"\ud800": 1}, '["\\ud800"]', "surrogate"),
        ([10**5000], "[0]", "too large"),
    ],
)
def test_everything_else_is_refused_with_its_path(
    value: t.Any, path: str, message: str
) -> None:
    error = refusal(unannotated, value)
    assert error.path == path
    assert message in error.message


def test_the_hint_names_the_annotation() -> None:
    assert '"-> Meta"' in refusal(unannotated, Meta(owner="", created=NOW)).hint


def test_depth_is_bounded() -> None:
    def nested(levels: int) -> t.Any:
        value: t.Any = []
        for _ in range(levels - 1):
            value = [value]
        return value

    for function in (unannotated, returning(list[t.Any])):
        codec = codec_for(function)
        assert codec.load(codec.dump(nested(64))) == nested(64)
        error = refusal(function, nested(65))
        assert "64 levels" in error.message
        assert error.path == "[0]" * 64


# -- rows of an object-relational mapper -----------------------------------------------


def test_an_orm_object_is_refused_as_a_result_with_a_hint_of_its_own() -> None:
    for value, path in [(User(id=1), ""), ([Song(id=1)], "[0]")]:
        error = refusal(unannotated, value)
        assert error.path == path
        assert "ORM object" in error.message
        assert "id" in error.hint


def test_an_orm_object_is_refused_where_anything_is_annotated() -> None:
    error = refusal(returning(dict[str, t.Any]), {"songs": [Song(id=1)]})
    assert error.path == '["songs"][0]'
    assert "ORM object" in error.message


@pytest.mark.parametrize("model", [User, Song])
def test_an_orm_class_is_refused_as_an_annotation(model: t.Any) -> None:
    for annotation in (model, list[model], dict[str, model] | None):
        with pytest.raises(StepUsageError, match=r"Use its id"):
            codec_for(returning(annotation))


def test_an_orm_row_is_refused_as_an_argument() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(id=1))
        session.flush()
        row = session.get(User, 1)
        for args, kwargs in [((1, row), {}), ((), {"user": row})]:
            with pytest.raises(StepUsageError, match=r"User.*Use its id"):
                check_arguments(args, kwargs)
        with pytest.raises(StepUsageError):
            check_arguments([LocalProxy(lambda: row)])
    engine.dispose()


def test_other_arguments_are_not_looked_into() -> None:
    # A proxy that stands for nothing here raises whatever is asked of it.
    values = [1, None, "a", [User(id=1)], User, mock.MagicMock(), object(), current_app]
    check_arguments(values, {"a": NOW})
    check_arguments([])


# -- which annotation ------------------------------------------------------------------


def meta() -> Meta:
    return Meta(owner="a", created=NOW)


class Callable:
    def __call__(self) -> Meta:
        return meta()

    def method(self, size: int) -> Meta:
        return meta()

    @classmethod
    def of_class(cls) -> Meta:
        return meta()

    @staticmethod
    def static() -> Meta:
        return meta()


@functools.wraps(meta)
def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
    return meta(*args, **kwargs)


@pytest.mark.parametrize(
    "function",
    [
        meta,
        wrapper,
        functools.partial(meta),
        functools.partial(functools.partial(Callable().method, 1)),
        Callable(),
        Callable().method,
        Callable.of_class,
        Callable.static,
        Meta,
        functools.lru_cache(meta),
        StepFunction(meta, name="meta"),
        functools.partial(StepFunction(meta, name="meta")),
    ],
)
def test_the_annotation_is_found_behind_every_callable(function: t.Any) -> None:
    codec = codec_for(function)
    assert codec.load(codec.dump(meta())) == meta()
    assert codec_for(function) is codec


@pytest.mark.parametrize(
    "function",
    [len, "a".upper, str.upper, math.sqrt, mock.Mock(), lambda: 1, dict.fromkeys],
)
def test_a_callable_without_an_annotation_gives_plain_values(function: t.Any) -> None:
    codec = codec_for(function)
    assert codec.load(codec.dump([1])) == [1]
    with pytest.raises(UnserializableValue):
        codec.dump(NOW)


def test_a_class_is_the_type_of_what_calling_it_returns() -> None:
    codec = codec_for(decimal.Decimal)
    assert codec.load(codec.dump(decimal.Decimal("1.50"))) == decimal.Decimal("1.50")


def test_a_class_that_is_local_to_the_caller_is_found() -> None:
    @dataclasses.dataclass
    class Local:
        size: int

    def make() -> Local:
        return Local(1)

    codec = codec_for(make)
    assert codec.load(codec.dump(make())) == Local(1)


def test_an_annotation_for_the_type_checker_alone_is_refused_before_the_body() -> None:
    def price() -> OnlyForTheTypeChecker:
        pytest.fail("the body ran")

    with pytest.raises(StepUsageError, match=r"'OnlyForTheTypeChecker'.*TYPE_CHECKING"):
        codec_for(price)


def test_only_the_return_annotation_needs_to_be_found() -> None:
    def double(price: OnlyForTheTypeChecker) -> int:
        return 2

    assert codec_for(double).dump(2) == "2"


@pytest.mark.parametrize(
    "annotation", [Callable, t.Iterator[Callable], list[Callable], t.Self, "int |"]
)
def test_a_type_that_cannot_be_stored_is_refused_before_the_body(
    annotation: t.Any,
) -> None:
    with pytest.raises(StepUsageError):
        codec_for(returning(annotation))


def test_async_functions_and_generators_are_refused_before_the_body() -> None:
    async def asynchronous() -> int:
        return 1

    def generator() -> t.Iterator[int]:
        yield 1

    for function in (asynchronous, generator, functools.partial(generator)):
        with pytest.raises(StepUsageError, match=r"async|generator"):
            codec_for(function)


def test_a_function_is_not_kept_alive_by_its_codec() -> None:
    def make() -> Meta:
        return meta()

    codec_for(make)
    kept = weakref.ref(make)
    del make
    gc.collect()
    assert kept() is None


def test_a_function_that_is_made_again_has_the_codec_of_its_annotation() -> None:
    def body() -> t.Any:
        def inner() -> dict[str, Meta]:
            return {}

        return codec_for(inner)

    assert body() is body()


def test_an_annotation_that_cannot_be_hashed_works() -> None:
    codec = codec_for(returning(t.Annotated[int, ["unhashable"]]))
    assert codec.load(codec.dump(3)) == 3
