"""The codec of a function, and results without an annotation."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import functools
import gc
import math
import typing as t
import uuid
import weakref
from pathlib import Path
from unittest import mock

import pytest
from flask import current_app
from hypothesis import given
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from werkzeug.local import LocalProxy

from flask_durable.errors import StepUsageError
from flask_durable.functions.step_function import StepFunction
from flask_durable.serialization import check_arguments
from flask_durable.serialization import codec_for
from flask_durable.serialization import UnserializableValue

if t.TYPE_CHECKING:
    from decimal import Decimal as OnlyForTheTypeChecker
from .values import Base
from .values import Chunk
from .values import Colour
from .values import json_values
from .values import Level
from .values import Meta
from .values import NOW
from .values import Point
from .values import refusal
from .values import returning
from .values import same
from .values import Song
from .values import through
from .values import through_plain
from .values import unannotated
from .values import User

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
