"""Failures of commands: exit codes, and errors as a person reads them."""

from __future__ import annotations

import typing as t

import click
from flask import current_app
from flask import Flask
from flask.cli import ScriptInfo

from ..errors import ConfigurationError
from ..errors import DurableError
from ..errors import EventError
from ..errors import UnavailableError
from ..security.redaction import mask_url

if t.TYPE_CHECKING:
    from ..app.state import AppState
    from ..extension import Durable

T = t.TypeVar("T", str, str | None, tuple[str, ...])

#: The command failed: a run did, or an event was refused, or a setting is wrong.
FAILURE = 1

#: A needed server cannot be reached.
UNREACHABLE = 3


class CommandError(click.ClickException):
    """An error message, followed by details and a hint, each on a line of its own."""

    exit_code = FAILURE

    def __init__(self, message: str, lines: t.Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  {line}" for line in lines)]))


class Unreachable(CommandError):
    """An error because a server cannot be reached."""

    exit_code = UNREACHABLE


def explain(error: Exception, ctx: click.Context) -> CommandError | None:
    """Return *error* as a message for the terminal, ``None`` if it is not known."""
    if isinstance(error, DurableError):
        kind = Unreachable if isinstance(error, UnavailableError) else CommandError
        return kind(error.message, _details(error))
    if _is_forbidden(error):
        return CommandError(
            f"The account in the server's URL lacks a permission: {error}.",
            ["Hint: Allow it as the documentation of state servers shows."],
        )
    if is_unreachable(error):
        return Unreachable(
            f"The state server {_state_server(ctx)} cannot be reached: {error}",
            [
                "Hint: Start it, or correct DURABLE_REDIS_URL; `flask durable dev` "
                "brings one along."
            ],
        )
    if _is_of_state_server(error):
        return Unreachable(f"The state server {_state_server(ctx)} refuses: {error}")
    return None


def is_unreachable(error: BaseException) -> bool:
    """Return whether *error* means that a server did not answer."""
    import redis

    return isinstance(
        error, (redis.ConnectionError, redis.TimeoutError, UnavailableError)
    )


def _is_forbidden(error: BaseException) -> bool:
    """Return whether *error* names a command that the server's account may not use."""
    import redis

    return isinstance(error, redis.exceptions.NoPermissionError)


def _is_of_state_server(error: BaseException) -> bool:
    """Return whether *error* is a server's reply, or means that it is not Redis."""
    import redis

    return isinstance(error, redis.RedisError)


def check_text(ctx: click.Context, param: click.Parameter, value: T) -> T:
    """Refuse one or several arguments whose bytes are not text: a click callback."""
    try:
        "".join(value if value is not None else ()).encode()
    except UnicodeEncodeError:
        raise click.BadParameter("It is not valid text.", ctx, param) from None
    return value


def current_durable() -> Durable:
    """Return the extension object of the current app.

    :raises ConfigurationError: The app does not use Flask-Durable.
    """
    return durable_of(current_app)


def current_state() -> AppState:
    """Return the extension's services of the current app."""
    app = t.cast(Flask, t.cast(t.Any, current_app)._get_current_object())
    return current_durable().state_of(app)


def durable_of(app: Flask) -> Durable:
    """Return the extension object of *app*.

    :raises ConfigurationError: The app does not use Flask-Durable.
    """
    try:
        return t.cast("Durable", app.extensions["durable"])
    except KeyError:
        raise ConfigurationError(
            f"The app {app.name!r} does not use Flask-Durable.",
            hint='Add "durable = Durable(app)" to it.',
        ) from None


def _details(error: DurableError) -> list[str]:
    lines = []
    if isinstance(error, EventError):
        lines += [
            f"{fault['field']}: {fault['message']}"
            for fault in error.errors
            if not _is_told(fault, error.message)
        ]
    if error.hint:
        lines.append(f"Hint: {error.hint}")
    return lines


def _is_told(fault: t.Mapping[str, str], message: str) -> bool:
    field, text = fault["field"], fault["message"]
    return f"{field}: {text}" in message or f"{field} {text}" in message


def _state_server(ctx: click.Context) -> str:
    # The command's app context has ended by now.
    info = ctx.find_object(ScriptInfo)
    app = info.load_app() if info else None
    durable = app.extensions.get("durable") if app else None
    url = durable.state_of(app).settings.redis_url if durable else None
    return mask_url(url) if url else "of `flask durable dev`"
