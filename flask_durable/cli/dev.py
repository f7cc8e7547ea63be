"""``flask durable dev``: server, web app and worker, started and stopped as one."""

from __future__ import annotations

import typing as t

import click
from flask.cli import with_appcontext

from ..common.safe_logging import telling
from .output import end
from .output import note
from .parameters import log_format_option
from .stack.banner import print_banner
from .stack.stack import DevStack
from .stack.stack import until_interrupted

if t.TYPE_CHECKING:
    from ..observe.formats import LogFormat

__all__ = ["DevStack", "dev"]


@click.command("dev")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address of the web app."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5000,
    show_default=True,
    help="The port of the web app; 0 takes a free one.",
)
@click.option(
    "--queue",
    type=click.Choice(["redis", "sqs"]),
    default="redis",
    show_default=True,
    help="The kind of queue; sqs runs a local SQS endpoint, in memory.",
)
@click.option(
    "--reload/--no-reload",
    default=True,
    show_default=True,
    help="Restart the web app and the worker when the source code changes.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="The number of worker processes.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="The number of runs that a process executes at once.",
)
@log_format_option
@with_appcontext
def dev(
    host: str,
    port: int,
    queue: t.Literal["redis", "sqs"],
    reload: bool,
    processes: int,
    threads: int,
    log_format: LogFormat | None,
) -> None:
    """Run the app for development, with a worker and its servers.

    One command starts an embedded Valkey server, whose data stays in the instance
    folder, the web app, and a worker. The endpoint for events is open on loopback
    without a key. An app with a DURABLE_REDIS_URL is run on that server instead.

    Ctrl-C stops all of it; a second Ctrl-C does not wait for running steps.

    \b
    Examples:
      flask durable dev
      flask --app example_app --debug durable dev --port 8000
      flask durable dev --queue sqs
    """
    stack = DevStack(
        host=host,
        port=port,
        queue=queue,
        reload=reload,
        processes=processes,
        threads=threads,
        log_format=log_format,
        keep_data=True,
    )
    with telling():
        with stack:
            # Ctrl-C works as soon as the banner says so.
            with until_interrupted():
                print_banner(stack)
                stack.wait()
            note("Stopping. Press CTRL+C again to kill.")
        end(0)
