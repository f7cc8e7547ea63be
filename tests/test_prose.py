"""Docstrings and comments say what a thing is, in more than one word."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import typing as t

import flask_durable

from .support.parsing import parsed

PACKAGE = pathlib.Path(flask_durable.__path__[0])
TESTS = pathlib.Path(__file__).parent

#: Openings that have to be decoded: the reader learns a question, and not a thing.
RIDDLE = re.compile(r"(What|Whether|How|Who|Whoever)\b")

#: A field of a docstring that is described by one word, or by a pronoun.
BARE = re.compile(
    r"^ *:(?:param|raises)[^:\n]*: *(?:\S+|They|It|Them|These|Those)\.? *$",
    re.MULTILINE,
)


def modules() -> t.Iterator[pathlib.Path]:
    """Yield the files of the package and of its tests."""
    for folder in (PACKAGE, TESTS):
        yield from sorted(folder.rglob("*.py"))


@functools.cache
def docstrings() -> list[tuple[str, str]]:
    """Return the place and the text of each docstring."""
    return list(_docstrings())


def _docstrings() -> t.Iterator[tuple[str, str]]:
    for path in modules():
        for node in ast.walk(parsed(path.read_text("utf-8"))):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and (text := ast.get_docstring(node)):
                line = getattr(node, "lineno", 1)
                yield f"{path}:{line}", text


def comments() -> t.Iterator[tuple[str, str]]:
    """Yield the place and the text of each first line of a comment on a name."""
    for path in modules():
        before = ""
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            text = line.strip()
            if text.startswith("#: ") and not before.startswith("#: "):
                yield f"{path}:{number}", text[3:]
            before = text


def test_no_docstring_and_no_comment_on_a_name_begins_with_a_riddle() -> None:
    found = [
        where for where, text in (*docstrings(), *comments()) if RIDDLE.match(text)
    ]

    assert found == []


def test_no_parameter_and_no_error_is_described_by_one_word() -> None:
    found = [where for where, text in docstrings() if BARE.search(text)]

    assert found == []


def test_what_is_to_be_found_would_be_found() -> None:
    assert RIDDLE.match("Whether it is there.")
    assert not RIDDLE.match("However it is.")
    assert BARE.search("Do it.\n\n:param events: They.\n:raises ValueError: If so.")
    assert not BARE.search("Do it.\n\n:param events: The events to send.")
