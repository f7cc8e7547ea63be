"""Sketches of calls: equal in every process, whatever is called with whatever."""

from __future__ import annotations

import functools
import typing as t
from datetime import date
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from flask import current_app

from flask_durable.engine.sketch import sketch_of


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


def call(*args: t.Any, **kwargs: t.Any) -> None: ...


class Rude:
    """Nobody's business: comparing, printing or hashing it fails."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    def __repr__(self) -> str:
        raise AssertionError

    def __hash__(self) -> int:
        raise AssertionError


def nested(depth: int) -> t.Any:
    found: t.Any = []
    for _ in range(depth):
        found = [found]
    return found


def looped() -> list[t.Any]:
    found: list[t.Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, True),
        (1, "1"),
        ("a", "b"),
        ("a" * 1000, "a" * 999 + "b"),
        (b"a", b"b"),
        (None, 0),
        ([1, 2], [2, 1]),
        ([1, [2]], [[1], 2]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({1: "a"}, {2: "a"}),
        ({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 2}]}}),
        (UUID(int=1), UUID(int=2)),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (Decimal("1.0"), Decimal("1.00")),
        (Colour.RED, Colour.BLUE),
        (abs, max),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (object(), Rude()),
    ],
)
def test_calls_that_differ_have_other_sketches(one: t.Any, other: t.Any) -> None:
    assert sketch_of(call, [one]) != sketch_of(call, [other])
    assert sketch_of(call, [], {"a": one}) != sketch_of(call, [], {"a": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (object(), object()),
        (Rude(), Rude()),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: "a", "1": "b"}, {"1": "b", 1: "a"}),
        ({object(): 1}, {object(): 1}),
        ({"a", "b"}, {"c"}),
        (lambda: 1, lambda: 2),
        (looped(), looped()),
        (nested(500), nested(500)),
        ("\udcff", "\udcff"),
    ],
)
def test_what_cannot_be_told_apart_has_the_same_sketch(
    one: t.Any, other: t.Any
) -> None:
    assert sketch_of(call, [one]) == sketch_of(call, [other])


def test_a_sketch_depends_on_nothing_of_this_process() -> None:
    found = sketch_of(call, ["a", 1, {"k": [1.5, None]}], {"flag": True})
    assert found == (
        b"['call', 'a', 1, ('{', 1), 'k', ('[', 2), 1.5, None, ('{', 1), 'flag', True]"
    )


def test_a_number_too_long_to_print_is_compared_all_the_same() -> None:
    assert sketch_of(call, [2**20_000]) != sketch_of(call, [2**20_000 + 1])


def test_the_callable_belongs_to_the_call() -> None:
    assert sketch_of(abs) != sketch_of(max)
    assert sketch_of(functools.partial(call, 1)) != sketch_of(functools.partial(call))
    assert sketch_of([].append) == sketch_of([1].append)


def test_of_a_large_value_a_part_is_looked_at() -> None:
    assert len(sketch_of(call, [list(range(100_000))])) < 5000
    assert len(sketch_of(call, ["x" * 1_000_000])) < 100
    assert len(sketch_of(call, [{str(n): n for n in range(100_000)}])) < 100


def test_a_proxy_is_not_asked_for_what_it_stands_for() -> None:
    assert sketch_of(call, [current_app]) == sketch_of(call, [current_app])
