"""Types and values that steps may return, and their way through a codec."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import typing as t
import zoneinfo
from pathlib import Path

import pydantic
import pytest
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import MappedAsDataclass
from typing_extensions import TypedDict

from flask_durable.serialization import codec_for
from flask_durable.serialization import UnserializableValue


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

words = st.text(st.characters(exclude_categories=["Cs"]))

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
