"""``flask durable send``: send an event, and wait for the runs that it starts."""

from __future__ import annotations

import json
import time
import typing as t

import click
from flask.cli import with_appcontext

from ..store.status import RunStatus
from .audience import Audience
from .audience import audience_of
from .output import echo_json
from .output import echo_table
from .output import note
from .parameters import read_object
from .parameters import Seconds
from .problems import CommandError
from .problems import current_durable
from .problems import current_state
from .problems import FAILURE
from .problems import is_unreachable
from .run_json import run_as_json
from .timeline import coloured
from .timeline import took

if t.TYPE_CHECKING:
    from ..extension import Durable
    from ..runs.model import Run

#: Seconds between two looks at the runs: at first, and at most.
_FIRST_LOOK = 0.05
_LONGEST_LOOK = 1.0

#: Seconds for a function whose ``where=`` may refuse the event to show a run.
_WORKERS_WAIT = 2.0


@click.command("send")
@click.argument("event")
@click.argument("data", callback=read_object, default="{}")
@click.option(
    "--id",
    metavar="ID",
    help="The event's id. Events with the same id start each function once.",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait until the runs that it starts are finished, and print them.",
)
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="DURATION",
    help="The longest time for --wait, such as 90s. Default: no limit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
def send(
    event: str,
    data: dict[str, t.Any],
    id: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Send EVENT with DATA and print its id.

    DATA is a JSON object, @FILE to read it from a file, or - to read it from standard
    input; {} if it is missing. With --wait the exit code is 1 if one of the runs did
    not complete. A run of a function whose code no worker has, such as a renamed one,
    is not waited for.

    \b
    Examples:
      flask durable send media/uploaded '{"path": "a.wav"}'
      flask durable send media/uploaded @event.json --wait --timeout 5m
      jq .data event.json | flask durable send media/uploaded - --id import-17
    """
    durable = current_durable()
    event_id = durable.send(event, data, id=id)
    if not wait:
        click.echo(json.dumps({"id": event_id}) if as_json else event_id)
    try:
        audience = audience_of(event, durable.functions, current_state().directory)
    except Exception as error:
        # The event was sent all the same: through SQS that needs no state server.
        if wait or not is_unreachable(error):
            raise
        return
    for message in audience.notes():
        note(message)
    if not wait:
        return
    if not audience.functions:
        who = "worker has a function" if audience.abandoned else "function waits"
        raise CommandError(f"The event {event_id} was sent, but no {who} for it.")
    found = _follow(durable, event_id, audience, timeout)
    if as_json:
        echo_json({"id": event_id, "runs": [run_as_json(run) for run in found]})
    else:
        _print(event_id, found)
    awaited = [run for run in found if run.function not in audience.abandoned]
    if any(run.status != RunStatus.COMPLETED for run in awaited):
        click.get_current_context().exit(FAILURE)


def _follow(
    durable: Durable, event_id: str, audience: Audience, timeout: float | None
) -> list[Run]:
    sent = time.monotonic()
    pause = _FIRST_LOOK
    seen: dict[str, str] = {}
    while True:
        found = durable.runs.of_event(event_id)
        for run in found:
            _tell(run, seen)
        passed = time.monotonic() - sent
        if _complete(found, audience, passed):
            return found
        if timeout is not None and passed > timeout:
            raise CommandError(
                f"The event {event_id} was sent, but its runs were not finished after "
                f"{timeout:g} s."
            )
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_LOOK)


def _complete(found: t.Sequence[Run], audience: Audience, passed: float) -> bool:
    """Return whether all runs are there and finished."""
    functions = {run.function for run in found}
    if not audience.required <= functions:
        return False
    if not audience.functions <= functions and passed < _WORKERS_WAIT:
        return False
    return all(
        run.status.finished or run.status == RunStatus.PAUSED
        for run in found
        if run.function not in audience.abandoned
    )


def _tell(run: Run, seen: dict[str, str]) -> None:
    state = f"{run.status} ({run.reason})" if run.reason else str(run.status)
    if seen.get(run.id) != state:
        seen[run.id] = state
        note(f"{run.function}: {state}")


def _print(event_id: str, found: t.Sequence[Run]) -> None:
    note(f"event {event_id}")
    echo_table(
        ("run", "function", "status", "took", "result"),
        [
            (run.id, run.function, coloured(str(run.status)), took(run), _outcome(run))
            for run in found
        ],
    )


def _outcome(run: Run) -> str:
    if run.failure is not None:
        return f"{run.failure.type}: {run.failure.message}"
    if run.status == RunStatus.COMPLETED:
        return json.dumps(run.result, ensure_ascii=False, default=str)
    return run.reason or ""
