"""A run as text and as JSON: its facts, its claims, and its steps over time."""

from __future__ import annotations

import dataclasses
import json
import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from ..common.durations import format_seconds
from ..errors import Failure
from ..errors import PayloadError
from ..store.memo import WAITS
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
    "waiting": "cyan",
}


def run_as_json(run: Run, *, steps: bool = True) -> dict[str, t.Any]:
    """Return *run* as a JSON object; times are ISO 8601 in UTC.

    A value that cannot be opened is ``null`` there, and listed in ``unreadable``.
    """
    reader = _Reader()
    event = reader.read("event", lambda: run.event)
    found: dict[str, t.Any] = {
        "id": run.id,
        "function": run.function,
        "status": str(run.status),
        "reason": run.reason,
        "due": iso(run.due),
        "event": {
            "id": run.event_id,
            "name": run.event_name,
            "at": iso(event.at) if event else None,
            "data": event.data if event else None,
        },
        "queue": run.queue,
        "parent": run.parent,
        "created": iso(run.created),
        "started": iso(run.started),
        "finished": iso(run.finished),
        "result": reader.read("result", lambda: run.result),
        "failure": reader.read("failure", lambda: _failure(run.failure)),
        "dispatches": run.dispatches,
        "attempt": run.attempt,
        "version": run.version,
        "message_error": run.message_error,
        "changed_step": run.changed_step,
        "progress": _progress_as_json(run.progress, reader),
    }
    if steps:
        found["steps"] = [_step_as_json(step, reader) for step in run.steps]
        found["claims"] = [_claim_as_json(claim) for claim in run.claims]
    if reader.unreadable:
        found["unreadable"] = reader.unreadable
    return found


def coloured(status: str) -> str:
    """Return *status* in its colour."""
    return style(status, fg=_COLOURS.get(status.strip()))


def took(run: Run, now: datetime | None = None) -> str:
    """Return how long *run* took, or has taken up to *now*; empty before its start."""
    if run.started is None:
        return ""
    end = run.finished or now or datetime.now(timezone.utc)
    return format_seconds(max(0.0, (end - run.started).total_seconds()))


def clock(at: datetime | None) -> str:
    """Return *at* to the second, in UTC, for a person."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def describe(run: Run, children: t.Sequence[Run] = ()) -> list[str]:
    """Return the lines that show *run*: facts, claims, steps as bars, failure.

    :param children: The runs that it invoked, whose states are shown with their steps.
    """
    now = datetime.now(timezone.utc)
    lines = [f"{name:<10}{value}" for name, value in _facts(run, now)]
    if run.claims:
        lines += ["", *aligned([_claim_row(claim) for claim in run.claims])]
    if run.steps:
        lines += ["", *_timeline(run, now, {child.id: child for child in children})]
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


def _timeline(run: Run, now: datetime, children: t.Mapping[str, Run]) -> list[str]:
    """Return a line for each attempt of each step, counted from the run's creation."""
    bars = [bar for step in run.steps for bar in _bars_of(step, now)]
    end = max([bar.end for bar in bars if bar.end], default=now)
    span = max((end - run.created).total_seconds(), 0.001)
    rows = [_row(bar, run.created, span) for bar in bars]
    lines = []
    for line, bar in zip(aligned(rows), bars, strict=True):
        lines.append(line)
        step = bar.step
        if not bar.last:
            continue
        if step.child is not None:
            lines.append(f"{'':10}{_child(step.child, children.get(step.child))}")
        try:
            if step.about is not None:
                lines.append(f"{'':10}{_cut(_awaited(step.about))}")
        except PayloadError as error:
            lines.append(f"{'':10}{_unreadable('What it waits for', error)}")
        try:
            if step.failure is not None:
                lines.append(f"{'':10}{_one_line(step.failure)}")
            if step.checkpoint is not None:
                text = json.dumps(step.checkpoint, ensure_ascii=False)
                lines.append(_cut(f"{'':10}checkpoint: {text}"))
        except PayloadError as error:
            lines.append(f"{'':10}{_unreadable('It', error)}")
    return lines


@dataclasses.dataclass(frozen=True)
class _Bar:
    """One line of the timeline: an attempt of a step, or a wait.

    :param last: True for the last one of its step, whose state is the step's.
    """

    step: StepRecord
    number: int
    status: str
    time: str
    started: datetime | None
    end: datetime | None
    last: bool


def _bars_of(step: StepRecord, now: datetime) -> t.Iterator[_Bar]:
    for attempt in step.attempts:
        if attempt.number < step.attempt:
            took = timedelta(seconds=attempt.duration)
            yield _Bar(
                step,
                attempt.number,
                "tried",
                format_seconds(attempt.duration),
                attempt.started,
                attempt.started + took,
                last=False,
            )
    # An attempt that is under way has left no time yet.
    known = step.started is not None and step.status not in ("intent", "begun")
    yield _Bar(
        step,
        step.attempt,
        step.status,
        _time_of(step) if known or step.due else "",
        step.started if known else None,
        _end_of(step, now) if known else None,
        last=True,
    )


def _row(bar: _Bar, begin: datetime, span: float) -> list[str]:
    step = bar.step
    state = bar.status + (f", attempt {bar.number}" if step.attempt > 1 else "")
    if bar.started is None or bar.end is None:
        return [" " * 8, _named(step), state, bar.time, ""]
    offset = max(0.0, (bar.started - begin).total_seconds())
    length = max(0.0, (bar.end - bar.started).total_seconds())
    start = min(int(offset / span * BAR_WIDTH), BAR_WIDTH - 1)
    width = max(1, min(round(length / span * BAR_WIDTH), BAR_WIDTH - start))
    full, light = bar_characters()
    drawn = " " * start + (light if step.kind in WAITS else full) * width
    colour = _COLOURS.get(bar.status)
    return [
        f"{'+' + format_seconds(offset):>8}",
        _named(step),
        style(state, fg=colour),
        bar.time,
        style(drawn, fg=colour),
    ]


def _child(id: str, child: Run | None) -> str:
    if child is None:
        return f"run {id}, which was removed"
    reason = f" ({child.reason})" if child.reason else ""
    return f"run {id} of {child.function}: {coloured(str(child.status))}{reason}"


def _awaited(about: dict[str, t.Any]) -> str:
    """Return what a step waits for, for a person."""
    wanted = about.get("match", {})
    parts = [f"{path} = {json.dumps(value)}" for path, value in wanted.items()]
    what = about.get("event") or f"signal {about['signal']}"
    return what + (f" where {' and '.join(parts)}" if parts else "")


def _named(step: StepRecord) -> str:
    return step.name if step.kind == "run" else f"{step.name} ({step.kind})"


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


def _step_as_json(step: StepRecord, reader: _Reader) -> dict[str, t.Any]:
    place = f"steps[{step.name!r}]"
    return {
        "name": step.name,
        "kind": step.kind,
        "status": step.status,
        "attempt": step.attempt,
        "started": iso(step.started),
        "duration": step.duration,
        "due": iso(step.due),
        "child": step.child,
        "attempts": [
            {**dataclasses.asdict(attempt), "started": iso(attempt.started)}
            for attempt in step.attempts
        ],
        "about": reader.read(f"{place}.about", lambda: step.about),
        "value": reader.read(f"{place}.value", lambda: step.value),
        "failure": reader.read(f"{place}.failure", lambda: _failure(step.failure)),
        "checkpoint": reader.read(f"{place}.checkpoint", lambda: step.checkpoint),
    }


def _progress_as_json(
    progress: RunProgress | None, reader: _Reader
) -> dict[str, t.Any] | None:
    if progress is None:
        return None
    return {
        "fraction": progress.fraction,
        "message": reader.read("progress.message", lambda: progress.message),
        "at": iso(progress.at),
    }


def _claim_as_json(claim: Claim) -> dict[str, t.Any]:
    return {**dataclasses.asdict(claim), "at": iso(claim.at)}


class _Reader:
    """Opens values of a run, and collects the errors of those that cannot be opened."""

    def __init__(self) -> None:
        self.unreadable: list[dict[str, str]] = []

    def read(self, field: str, value: t.Callable[[], T]) -> T | None:
        try:
            return value()
        except PayloadError as error:
            fault = {"field": field, "code": error.code, "message": str(error)}
            self.unreadable.append(fault)
            return None


def _unreadable(what: str, error: PayloadError) -> str:
    return f"{what} cannot be read ({error.code}): {error}"


def _failure(failure: Failure | None) -> dict[str, t.Any] | None:
    return None if failure is None else dataclasses.asdict(failure)


def iso(at: datetime | None) -> str | None:
    """Return *at* as ISO 8601 in UTC, for a program."""
    return None if at is None else at.astimezone(timezone.utc).isoformat()
