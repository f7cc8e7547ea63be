"""The banner that ``flask durable dev`` prints at its start."""

from __future__ import annotations

import functools
import os
import sys
import typing as t

import click

from ...common.safe_logging import hand_to_teller
from ...security.redaction import mask_url

if t.TYPE_CHECKING:
    from .stack import DevStack


def print_banner(stack: DevStack) -> None:
    """Print the parts of the stack and their addresses to stderr."""
    lines = [f"  {name:<11}{value}" for name, value in _facts(stack)]
    title = "Flask-Durable development stack: not for production"
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        title = click.style(title, bold=True, fg="yellow")
    lines = ["", title, "", *lines, "", "Press CTRL+C to stop, twice to kill.", ""]
    hand_to_teller(functools.partial(click.echo, "\n".join(lines), err=True))


def _facts(stack: DevStack) -> t.Iterator[tuple[str, str]]:
    settings = stack.settings
    yield "Web app", stack.url
    if settings.url_prefix is not None:
        closed = not (stack.is_local or settings.event_keys or settings.signing_secrets)
        prefix = settings.url_prefix.rstrip("/")
        state = " (closed: no key is configured)" if closed else ""
        yield "Events", f"POST {stack.url}{prefix}/events{state}"
    yield "State", _state(stack)
    yield "Queue", _queue(stack)
    yield "Worker", f"processes: {stack.processes}, threads of each: {stack.threads}"
    title = "Functions"
    for function in stack.durable.functions:
        triggers = function.started_by or "no event"
        yield title, f"{function.id} on {triggers} (queue {function.queue})"
        title = ""
    if title:
        yield title, "none yet: add one with @durable.function"


def _state(stack: DevStack) -> str:
    url = mask_url(stack.redis_url)
    if stack.server is None:
        return f"{url} (DURABLE_REDIS_URL)"
    place = os.path.relpath(stack.server.directory)
    whose = "embedded" if stack.server.owned else "of another flask durable dev"
    return f"{url} ({whose}, kept in {place})"


def _queue(stack: DevStack) -> str:
    if stack.sqs_endpoint is not None:
        return f"SQS at {stack.sqs_endpoint} (local, in memory: gone at the end)"
    url = stack.settings.queue_url
    return f"{mask_url(url)} (DURABLE_QUEUE_URL)" if url else "the same server"
