"""Kinds of arguments that several commands take."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import click

from ..common.durations import to_seconds

if t.TYPE_CHECKING:
    from ..observe.formats import LogFormat


#: The option ``--log-format`` of commands that run as processes of ours.
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    help="Format of log records on stderr: console prints lines for people, json "
    "prints JSON objects. Default: the app's own logging handlers, or console if it "
    "has none.",
)


def log_arguments(log_format: LogFormat | None) -> list[str]:
    """Return the arguments that pass *log_format* on to a worker's process."""
    return [f"--log-format={log_format}"] if log_format else []


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A duration such as ``90s``, as seconds.

    :param above_zero: True to refuse 0.
    """

    name = "duration"

    def __init__(self, *, above_zero: bool = False) -> None:
        self._above_zero = above_zero

    def convert(
        self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = to_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._above_zero and not seconds:
            self.fail("it is not longer than 0 s", param, ctx)
        return seconds


def read_object(
    ctx: click.Context, param: click.Parameter, value: str
) -> dict[str, t.Any]:
    """Return the JSON object of an argument: a click callback.

    The argument is the text, ``@`` and a file's name, or ``-`` for standard input.
    """
    found = read_json(ctx, param, value)
    if not isinstance(found, dict):
        raise click.BadParameter("An event's data is a JSON object.", ctx, param)
    return found


def read_json(ctx: click.Context, param: click.Parameter, value: str) -> t.Any:
    """Return the JSON value of such an argument: a click callback."""
    text = _read(value, ctx, param)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        source = {"-": "Standard input", "@": value[1:]}.get(value[:1])
        problem = f"{source} is not JSON: {error}." if source else f"{error}."
        advice = "" if source else ' Write it as \'{"key": "value"}\'.'
        raise click.BadParameter(problem + advice, ctx, param) from None


def _read(text: str, ctx: click.Context, param: click.Parameter) -> str:
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise click.BadParameter(
            f"The file {text[1:]!r} cannot be read: {reason}. DATA that begins with @ "
            "names a file with JSON in it.",
            ctx,
            param,
        ) from None


def _refuse_constant(name: str) -> t.NoReturn:
    raise ValueError(f"{name} is not JSON")
