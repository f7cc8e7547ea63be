"""``flask durable functions``: the functions the app declares or its workers have."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import UTC

import click
from flask.cli import AppGroup
from flask.cli import with_appcontext

from ..errors import ConfigurationError
from .audience import Known
from .audience import known_functions
from .output import echo_json
from .output import echo_table
from .output import note
from .problems import current_durable
from .problems import current_state
from .problems import FAILURE
from .problems import is_unreachable


@click.group("functions", cls=AppGroup, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@with_appcontext
def functions(ctx: click.Context, as_json: bool) -> None:
    """List the functions and what starts them.

    The last column says where a function's code is: "here" in the app of this command,
    "published" by a worker, or with "nobody" if only workers of the last hour had it.
    In the last case events still start runs, which nobody executes, until the function
    is forgotten. If the state server cannot be reached, only functions that are here
    are listed. A schedule is shown with its next instant, without jitter.

    \b
    Examples:
      flask durable functions
      flask durable functions --json | jq '.[].triggers'
      flask durable functions forget old_name
    """
    if ctx.invoked_subcommand is None:
        _list(as_json)


@functions.command("forget")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def forget_command(ids: tuple[str, ...]) -> None:
    """Forget functions that no worker has any more.

    Events start no further runs of them. Existing runs stay as they are: list them with
    `flask durable runs list --function ID`. If a function comes back, its schedules
    start over. A function that a worker has is not forgotten, and the exit code is 1.

    \b
    Examples:
      flask durable functions forget old_name
    """
    known = _known(needed=True)
    directory = current_state().directory
    failed = False
    for id in ids:
        item = known.get(id)
        if item is None or item.published is None:
            note(f"No worker had a function called {id!r} within the last hour.")
            failed = True
        elif directory.forget(id):
            note(f"{id} is forgotten.")
        else:
            note(f"{id} is not forgotten: a worker has its code.")
            failed = True
    if failed:
        click.get_current_context().exit(FAILURE)


def _list(as_json: bool) -> None:
    known = _known()
    if as_json:
        echo_json([_as_json(item) for item in known.values()])
        return
    echo_table(
        ("function", "triggers", "queue", "retries", "code", "next"),
        [
            (
                id,
                ", ".join([*item.spec["triggers"], *map(str, item.crons)]) or "-",
                item.spec["queue"],
                str(item.spec["max_attempts"] - 1),
                _places(item),
                _next_of(item) or "-",
            )
            for id, item in known.items()
        ],
    )


def _known(*, needed: bool = False) -> dict[str, Known]:
    durable = current_durable()
    try:
        return known_functions(durable.functions, current_state().directory)
    except Exception as error:
        # The settings may have no server, for example where an app is built.
        unset = isinstance(error, ConfigurationError) and not durable.settings.redis_url
        if needed or not (unset or is_unreachable(error)):
            raise
        note(f"The functions of the workers are unknown: {error}")
    return {f.id: Known(f.spec(), True, None, False) for f in durable.functions}


def _as_json(item: Known) -> dict[str, t.Any]:
    places = {
        "here": item.here,
        "published": item.published is not None,
        "alive": item.alive,
    }
    return {**item.spec, **places, "next": _next_of(item)}


def _next_of(item: Known) -> str | None:
    now = datetime.now(UTC)
    found = [cron.next_after(now) for cron in item.crons]
    instants = [instant for instant in found if instant is not None]
    return min(instants).isoformat(timespec="minutes") if instants else None


def _places(item: Known) -> str:
    places = ["here"] if item.here else []
    if item.alive:
        places.append("published")
    return ", ".join(places or ["nobody"])
