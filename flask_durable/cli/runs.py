"""``flask durable runs``: list, show, signal, cancel, retry and resume runs."""

from __future__ import annotations

import json
import typing as t

import click
from flask.cli import AppGroup

from ..errors import DurableError
from ..store.status import RunStatus
from .family import family_of
from .output import echo
from .output import echo_json
from .output import echo_table
from .output import note
from .parameters import read_json
from .problems import check_text
from .problems import current_durable
from .problems import FAILURE
from .run_json import run_as_json
from .run_logs import follow as follow_run
from .run_logs import line_as_json
from .run_logs import line_as_text
from .timeline import clock
from .timeline import coloured
from .timeline import describe
from .timeline import took

if t.TYPE_CHECKING:
    from ..runs.model import Run

runs = AppGroup("runs", help="List, show, signal, cancel, retry and resume runs.")

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ids_argument = click.argument(
    "ids", metavar="RUN...", nargs=-1, required=True, callback=check_text
)


@runs.command("list")
@click.option(
    "--status",
    type=click.Choice([str(s) for s in RunStatus]),
    help="Only runs with this status.",
)
@click.option(
    "--function", metavar="ID", callback=check_text, help="Only runs of this function."
)
@click.option(
    "--parent",
    metavar="RUN",
    callback=check_text,
    help="Only runs that this run invoked, and its branches.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="The most runs to list.",
)
@_json_option
def list_command(
    status: str | None,
    function: str | None,
    parent: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List runs, the newest first.

    On a terminal the columns are aligned. Otherwise each run is one line, with tabs
    between id, function, status, event, time of creation and duration. With --parent
    the names of branches follow.

    \b
    Examples:
      flask durable runs list --status failed
      flask durable runs list --function transcribe_audio --json
      flask durable runs list --parent 0b5a6v8f3c9e2d7g1h4k0m5n8p
    """
    found = current_durable().runs.list(
        status=RunStatus(status) if status else None,
        function=function,
        parent=parent,
        limit=limit,
    )
    if as_json:
        echo_json([run_as_json(run, steps=False) for run in found])
        return
    if not found:
        note("No such runs.")
        return
    headers = ["run", "function", "status", "event", "created", "took"]
    rows = [
        [
            run.id,
            run.function,
            coloured(str(run.status)),
            run.event_name,
            clock(run.created),
            took(run),
        ]
        for run in found
    ]
    if parent is not None:
        headers.append("branch")
        for row, run in zip(rows, found, strict=True):
            row.append(run.branch or "")
    echo_table(headers, rows)


@runs.command("show")
@click.argument("id", metavar="RUN", callback=check_text)
@click.option("--logs", is_flag=True, help="Also print its newest log lines.")
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Print only its log lines, until it is finished.",
)
@click.option(
    "--branches",
    is_flag=True,
    help="Also show the steps of its branches, and each of many branches.",
)
@_json_option
def show_command(
    id: str, logs: bool, follow: bool, branches: bool, as_json: bool
) -> None:
    """Show a run: its event, its steps, and its result or failure.

    Below a step are its branches, or the run that it invoked, with their ids. Of more
    than ten branches the failed and the slowest ones are shown.

    With --follow and --json each log line is printed as one JSON object.

    \b
    Examples:
      flask durable runs show 0b5a6v8f3c9e2d7g1h4k0m5n8p
      flask durable runs show 0b5a6v8f3c9e2d7g1h4k0m5n8p --json | jq .steps
      flask durable runs show 0b5a6v8f3c9e2d7g1h4k0m5n8p --branches
      flask durable runs show 0b5a6v8f3c9e2d7g1h4k0m5n8p --logs
      flask durable runs show 0b5a6v8f3c9e2d7g1h4k0m5n8p --follow
    """
    runs = current_durable().runs
    run = runs.get(id)
    if follow:
        run = follow_run(runs, id, as_json=as_json)
        if not as_json:
            note(f"Run {id} is {run.status}.")
        return
    lines = runs.logs(id) if logs else []
    family = family_of(runs, run, unfold=branches)
    if as_json:
        kept = {"logs": [line_as_json(line) for line in lines]} if logs else {}
        echo_json({**run_as_json(run, family), **kept})
        return
    echo("\n".join(describe(run, family)))
    if logs:
        echo("\n".join(["", *map(line_as_text, lines)] if lines else ["", "No lines."]))


@runs.command("signal")
@click.argument("run", metavar="RUN", callback=check_text)
@click.argument("name", metavar="NAME", callback=check_text)
@click.argument("data", callback=read_json, default="null")
@click.option(
    "--id",
    metavar="ID",
    callback=check_text,
    help="The signal's id. Of several signals with the same id the run gets one.",
)
@_json_option
def signal_command(
    run: str, name: str, data: t.Any, id: str | None, as_json: bool
) -> None:
    """Give RUN the signal NAME with DATA, and print the signal's id.

    A step that waits for it goes on. Otherwise the run keeps it until a step asks for
    it. DATA is any JSON, @FILE to read it from a file, or - to read it from standard
    input; null if it is missing.

    \b
    Examples:
      flask durable runs signal 0b5a6v8f3c9e2d7g1h4k0m5n8p approve
      flask durable runs signal 0b5a6v8f3c9e2d7g1h4k0m5n8p approve \\
        '{"by": "Ada"}' --id approval-17
    """
    signal_id = current_durable().signal(run, name, data, id=id)
    click.echo(json.dumps({"id": signal_id}) if as_json else signal_id)


@runs.command("cancel")
@_ids_argument
@click.option(
    "--reason",
    default="cancelled on the command line",
    show_default=True,
    metavar="TEXT",
    callback=check_text,
    help="The reason, which is kept with the run.",
)
@_json_option
def cancel_command(ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Cancel runs that are not finished.

    A step that is running is not stopped, but its result is refused.

    \b
    Example:
      flask durable runs cancel 0b5a6v8f3c9e2d7g1h4k0m5n8p --reason "wrong file"
    """
    durable = current_durable()
    _change(ids, lambda id: durable.runs.cancel(id, reason), as_json)


@runs.command("retry")
@_ids_argument
@click.option(
    "--step",
    "steps",
    multiple=True,
    metavar="NAME",
    callback=check_text,
    help="Also run this failed step again. Repeat the option for several steps.",
)
@_json_option
def retry_command(ids: tuple[str, ...], steps: tuple[str, ...], as_json: bool) -> None:
    """Retry failed or cancelled runs, from the step that failed.

    A step that may run at most once, and began but has no known outcome, runs again
    only if --step names it.

    \b
    Examples:
      flask durable runs list --status failed | cut -f1 | xargs flask durable runs retry
      flask durable runs retry 0b5a6v8f3c9e2d7g1h4k0m5n8p --step launch
    """
    durable = current_durable()
    _change(ids, lambda id: durable.runs.retry(id, steps=steps), as_json)


@runs.command("resume")
@_ids_argument
@_json_option
def resume_command(ids: tuple[str, ...], as_json: bool) -> None:
    """Resume paused runs.

    \b
    Example:
      flask durable runs resume 0b5a6v8f3c9e2d7g1h4k0m5n8p
    """
    _change(ids, current_durable().runs.resume, as_json)


def _change(
    ids: t.Sequence[str], change: t.Callable[[str], Run], as_json: bool
) -> None:
    """Change each run; a run that refuses does not keep the others from it."""
    rows, failed = [], False
    for id in dict.fromkeys(ids):
        try:
            rows.append({"id": id, "status": str(change(id).status)})
        except DurableError as error:
            failed = True
            rows.append({"id": id, "error": str(error), "code": error.code})
            echo(f"{id}: {error}", err=True)
    if as_json:
        echo_json(rows)
    else:
        done = [(row["id"], coloured(row["status"])) for row in rows if "status" in row]
        echo_table(("run", "status"), done)
    if failed:
        click.get_current_context().exit(FAILURE)
