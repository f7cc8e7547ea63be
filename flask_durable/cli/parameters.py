"""Kinds of arguments that several commands take."""

from __future__ import annotations

import typing as t

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
