"""``flask durable functions``: what the app declares and its workers can run."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import UTC

import click
from flask.cli import with_appcontext

from .audience import Known
from .audience import known_functions
from .output import echo_json
from .output import echo_table
from .output import note
from .problems import current_durable
from .problems import current_state
from .problems import is_unreachable


@click.command("functions")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
def functions(as_json: bool) -> None:
    """List the functions: what starts them, queue, retries, where their code is.

    Code is "here" when the app of this command has it, and "published" when a worker
    has said so within the last hour. Without the state server only what is here is
    listed. Of a function with schedules the next instant is shown, without its jitter.

    \b
    Examples:
      flask durable functions
      flask durable functions --json | jq '.[].triggers'
    """
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


def _known() -> dict[str, Known]:
    durable = current_durable()
    try:
        return known_functions(durable.functions, current_state().directory)
    except Exception as error:
        if not is_unreachable(error):
            raise
        note(f"What workers published is not known: {error}")
    return {f.id: Known(f.spec(), True, False) for f in durable.functions}


def _as_json(item: Known) -> dict[str, t.Any]:
    places = {"here": item.here, "published": item.published}
    return {**item.spec, **places, "next": _next_of(item)}


def _next_of(item: Known) -> str | None:
    now = datetime.now(UTC)
    found = [cron.next_after(now) for cron in item.crons]
    instants = [instant for instant in found if instant is not None]
    return min(instants).isoformat(timespec="minutes") if instants else None


def _places(item: Known) -> str:
    return ", ".join(
        name
        for name, there in (("here", item.here), ("published", item.published))
        if there
    )
