"""``flask durable dlq``: look at dead letters, move them back, delete them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import typing as t
from datetime import datetime

import click
from flask.cli import AppGroup

from .output import echo
from .output import echo_json
from .output import echo_table
from .output import note
from .output import style
from .parameters import Seconds
from .problems import check_text
from .problems import current_durable
from .problems import current_state
from .problems import FAILURE
from .run_json import iso
from .timeline import clock

if t.TYPE_CHECKING:
    from ..dead_letters.dead_letters import DeadLetters
    from ..dead_letters.dead_letters import Progress
    from ..dead_letters.model import DeadLetter
    from ..dead_letters.model import RedriveResult
    from ..dead_letters.selection import DeadLetterFilter

#: The number of letters from which on a progress bar is shown.
MANY = 50

dlq = AppGroup("dlq", help="List, show, redrive and purge dead letters.")

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_yes_option = click.option(
    "--yes", "-y", is_flag=True, help="Do not ask for confirmation."
)
_all_option = click.option(
    "--all", "every", is_flag=True, help="Select every dead letter of the app."
)
_ids_argument = click.argument("ids", metavar="[LETTER]...", nargs=-1)

_FILTERS = [
    click.option("--queue", metavar="NAME", help="Only letters of this queue."),
    click.option(
        "--event", metavar="NAME", help="Only letters with an event of this name."
    ),
    click.option(
        "--function", metavar="ID", help="Only letters about runs of this function."
    ),
    click.option("--run", metavar="RUN", help="Only letters about this run."),
    click.option(
        "--reason",
        metavar="TEXT",
        help="Only letters with this text in the reason or the last error.",
    ),
    click.option(
        "--older-than",
        type=Seconds(),
        metavar="DURATION",
        help="Only letters that died at least this long ago, such as 2h.",
    ),
]

F = t.TypeVar("F", bound=t.Callable[..., t.Any])


def _filters(command: F) -> F:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@dlq.command("list")
@_filters
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="The most letters to list.",
)
@_json_option
def list_command(limit: int, as_json: bool, **which: t.Any) -> None:
    """List dead letters and why they died.

    On a terminal the columns are aligned. Otherwise each letter is one line, with tabs
    between id, event or function, receive count, time of death (or of sending) and
    reason.

    \b
    Examples:
      flask durable dlq list
      flask durable dlq list --event media/uploaded --older-than 1h
      flask durable dlq list --json --limit 1000 | jq -r '.[].reason' | sort | uniq -c
    """
    letters = current_durable().dead_letters
    found = letters.list(limit=limit, **_which(which))
    if as_json:
        echo_json([letter_as_json(letter) for letter in found])
        return
    if not found:
        note("No such dead letters.")
        return
    echo_table(("letter", "about", "receives", "since", "reason"), map(_row, found))
    if len(found) == limit:
        note("There may be more; --limit N shows N.")


@dlq.command("show")
@click.argument("id", metavar="LETTER", callback=check_text)
@_json_option
def show_command(id: str, as_json: bool) -> None:
    """Show a dead letter: its message, and why it died.

    \b
    Examples:
      flask durable dlq show events/1764115200000-0
      flask durable dlq show events/1764115200000-0 --json | jq .message.data
    """
    letter = current_durable().dead_letters.get(id)
    if as_json:
        echo_json(letter_as_json(letter))
    else:
        echo("\n".join(_describe(letter)))


@dlq.command("redrive")
@_ids_argument
@_all_option
@_filters
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="The most messages to move per second.",
)
@click.option("--limit", type=click.IntRange(min=1), help="The most letters to move.")
@_yes_option
@_json_option
def redrive_command(
    ids: tuple[str, ...],
    every: bool,
    rate: float | None,
    limit: int | None,
    yes: bool,
    as_json: bool,
    **which: t.Any,
) -> None:
    """Move dead letters back into their queues, to be processed again.

    Give ids of letters, a filter, or --all. A repeat or an interruption is harmless:
    an event starts each function once.

    \b
    Examples:
      flask durable dlq redrive events/1764115200000-0
      flask durable dlq redrive --event media/uploaded --rate 20
      flask durable dlq redrive --all --yes
    """
    chosen = _choose(ids, every, which)
    letters = current_durable().dead_letters
    _confirm("Move", "back", letters, chosen, ask=not (yes or ids))
    _handle(
        "moved back",
        letters,
        chosen,
        lambda progress: letters.redrive(
            rate=rate, limit=limit, progress=progress, **chosen
        ),
        as_json,
    )


@dlq.command("purge")
@_ids_argument
@_all_option
@_filters
@_yes_option
@_json_option
def purge_command(
    ids: tuple[str, ...], every: bool, yes: bool, as_json: bool, **which: t.Any
) -> None:
    """Delete dead letters for good.

    Give ids of letters, a filter, or --all.

    \b
    Examples:
      flask durable dlq purge events/1764115200000-0
      flask durable dlq purge --reason "not JSON" --older-than 3d
      flask durable dlq purge --queue media --yes
    """
    chosen = _choose(ids, every, which)
    letters = current_durable().dead_letters
    _confirm("Delete", "for good", letters, chosen, ask=not yes)
    _handle(
        "deleted",
        letters,
        chosen,
        lambda progress: letters.purge(progress=progress, **chosen),
        as_json,
    )


@dlq.command("adopt")
@click.argument("installation")
def adopt_command(installation: str) -> None:
    """Accept messages that another INSTALLATION sent.

    An installation is one state server's data. Use this for messages sent before the
    state server was emptied: the reason of their dead letters names the installation.
    Redrive them afterwards.

    \b
    Examples:
      flask durable dlq adopt 5f0c9a7e1b2d4c6f8a9b0c1d2e3f4a5b
      flask durable dlq redrive --reason "another deployment"
    """
    try:
        current_state().installation.adopt(installation)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    echo(f"Messages of the installation {installation} are accepted from now on.")


def letter_as_json(letter: DeadLetter) -> dict[str, t.Any]:
    """Return *letter* as a JSON object; times are ISO 8601 in UTC."""
    found = {
        name: iso(value) if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(letter).items()
    }
    # Decoded, so that a program need not decode the body itself.
    return {**found, "message": _message(letter)}


def _message(letter: DeadLetter) -> t.Any:
    if letter.event is None and letter.run is None:
        return None
    return json.loads(letter.body)


def _row(letter: DeadLetter) -> tuple[str, ...]:
    return (
        letter.id,
        letter.event or letter.function or "?",
        str(letter.receives),
        clock(letter.dead or letter.sent),
        letter.reason,
    )


def _describe(letter: DeadLetter) -> list[str]:
    lines = [f"{name:<10}{value}" for name, value in _facts(letter)]
    message = _message(letter)
    body = letter.body
    if message is not None:
        body = json.dumps(message, indent=2, ensure_ascii=False)
    return [*lines, "", body]


def _facts(letter: DeadLetter) -> t.Iterator[tuple[str, str]]:
    yield "letter", style(letter.id, bold=True)
    yield "reason", style(letter.reason, fg="red")
    if letter.error is not None and letter.error not in letter.reason:
        yield "error", style(letter.error, fg="red")
    if letter.event is not None:
        yield "event", f"{letter.event} {letter.event_id}"
    if letter.run is not None:
        yield "run", f"{letter.run} of {letter.function}"
    yield "receives", str(letter.receives)
    yield "sent", f"{clock(letter.sent)} UTC"
    if letter.first_received is not None:
        yield "received", f"{clock(letter.first_received)} UTC for the first time"
    if letter.dead is not None:
        yield "dead", f"since {clock(letter.dead)} UTC"


def _which(given: dict[str, t.Any]) -> DeadLetterFilter:
    return t.cast("DeadLetterFilter", {k: v for k, v in given.items() if v is not None})


def _choose(
    ids: tuple[str, ...], every: bool, given: dict[str, t.Any]
) -> DeadLetterFilter:
    """Return the chosen letters: a slip never chooses more than was named."""
    which = _which(given)
    if bool(ids) == (every or bool(which)):
        raise click.UsageError(
            "Give ids of letters, a filter (--queue, --event, --function, --run, "
            "--reason, --older-than), or --all."
        )
    if ids:
        which["ids"] = ids
    return which


def _confirm(
    verb: str, where: str, letters: DeadLetters, which: DeadLetterFilter, *, ask: bool
) -> None:
    if not ask:
        return
    if ids := which.get("ids"):
        text = f"{verb} {len(ids)} dead letter(s) {where}?"
    else:
        count = letters.count(which.get("queue"))
        fit = " that fit" if which.keys() - {"queue"} else ""
        text = f"{verb} those{fit} of {count} dead letter(s) {where}?"
    click.confirm(text, abort=True, err=True)


def _handle(
    done: str,
    letters: DeadLetters,
    which: DeadLetterFilter,
    work: t.Callable[[Progress], RedriveResult],
    as_json: bool,
) -> None:
    """Do *work* under a progress bar, and report the result."""
    error = None
    with _progress(letters, which) as progress:
        handled = work(progress)
    if handled.error is not None:
        error = f"{handled.failed} dead letter(s) were not {done}: {handled.error}"
    elif not handled.complete:
        error = (
            "Not all dead letters were looked at: call it again. Of a FIFO queue, move "
            "or delete those that come first in their group before."
        )
    if as_json:
        echo_json(dataclasses.asdict(handled))
    else:
        echo(f"{handled.done} dead letter(s) {done}.")
    if error is not None:
        echo(error, err=True)
        click.get_current_context().exit(FAILURE)


@contextlib.contextmanager
def _progress(letters: DeadLetters, which: DeadLetterFilter) -> t.Iterator[Progress]:
    """Show a bar of the letters looked at, if there are many."""
    count = 0 if "ids" in which else letters.count(which.get("queue"))
    if count < MANY or not _for_a_person():
        yield lambda looked: None
        return
    with click.progressbar(length=count, file=sys.stderr, label="Letters") as bar:
        yield bar.update


def _for_a_person() -> bool:
    return sys.stderr.isatty()
