"""``flask durable scale``: as many workers as the queues need."""

from __future__ import annotations

import dataclasses
import functools
import signal
import time
import typing as t

import click
import redis
from flask.cli import AppGroup
from flask.cli import with_appcontext

from ..common.safe_logging import hand_to_teller
from ..common.safe_logging import telling
from ..errors import ConfigurationError
from ..errors import PlatformError
from ..observe.formats import set_up
from .output import echo
from .output import echo_json
from .output import end
from .output import note
from .output import style
from .parameters import log_format_option
from .parameters import Seconds
from .problems import current_state
from .simulate import simulate

if t.TYPE_CHECKING:
    from ..app.state import AppState
    from ..observe.formats import LogFormat
    from ..scaler.scaler import Report
    from ..scaler.scaler import Scaler

#: Exit codes, for cron; 2 is that of wrong usage.
PLATFORM = 3
SENSOR = 4
INFEASIBLE = 5
LOCKED = 75

#: Seconds between two looks of a loop while no worker is up, so that a first job does
#: not wait for the whole period.
_EMPTY_PERIOD = 1.0


@click.group("scale", cls=AppGroup, invoke_without_command=True)
@click.option(
    "--queue",
    "-q",
    "name",
    metavar="NAME",
    help="The pool to scale, by its name or one of its queues.",
)
@click.option("--all", "every", is_flag=True, help="Scale every pool of DURABLE_SCALE.")
@click.option("--dry-run", is_flag=True, help="Print the decision and change nothing.")
@click.option("--explain", is_flag=True, help="Print the reasons of the decision.")
@click.option("--quiet", is_flag=True, help="Print changes and problems only.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print each decision as a line of JSON."
)
@click.option(
    "--loop",
    type=Seconds(above_zero=True),
    metavar="EVERY",
    help="Repeat at this interval until SIGTERM or Ctrl-C.",
)
@click.option(
    "--history",
    type=click.IntRange(1),
    metavar="N",
    help="Print the last N decisions and change nothing.",
)
@click.option(
    "--set",
    "order",
    type=click.IntRange(0),
    metavar="N",
    help="Fix the pool at N workers.",
)
@click.option("--pause", is_flag=True, help="Keep the pool at its present size.")
@click.option("--resume", is_flag=True, help="End an earlier --set or --pause.")
@click.option(
    "--for",
    "seconds",
    type=Seconds(above_zero=True),
    default="1h",
    show_default=True,
    help="The time for which --set or --pause holds.",
)
@log_format_option
@click.pass_context
@with_appcontext
def scale(
    context: click.Context,
    /,
    name: str | None,
    every: bool,
    order: int | None,
    pause: bool,
    resume: bool,
    seconds: float,
    history: int | None,
    loop: float | None,
    log_format: LogFormat | None,
    **how: bool,
) -> None:
    """Give each pool the workers that it needs, once or in a loop.

    Workers ≈ jobs × mean service time / desired wait, corrected for running jobs, the
    boot times of workers and the ages of jobs. DURABLE_SCALE names the pools.

    \b
    Exit codes: 0 done or held, 2 wrong configuration, 3 the platform refused, 4 the
    servers did not answer, 5 no number of workers is enough, 75 another scaler is at
    work.

    \b
    Examples:
      flask durable scale --queue media
      flask durable scale --all --loop 15s
      flask durable scale --queue media --dry-run --explain
      flask durable scale --queue media --set 5 --for 2h
    """
    if context.invoked_subcommand is not None:
        return
    state = current_state()
    if log_format is not None:
        set_up(state.app.logger, log_format)
    scalers = _scalers(state, name, every, loop)
    if order is not None or pause or resume:
        if how["dry_run"]:
            raise click.UsageError(
                "--dry-run cannot be used with --set, --pause or --resume."
            )
        _order(scalers, order, resume, seconds)
    elif history is not None:
        _show_history(scalers, history, how["as_json"])
    elif loop is not None:
        _loop(scalers, loop, **how)
    else:
        worst = max(_run(scaler, **how) for scaler in scalers)
        context.exit(worst)


scale.add_command(simulate)


def _scalers(
    state: AppState, name: str | None, every: bool, period: float | None
) -> list[Scaler]:
    """Return the scalers of the chosen pools, with *period* instead of their own."""
    from ..app.scaling import make_scaler

    if every == (name is not None):
        raise click.UsageError("Give either --queue or --all.")
    pools = [
        pool
        for pool in state.settings.scale
        if every or name == pool.name or name in pool.queues
    ]
    if not pools:
        known = ", ".join(pool.name for pool in state.settings.scale) or "none"
        raise click.UsageError(
            f"DURABLE_SCALE has no pool for {name or '--all'}; there are: {known}."
        )
    if period is not None:
        pools = [dataclasses.replace(pool, period=period) for pool in pools]
    try:
        return [make_scaler(state, pool) for pool in pools]
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


# -- One run -------------------------------------------------------------------------


def _run(
    scaler: Scaler, *, dry_run: bool, explain: bool, quiet: bool, as_json: bool
) -> int:
    """Run one scaler, print the result, and return the exit code."""
    from ..scaler.scaler import Busy

    name = scaler.options.name
    try:
        report = scaler.run(dry=dry_run)
    except Busy:
        note(f"{name}: another scaler is at work.")
        return LOCKED
    except PlatformError as error:
        note(f"{name}: {error}")
        return PLATFORM
    except redis.RedisError as error:
        note(f"{name}: unchanged, the state server does not answer: {error}")
        return SENSOR
    hand_to_teller(
        functools.partial(_print, report, explain=explain, quiet=quiet, as_json=as_json)
    )
    if report.error is not None:
        return PLATFORM
    if report.record["observation"]["failure"] is not None:
        return SENSOR
    return INFEASIBLE if report.decision.verdicts else 0


def _print(report: Report, *, explain: bool, quiet: bool, as_json: bool) -> None:
    from ..scaler.records import complaints
    from ..scaler.records import explanation
    from ..scaler.records import headline

    record = report.record
    problems = complaints(record)
    if as_json:
        echo_json(record)
    elif not quiet or problems or report.decision.action != "hold":
        echo(headline(record))
        for line in explanation(record) if explain else ():
            echo(f"  {line}")
        for line in problems:
            echo(style(f"  ! {line}", fg="yellow"))


def _loop(scalers: list[Scaler], period: float, **how: bool) -> None:
    """Run until a signal. While no worker is up, look more often for waiting jobs."""
    # Not an Event: this thread may hold its lock when a handler sets it.
    signals: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, _: signals.append(number))
    # Scaling goes on if nobody reads what it prints.
    with telling():
        for scaler in _turns(scalers, period):
            if signals:
                end(0)
            if scaler is not None:
                _run(scaler, **how)


def _turns(scalers: t.Sequence[Scaler], period: float) -> t.Iterator[Scaler | None]:
    """Yield the scaler whose turn it is, for ever; at least every second ``None``.

    A scaler with waiting jobs and no worker comes early, but only once in a period: if
    the pool may not have a worker, another look does not help.
    """
    while True:
        yield from scalers
        patient, left = list(scalers), period
        while left > 0:
            time.sleep(min(left, _EMPTY_PERIOD))
            left -= _EMPTY_PERIOD
            yield None
            for scaler in [s for s in patient if s.is_needed()]:
                patient.remove(scaler)
                yield scaler


# -- Orders of a person, and the history ---------------------------------------------


def _order(
    scalers: list[Scaler], workers: int | None, resume: bool, seconds: float
) -> None:
    from ..scaler.pool_state import Hold

    for scaler in scalers:
        name = scaler.options.name
        if resume:
            there = scaler.pool_state.resume()
            echo(f"{name}: {'resumed' if there else 'there was no --set or --pause'}")
            continue
        what = "paused" if workers is None else f"set to {workers}"
        scaler.pool_state.order(Hold(workers, f"{what} by hand"), seconds)
        echo(f"{name}: {what} for {seconds:g} s, from the next run on")


def _show_history(scalers: list[Scaler], limit: int, as_json: bool) -> None:
    from datetime import datetime

    from ..scaler.records import complaints
    from ..scaler.records import headline

    for scaler in scalers:
        for record in scaler.pool_state.history(limit):
            if as_json:
                echo_json(record)
                continue
            time = datetime.fromtimestamp(record["time"]).isoformat(" ", "seconds")
            echo(f"{time}  {headline(record)}")
            for line in complaints(record):
                echo(f"    ! {line}")
