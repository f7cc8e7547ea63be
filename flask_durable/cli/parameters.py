"""Kinds of arguments that several commands take."""

from __future__ import annotations

import typing as t

import click

from ..durations import to_seconds


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A duration such as ``90s``, as seconds."""

    name = "duration"

    def convert(
        self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return to_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
