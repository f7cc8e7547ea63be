"""The version and the parameters of a callable."""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
import textwrap
import typing as t
from pathlib import Path

import pytest

from flask_durable.functions.callables import code_version
from flask_durable.functions.callables import positions_of
from flask_durable.functions.function import Function

from .declared import plain


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


class Doubler:
    def method(self, item: int, step: object) -> None: ...

    def __call__(self, item: int, factor: int = 2) -> None: ...


@functools.wraps(Doubler.method)
def wrapper(*args: t.Any) -> None: ...


@pytest.mark.parametrize(
    ("callable", "expected"),
    [
        (lambda item: None, ("item", 1)),
        (lambda item, step: None, ("item", 2)),
        (lambda item, step=None: None, ("item", 1)),
        (lambda item, /, step: None, ("item", 2)),
        (lambda *items: None, ("items", 0)),
        (lambda *, key: None, ("key", 0)),
        (lambda: None, ("", 0)),
        (Doubler().method, ("item", 2)),
        (Doubler(), ("item", 1)),
        (functools.partial(lambda a, b, c: None, 1), ("b", 2)),
        (wrapper, ("self", 3)),
        (len, ("obj", 1)),
        (print, ("args", 0)),
    ],
)
def test_positions_are_those_of_the_signature(
    callable: t.Any, expected: tuple[str, int]
) -> None:
    parameters = inspect.signature(callable).parameters
    assert next(iter(parameters), "") == expected[0]
    assert positions_of(callable) == expected


def test_a_callable_without_a_signature_has_no_positions() -> None:
    assert positions_of(type) == ("", 0)
