"""The progress of a recording's run, for the page and for the terminal."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from flask_durable import DurableError

from . import rehearsal
from .functions import durable
from .functions import transcribe_audio
from .models import Recording
from .models import Status

if t.TYPE_CHECKING:
    from flask_durable import Run
    from flask_durable import StepRecord

#: The steps of a run, and their names for a reader.
STEPS = {
    "fetch-audio-metadata": "Read the file",
    "transcode": "Prepare the stream",
    "split": "Cut it at its pauses",
    "chunks": "Recognise the words",
    "join": "Join the words",
    "embed": "Compute its likeness",
    "index": "Make it searchable",
    "ask-owner": "Ask the owner",
    "approval": "Wait for the owner",
    "publish": "Publish it",
}


@dataclass(frozen=True)
class StepProgress:
    """One step as a reader sees it.

    :param state: The word ``"waiting"``, ``"running"``, ``"retrying"``, ``"asking"``
        (its owner), ``"done"``, ``"failed"`` or, where the run ended before it,
        ``"skipped"``.
    :param detail: The seconds that it took, or another word on its state.
    :param note: The last error on the way, or an empty text.
    """

    name: str
    label: str
    state: str
    detail: str
    note: str = ""


@dataclass(frozen=True)
class Progress:
    """The progress of a recording's run.

    :param percent: The part of the words that is recognised.
    """

    status: str
    finished: bool
    percent: int
    steps: list[StepProgress]


@dataclass(frozen=True)
class Chunks:
    """The chunks of a run, each of which is a branch with a progress of its own."""

    branches: t.Sequence[Run]

    @property
    def total(self) -> int:
        """The number of chunks."""
        return len(self.branches)

    @property
    def done(self) -> int:
        """The number of chunks that have their words."""
        return sum(branch.status == "completed" for branch in self.branches)

    @property
    def claims(self) -> int:
        """The number of times that a worker took one of them."""
        return sum(branch.dispatches for branch in self.branches)

    @property
    def percent(self) -> int:
        """The part that is recognised, from what ``current_run.progress`` was told."""
        parts = [
            1.0 if branch.status == "completed"
            else branch.progress.fraction if branch.progress
            else 0.0
            for branch in self.branches
        ]  # fmt: skip
        return int(100 * sum(parts) / len(parts)) if parts else 0


def run_of(recording_id: str) -> Run | None:
    """Return a recording's run, or ``None`` if there is none or it cannot be read."""
    try:
        for run in durable.runs.of_event(recording_id):
            if run.function == transcribe_audio.id:
                return durable.runs.get(run.id)  # with its steps
    except DurableError:
        pass  # the page shows what the database knows
    return None


def chunks_of(run: Run | None) -> Chunks:
    """Return the chunks of a run, once it has some."""
    if run is None or "chunks" not in {step.name for step in run.steps}:
        return Chunks([])
    try:
        return Chunks(durable.runs.list(parent=run.id, limit=1000))
    except DurableError:
        return Chunks([])


def progress_of(recording: Recording) -> Progress:
    """Return the progress of a recording."""
    run = run_of(recording.id)
    chunks = chunks_of(run)
    status = recording.status
    if run is not None and run.status in ("cancelled", "paused"):
        status = run.status.value
    elif status == Status.PUBLISHED and run is not None and not run.status.finished:
        status = Status.PROCESSING.value
    finished = status not in (Status.QUEUED, Status.PROCESSING, Status.REVIEW)
    return Progress(status, finished, chunks.percent, _steps(run, chunks, recording))


def _steps(run: Run | None, chunks: Chunks, recording: Recording) -> list[StepProgress]:
    records = {record.name: record for record in run.steps} if run else {}
    busy = run is not None and run.status in ("running", "suspended")
    unreached = "skipped" if run is not None and run.status.finished else "waiting"
    if run is None and recording.status == Status.PUBLISHED:
        unreached = "done"  # so long ago that its run has been removed
    steps: list[StepProgress] = []
    for name, label in STEPS.items():
        record = records.get(name)
        if record is not None:
            state = _state(record, run)
        else:
            state = "running" if busy else unreached
        detail = _detail(record, chunks) or state
        note = _note(record)
        if name == "chunks" and rehearsal.was_killed(recording.id):
            goes = "went" if state == "done" else "goes"
            note = f"The worker was killed here; another one {goes} on."
        steps.append(StepProgress(name, label, state, detail, note))
        # One step at a time: those after one that is not done wait.
        busy = busy and state == "done"
    return steps


def _state(record: StepRecord, run: Run | None) -> str:
    if record.status in ("done", "failed"):
        return record.status
    if run is None or run.status.finished:
        return "skipped"
    if record.status == "waiting":
        return "asking" if record.kind == "url" else "running"
    return "running" if run.status == "running" else "retrying"


def _detail(record: StepRecord | None, chunks: Chunks) -> str:
    if record is None:
        return ""
    if record.status == "done" and record.duration is not None:
        return _time(record.duration)
    if record.kind == "group":
        return f"{chunks.done} of {chunks.total}"
    if record.due is not None:
        return f"until {record.due:%-d %B}"
    return ""


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _note(record: StepRecord | None) -> str:
    if record is None:
        return ""
    attempt = f" Attempt {record.attempt}." if record.attempt > 1 else ""
    return (record.failure.message if record.failure else "") + attempt
