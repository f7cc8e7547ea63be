"""Output of commands: data to stdout, notes for a person to stderr."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import typing as t

import click

from ..common.safe_logging import finish_telling
from ..common.safe_logging import hand_to_teller

#: Control characters, which in a user's data would move the cursor or do worse. Colours
#: are let through.
_CONTROL = re.compile(r"(?!\x1b\[[0-9;]*m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def echo(text: str, *, err: bool = False) -> None:
    """Print *text*; characters that cannot be shown are escaped."""
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    encoding = _encoding(sys.stderr if err else sys.stdout)
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def note(message: str) -> None:
    """Print a note for a person to stderr.

    A command that keeps processes does not wait for it, and does not end if nobody
    reads it (see :func:`~flask_durable.common.safe_logging.telling`).
    """
    hand_to_teller(functools.partial(echo, f" * {message}", err=True))


def end(code: int) -> t.NoReturn:
    """End a command that keeps processes with *code*, also if nobody reads its notes.

    The interpreter's own end waits for a stderr that is a full pipe, and has another
    code if stderr has no reader.
    """
    with contextlib.suppress(OSError, ValueError):
        if finish_telling():
            sys.stdout.flush()
            sys.stderr.flush()
            sys.exit(code)
    os._exit(code)


def colour() -> bool:
    """Return whether stdout may be coloured (see https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def style(text: str, **attributes: t.Any) -> str:
    """Return *text* with terminal attributes where :func:`colour` allows them."""
    if colour() and any(attributes.values()):
        return click.style(text, **attributes)
    return text


def echo_json(value: t.Any) -> None:
    """Print *value* as JSON: indented for a person, one line for a program."""
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    if _CONTROL.search(text) or not _can_encode(text):
        text = json.dumps(value, indent=indent, default=str)
    click.echo(text)


def echo_table(headers: t.Sequence[str], rows: t.Iterable[t.Sequence[str]]) -> None:
    """Print aligned columns on a terminal, otherwise one line a row, with tabs."""
    lines = [[" ".join(cell.split()) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in lines:
            echo("\t".join(line))
        return
    lines.insert(0, [style(header.upper(), bold=True) for header in headers])
    for text in aligned(lines):
        echo(text)


def aligned(rows: t.Sequence[t.Sequence[str]]) -> list[str]:
    """Return *rows* as lines with columns of equal width, two spaces apart."""
    # Colour codes take no room on the screen.
    sizes = [[len(click.unstyle(cell)) for cell in row] for row in rows]
    widths = [max(column) for column in zip(*sizes, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - size)
            for cell, width, size in zip(row, widths, row_sizes, strict=True)
        ).rstrip()
        for row, row_sizes in zip(rows, sizes, strict=True)
    ]


def bar_characters() -> tuple[str, str]:
    """Return the characters of bars on this stdout: for work, and for sleep."""
    return ("█", "░") if _can_encode("█░") else ("#", ".")


def _can_encode(text: str) -> bool:
    try:
        text.encode(_encoding(sys.stdout))
    except UnicodeEncodeError:
        return False
    return True


def _encoding(stream: t.TextIO) -> str:
    return stream.encoding or "utf-8"
