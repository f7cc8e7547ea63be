"""A run as text: its facts, its claims, and its steps and branches over time."""

from __future__ import annotations

import dataclasses
import json
import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from ..common.durations import format_seconds
from ..common.times import datetime_of
from ..errors import Failure
from ..errors import PayloadError
from ..store.memo import WAITS
from ..store.status import RunStatus
from .family import ALONE
from .family import counts_of
from .family import elapsed
from .family import failure_of
from .family import Family
from .family import FEW
from .output import aligned
from .output import bar_characters
from .output import style

if t.TYPE_CHECKING:
    from ..runs.model import Claim
    from ..runs.model import Run
    from ..runs.model import RunProgress
    from ..runs.model import StepRecord

T = t.TypeVar("T")

#: Characters of a bar, and of a result or message before it is cut.
BAR_WIDTH = 24
_LONGEST_TEXT = 300

_COLOURS = {
    "completed": "green",
    "done": "green",
    "failed": "red",
    "cancelled": "red",
    "lost": "red",
    "paused": "yellow",
    "retrying": "yellow",
    "tried": "yellow",
    "intent": "yellow",
    "begun": "cyan",
    "running": "cyan",
    "suspended": "cyan",
    "waiting": "cyan",
}


def coloured(status: str) -> str:
    """Return *status* in its colour."""
    return style(status, fg=_COLOURS.get(status.strip()))


def took(run: Run, now: datetime | None = None) -> str:
    """Return how long *run* took, or has taken up to *now*; empty before its start."""
    if run.started is None:
        return ""
    return format_seconds(elapsed(run, now or datetime.now(timezone.utc)))


def clock(at: datetime | None) -> str:
    """Return *at* to the second, in UTC, for a person."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def describe(run: Run, family: Family = ALONE) -> list[str]:
    """Return the lines that show *run*: facts, claims, steps as bars, failure.

    :param family: The children and branches that are shown with its steps.
    """
    now = datetime.now(timezone.utc)
    lines = [f"{name:<10}{value}" for name, value in _facts(run, now)]
    if run.claims:
        lines += ["", *aligned([_claim_row(claim) for claim in run.claims])]
    if run.steps:
        lines += ["", *_timeline(run, family, now)]
    try:
        if run.failure is not None:
            lines += ["", *_explain(run.failure, run.status)]
    except PayloadError as error:
        lines += ["", _unreadable("Its failure", error)]
    return lines


def _facts(run: Run, now: datetime) -> t.Iterator[tuple[str, str]]:
    status = coloured(str(run.status))
    if run.reason:
        status += f" ({run.reason})"
    if run.due is not None and not run.status.finished:
        status += f" until {clock(run.due)} UTC"
    if duration := took(run, now):
        status += f", {'took' if run.finished else 'for'} {duration}"
    yield "run", style(run.id, bold=True)
    yield "function", f"{run.function}, version {run.version}"
    yield "status", status
    yield "event", f"{run.event_name} {run.event_id}"
    if run.progress is not None:
        yield "progress", _progress(run.progress)
    yield "queue", run.queue
    if run.parent is not None:
        yield "parent", run.parent
    if run.branch is not None:
        yield "branch", run.branch
    if run.message_error is not None:
        yield "message", style(f"failed: {_cut(run.message_error)}", fg="yellow")
    yield "created", f"{clock(run.created)} UTC"
    if run.started:
        waited = (run.started - run.created).total_seconds()
        yield "started", f"{format_seconds(max(0.0, waited))} later"
    if run.changed_step is not None:
        text = f"{run.changed_step!r} was stored for a call with other arguments"
        yield "replay", style(_cut(text), fg="yellow")
    if run.dispatches > 1:
        yield "claims", f"{run.dispatches} without progress since"
    if run.status == "completed":
        try:
            result = json.dumps(run.result, ensure_ascii=False, default=str)
        except PayloadError as error:
            result = _unreadable("It", error)
        yield "result", _cut(result)


def _progress(progress: RunProgress) -> str:
    try:
        message = progress.message
    except PayloadError as error:
        message = _unreadable("Its message", error)
    told = f"{progress.fraction:.0%} at {clock(progress.at)} UTC"
    return f"{told}: {message}" if message else told


def _claim_row(claim: Claim) -> list[str]:
    ended = claim.ended or "running"
    return [
        f"claim {claim.number}",
        clock(claim.at),
        f"queued {format_seconds(claim.queued)}",
        "" if claim.lasted is None else f"lasted {format_seconds(claim.lasted)}",
        style(ended, fg=_COLOURS.get(ended)),
    ]


@dataclasses.dataclass(frozen=True)
class _Bar:
    """One line of the timeline: an attempt of a step, a wait, or a child.

    :param name: The text of the column of names.
    :param status: The status that gives the colour.
    :param state: The text of the column of states.
    :param light: True for a time in which nothing is executed.
    :param id: The id of a child.
    :param details: The lines below it.
    """

    name: str
    status: str
    state: str
    time: str
    started: datetime | None
    end: datetime | None
    light: bool
    id: str = ""
    details: t.Sequence[str] = ()


def _timeline(run: Run, family: Family, now: datetime) -> list[str]:
    """Return the lines of all steps; times are counted from the run's creation."""
    bars = list(_bars_of(run, family, now))
    end = max([bar.end for bar in bars if bar.end], default=now)
    span = max((end - run.created).total_seconds(), 0.001)
    rows = [_row(bar, run.created, span) for bar in bars]
    lines = []
    for line, bar in zip(aligned(rows), bars, strict=True):
        indent = len(bar.name) - len(bar.name.lstrip())
        lines += [line, *(f"{'':{10 + indent}}{detail}" for detail in bar.details)]
    return lines


def _bars_of(run: Run, family: Family, now: datetime) -> t.Iterator[_Bar]:
    for step in run.steps:
        yield from _bars_of_step(step, _name_in(run, step.name), family, now)
        for child in family.shown(step):
            name = _name_in(run, child.branch or child.function)
            yield _bar_of_child(child, f"  {name}", now)
            if child.id in family.inner:
                for bar in _bars_of(*family.inner[child.id], now):
                    yield dataclasses.replace(bar, name=f"    {bar.name}")


def _name_in(run: Run, name: str) -> str:
    """Return *name* without that of the branch whose picture it is in."""
    return name.removeprefix(f"{run.branch}/")


def _bars_of_step(
    step: StepRecord, name: str, family: Family, now: datetime
) -> t.Iterator[_Bar]:
    named = name if step.kind == "run" else f"{name} ({step.kind})"
    for attempt in step.attempts:
        if attempt.number < step.attempt:
            took = timedelta(seconds=attempt.duration)
            yield _Bar(
                named,
                "tried",
                f"tried, attempt {attempt.number}",
                format_seconds(attempt.duration),
                attempt.started,
                attempt.started + took,
                light=False,
            )
    # An attempt that is under way has left no time yet.
    known = step.started is not None and step.status not in ("intent", "begun")
    state = step.status + (f", attempt {step.attempt}" if step.attempt > 1 else "")
    if step.looks is not None:
        state += f", {step.looks} look{'' if step.looks == 1 else 's'}"
    yield _Bar(
        named,
        step.status,
        state,
        _time_of(step) if known or step.due else "",
        step.started if known else None,
        _end_of(step, now) if known else None,
        light=step.kind in WAITS or step.status == "waiting",
        details=list(_details_of(step, family)),
    )


def _bar_of_child(child: Run, name: str, now: datetime) -> _Bar:
    state = str(child.status)
    if child.progress is not None and child.status == RunStatus.RUNNING:
        state += f", {child.progress.fraction:.0%}"
    details = list(_details_of_child(child))
    if child.reason and child.status == RunStatus.SUSPENDED:
        state += f" ({child.reason})"
    due = child.due if child.status == RunStatus.SUSPENDED else None
    return _Bar(
        name,
        str(child.status),
        state,
        f"until {clock(due)}" if due else took(child, now),
        child.started,
        None if child.started is None else child.finished or now,
        light=child.status in (RunStatus.SUSPENDED, RunStatus.QUEUED),
        id=child.id,
        details=details,
    )


def _details_of(step: StepRecord, family: Family) -> t.Iterator[str]:
    children = family.of(step)
    if step.child is not None and not children:
        yield f"run {step.child}, which was removed"
    if len(children) > FEW:
        counts = counts_of(children).items()
        told = ", ".join(f"{count:,} {status}" for status, count in counts)
        yield f"{len(children):,} branches: {told}"
    try:
        if step.about is not None:
            yield _cut(_awaited(step.about))
    except PayloadError as error:
        yield _unreadable("What it waits for", error)
    try:
        if step.failure is not None:
            yield _one_line(step.failure)
        if step.checkpoint is not None:
            text = json.dumps(step.checkpoint, ensure_ascii=False)
            yield _cut(f"checkpoint: {text}")
    except PayloadError as error:
        yield _unreadable("It", error)


def _details_of_child(child: Run) -> t.Iterator[str]:
    # The reason of one that is suspended is a word, and that of a branch that was
    # cancelled is the same for all.
    told = child.status == RunStatus.CANCELLED and child.branch is None
    if child.reason and (told or child.status == RunStatus.PAUSED):
        yield _cut(child.reason)
    try:
        if (failure := failure_of(child)) is not None:
            yield _one_line(failure)
    except PayloadError as error:
        yield _unreadable("Its failure", error)


def _row(bar: _Bar, begin: datetime, span: float) -> list[str]:
    if bar.started is None or bar.end is None:
        state = style(bar.state, fg=_COLOURS.get(bar.status)) if bar.id else bar.state
        return [" " * 8, bar.name, state, bar.time, "", bar.id]
    offset = max(0.0, (bar.started - begin).total_seconds())
    length = max(0.0, (bar.end - bar.started).total_seconds())
    start = min(int(offset / span * BAR_WIDTH), BAR_WIDTH - 1)
    width = max(1, min(round(length / span * BAR_WIDTH), BAR_WIDTH - start))
    full, light = bar_characters()
    drawn = " " * start + (light if bar.light else full) * width
    colour = _COLOURS.get(bar.status)
    return [
        f"{'+' + format_seconds(offset):>8}",
        bar.name,
        style(bar.state, fg=colour),
        bar.time,
        style(drawn, fg=colour),
        bar.id,
    ]


def _awaited(about: dict[str, t.Any]) -> str:
    """Return what a step waits for, or the address that it made, for a person."""
    if "ends" in about:
        until = f"an address that works until {clock(datetime_of(about['ends']))}"
        return f"{until}: {about['title']}" if "title" in about else until
    wanted = about.get("match", {})
    parts = [f"{path} = {json.dumps(value)}" for path, value in wanted.items()]
    what = about.get("event")
    if what is None:
        told = [f"{key} {value}" for key, value in about.items() if key != "match"]
        what = ", ".join(told)
    return what + (f" where {' and '.join(parts)}" if parts else "")


def _time_of(step: StepRecord) -> str:
    if step.due is not None and step.status in ("waiting", "retrying"):
        return f"until {clock(step.due)}"
    return "" if step.duration is None else format_seconds(step.duration)


def _end_of(step: StepRecord, now: datetime) -> datetime:
    assert step.started is not None
    if step.duration is not None:
        return step.started + timedelta(seconds=step.duration)
    # A sleep that goes on must not squeeze the rest into one character.
    return now if step.due is None else min(now, step.due)


def _explain(failure: Failure, status: str) -> list[str]:
    where = f"step {failure.step!r}" if failure.step else "the function's body"
    what = "Failed" if status == "failed" else "Last error"
    lines = [style(f"{what} in {where}, attempt {failure.attempt}:", fg="red")]
    text = failure.traceback or f"{failure.type}: {failure.message}"
    return lines + [f"  {line}" for line in text.rstrip().splitlines()]


def _one_line(failure: Failure) -> str:
    return _cut(f"{failure.type}: {' '.join(failure.message.split())}")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _unreadable(what: str, error: PayloadError) -> str:
    return f"{what} cannot be read ({error.code}): {error}"
