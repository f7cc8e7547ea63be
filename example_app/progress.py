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

#: The steps of a transcription, and their names for a reader.
STEPS = {
    "fetch-audio-metadata": "Read the file",
    "transcode": "Prepare the stream",
    "transcribe": "Recognise the words",
    "index": "Make it searchable",
    "notify-user": "Notify the owner",
}


@dataclass(frozen=True)
class StepProgress:
    """One step as a reader sees it.

    :param state: The word ``"waiting"``, ``"running"``, ``"retrying"``, ``"done"``,
        ``"failed"`` or, where the run ended before it, ``"skipped"``.
    :param seconds: The seconds that it took, when it is done.
    :param note: The last error on the way, or an empty text.
    """

    name: str
    label: str
    state: str
    attempt: int = 1
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Progress:
    """The progress of a recording's run."""

    status: str
    finished: bool
    percent: int
    steps: list[StepProgress]


def run_of(recording_id: str) -> Run | None:
    """Return a recording's run, or ``None`` if there is none or it cannot be read."""
    try:
        for run in durable.runs.of_event(recording_id):
            if run.function == transcribe_audio.id:
                return durable.runs.get(run.id)  # with its steps
    except DurableError:
        pass  # the page shows what the database knows
    return None


def progress_of(recording: Recording) -> Progress:
    """Return the progress of a recording."""
    run = run_of(recording.id)
    steps = _steps(run, recording)
    status = recording.status
    if run is not None and run.status in ("cancelled", "paused"):
        status = run.status.value
    elif status == Status.READY and run is not None and not run.status.finished:
        status = Status.PROCESSING.value
    finished = status not in (Status.QUEUED, Status.PROCESSING)
    return Progress(status, finished, recording.percent, steps)


def _steps(run: Run | None, recording: Recording) -> list[StepProgress]:
    records = {record.name: record for record in run.steps} if run else {}
    ready = recording.status == Status.READY
    running = run is not None and run.status == "running"
    unreached = "skipped" if run is not None and run.status.finished else "waiting"
    steps: list[StepProgress] = []
    for name, label in STEPS.items():
        record = records.get(name)
        note = record.failure.message if record and record.failure else ""
        if name == "transcribe" and rehearsal.was_killed(recording.id):
            goes = "went" if record else "goes"
            note = f"The worker was killed here; another one {goes} on."
        if record is None:
            state = "running" if running else unreached
            state = "done" if ready and run is None else state
            steps.append(StepProgress(name, label, state, note=note))
        else:
            state = _state(record.status, running)
            steps.append(
                StepProgress(name, label, state, record.attempt, record.duration, note)
            )
        # One step at a time: those after one that is not done wait.
        running = running and state == "done"
    return steps


def _state(status: str, running: bool) -> str:
    if status in ("done", "failed"):
        return status
    return "running" if running else "retrying"
