"""An app for ``flask durable`` commands, whose runs the test drives."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from click.testing import CliRunner
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_durable import Durable
from flask_durable.cli import durable_cli

from ..support.harness import Harness


def explode(*args: object) -> None:
    raise RuntimeError("out of order")


def declare(durable: Durable) -> None:
    """Declare the functions that the tests send events to."""

    @durable.function(on="greeting/asked", retries=0)
    def greet(event: t.Any, step: t.Any) -> t.Any:
        return {"greeting": step.run("look-up", str.title, event.data["name"])}

    @durable.function(on="repair/asked", queue="garage", retries=0)
    def repair(event: t.Any, step: t.Any) -> None:
        step.run("prepare", int, 1)
        step.run("repair", explode)

    @durable.function(on="nap/asked")
    def nap(event: t.Any, step: t.Any) -> None:
        step.sleep("nap", "1h")

    @durable.function(on="media/*", where=lambda event: bool(event.data["fits"]))
    def pick(event: t.Any, step: t.Any) -> str:
        return "picked"


Run = t.Callable[..., Result]


def runner_of(app: Flask) -> Run:
    def run(*arguments: str, input: str | None = None) -> Result:
        info = ScriptInfo(create_app=lambda: app)
        return CliRunner().invoke(durable_cli, arguments, obj=info, input=input)

    return run


@contextlib.contextmanager
def working(harness: Harness) -> t.Iterator[None]:
    """Execute what comes in, as a worker would, inside the block."""
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.01):
            harness.settle()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(30)
        assert not thread.is_alive()


def rows(result: Result) -> list[list[str]]:
    """Return the cells of a table."""
    return [line.split("\t") for line in result.stdout.splitlines()]
