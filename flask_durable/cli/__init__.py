"""The ``flask durable`` commands: one module each, imported when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import typing as t

import click
from flask.cli import AppGroup

from .descriptors import fill_standard

#: Commands in the order of ``flask durable --help``; each has a module of its name.
_COMMANDS = (
    *("dev", "worker", "send", "runs", "dlq", "functions", "health", "secret"),
    *("scale", "pool", "stats"),
)


class _DurableCommands(AppGroup):
    """Imports a command's module on its first use, and explains our errors.

    Every ``flask`` call imports this package, so it stays light.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _COMMANDS if importlib.util.find_spec(_module(name))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        return t.cast(
            click.Command, getattr(importlib.import_module(_module(name)), name)
        )

    def invoke(self, ctx: click.Context) -> t.Any:
        # Before the app is loaded: it may connect to something.
        fill_standard()
        try:
            return super().invoke(ctx)
        except Exception as error:
            from .problems import explain

            if explained := explain(error, ctx):
                raise explained from error
            raise


def _module(name: str) -> str:
    return f"{__name__}.{name}"


durable_cli = _DurableCommands(
    "durable",
    help="Run workers, send events, and inspect runs and dead letters.",
    epilog=(
        "Exit codes: 0 success, 1 failure, 2 wrong usage, 3 a required server cannot "
        "be reached."
    ),
)
