"""A run as JSON, for programs: times are ISO 8601 in UTC."""

from __future__ import annotations

import dataclasses
import typing as t
from datetime import datetime
from datetime import timezone

from ..errors import Failure
from ..errors import PayloadError
from .family import ALONE
from .family import counts_of
from .family import failure_of
from .family import Family

if t.TYPE_CHECKING:
    from ..runs.model import Claim
    from ..runs.model import Run
    from ..runs.model import RunProgress
    from ..runs.model import StepRecord

T = t.TypeVar("T")


def run_as_json(
    run: Run, family: Family = ALONE, *, steps: bool = True
) -> dict[str, t.Any]:
    """Return *run* as a JSON object.

    A value that cannot be opened is ``null`` there, and listed in ``unreadable``.

    :param family: The children and branches that are shown with its steps.
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
        "parent_step": run.parent_step,
        "branch": run.branch,
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
        found["steps"] = [_step_as_json(step, family, reader) for step in run.steps]
        found["claims"] = [_claim_as_json(claim) for claim in run.claims]
    if reader.unreadable:
        found["unreadable"] = reader.unreadable
    return found


def _step_as_json(
    step: StepRecord, family: Family, reader: _Reader
) -> dict[str, t.Any]:
    place = f"steps[{step.name!r}]"
    children = family.of(step)
    shown = [_child_as_json(child, family) for child in family.shown(step)]
    return {
        "name": step.name,
        "kind": step.kind,
        "status": step.status,
        "attempt": step.attempt,
        "started": iso(step.started),
        "duration": step.duration,
        "due": iso(step.due),
        "child": step.child,
        "looks": step.looks,
        "branches": counts_of(children) if step.kind == "group" else None,
        "children": shown,
        "attempts": [
            {**dataclasses.asdict(attempt), "started": iso(attempt.started)}
            for attempt in step.attempts
        ],
        "about": reader.read(f"{place}.about", lambda: step.about),
        "value": reader.read(f"{place}.value", lambda: step.value),
        "failure": reader.read(f"{place}.failure", lambda: _failure(step.failure)),
        "checkpoint": reader.read(f"{place}.checkpoint", lambda: step.checkpoint),
    }


def _child_as_json(child: Run, family: Family) -> dict[str, t.Any]:
    reader = _Reader()
    found: dict[str, t.Any] = {
        "id": child.id,
        "function": child.function,
        "branch": child.branch,
        "status": str(child.status),
        "reason": child.reason,
        "due": iso(child.due),
        "created": iso(child.created),
        "started": iso(child.started),
        "finished": iso(child.finished),
        "failure": reader.read("failure", lambda: _failure(failure_of(child))),
        "progress": _progress_as_json(child.progress, reader),
    }
    if child.id in family.inner:
        whole, inner = family.inner[child.id]
        found["steps"] = [_step_as_json(step, inner, reader) for step in whole.steps]
    if reader.unreadable:
        found["unreadable"] = reader.unreadable
    return found


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


def _failure(failure: Failure | None) -> dict[str, t.Any] | None:
    return None if failure is None else dataclasses.asdict(failure)


def iso(at: datetime | None) -> str | None:
    """Return *at* as ISO 8601 in UTC, for a program."""
    return None if at is None else at.astimezone(timezone.utc).isoformat()
