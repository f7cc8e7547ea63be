"""``flask durable stats``: numbers, outcomes and durations of runs."""

from __future__ import annotations

import math
import typing as t

import click
from flask.cli import with_appcontext

from ..common.durations import format_seconds
from .output import echo_json
from .output import echo_table
from .output import note
from .parameters import Seconds
from .problems import check_text
from .problems import current_state

if t.TYPE_CHECKING:
    from ..app.state import AppState
    from ..store.measurements.histogram import Histogram
    from ..store.measurements.hourly import Measure

#: Hours for which counts and times are kept, without the present one.
_KEPT_HOURS = 191

#: The times shown of each function, and the measures that each is the sum of.
_TIMES: t.Final[dict[str, tuple[Measure, ...]]] = {
    "run": ("run",),
    "step": ("step",),
    "queue_wait": ("wait",),
    "service": ("done", "failed"),
}
_PERCENTILES = (50, 95, 99)
_COUNTS = ("started", "completed", "failed", "cancelled")


@click.command("stats")
@click.option(
    "--function", metavar="ID", callback=check_text, help="Only runs of this function."
)
@click.option(
    "--since",
    type=Seconds(),
    default="24h",
    show_default=True,
    help="The period to show, at most 191h, rounded up to whole hours of the clock.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
def stats(function: str | None, since: float, as_json: bool) -> None:
    """Show counts, failure rates and durations of runs.

    Durations are p50/p95/p99. "run" is a run from creation to end, "step" is one
    attempt of a step, "queue wait" is the wait in the queue before each claim, and
    "service" is the time for which a delivery held its run thread.

    \b
    Examples:
      flask durable stats
      flask durable stats --function transcribe_audio --since 2h --json
    """
    hours = math.ceil(since / 3600)
    if not 1 <= hours <= _KEPT_HOURS:
        raise click.BadParameter(
            f"must be more than 0s and at most {_KEPT_HOURS}h", param_hint="--since"
        )
    found = _stats(current_state(), function, hours)
    if as_json:
        echo_json(found)
    elif found:
        headers = (what.replace("_", " ") for what in _TIMES)
        echo_table(("function", *_COUNTS, "failures", *headers), map(_row, found))
    else:
        note("No runs in that time.")


def _stats(state: AppState, function: str | None, hours: int) -> list[dict[str, t.Any]]:
    """Return the numbers of each function, sorted by its name."""
    counts = state.run_counts.since(hours)
    names = sorted(counts) if function is None else [function] * (function in counts)
    times = {
        what: _merged(state, parts, names, hours) for what, parts in _TIMES.items()
    }
    return [
        {
            "function": name,
            **{what: counts[name][what] for what in _COUNTS},
            "failure_rate": _failure_rate(counts[name]),
            **{what: _as_json(times[what][name]) for what in _TIMES},
        }
        for name in names
    ]


def _merged(
    state: AppState, measures: t.Iterable[Measure], names: t.Sequence[str], hours: int
) -> dict[str, Histogram]:
    """Return the sum of *measures* over this hour and *hours* before it."""
    first, *others = (
        state.histograms.read(measure, names, [1.0] * (hours + 1))
        for measure in measures
    )
    for other in others:
        for name in names:
            first[name].merge(other[name])
    return first


def _failure_rate(counts: t.Mapping[str, int]) -> float | None:
    """Return the share of failures among completed and failed runs, if any."""
    ended = counts["completed"] + counts["failed"]
    return counts["failed"] / ended if ended else None


def _as_json(histogram: Histogram) -> dict[str, t.Any] | None:
    """Return the percentiles in seconds, or ``None`` without a measurement."""
    if not histogram.samples:
        return None
    percentiles = {
        f"p{percent}": histogram.quantile(percent / 100) for percent in _PERCENTILES
    }
    return {"count": int(histogram.samples), **percentiles}


def _row(found: t.Mapping[str, t.Any]) -> list[str]:
    rate = found["failure_rate"]
    return [
        found["function"],
        *(str(found[what]) for what in _COUNTS),
        "-" if rate is None else f"{rate:.1%}",
        *(_percentiles(found[what]) for what in _TIMES),
    ]


def _percentiles(times: t.Mapping[str, t.Any] | None) -> str:
    if times is None:
        return "-"
    return "/".join(format_seconds(times[f"p{percent}"]) for percent in _PERCENTILES)
