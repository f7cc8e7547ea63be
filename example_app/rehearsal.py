"""Accidents on purpose, so that a reader can watch a run recover from them."""

from __future__ import annotations

import os
import signal
import typing as t
from pathlib import Path

from flask import current_app

from flask_durable import current_run

from . import storage

#: ``"fail"``: a step fails twice. ``"kill"``: the worker is killed, once.
Rehearsal = t.Literal["", "fail", "kill"]


def fail_twice(rehearse: Rehearsal) -> None:
    """Raise in the first two attempts of the step that calls this."""
    if rehearse != "fail" or not current_app.config["REHEARSALS"]:
        return
    attempt = current_run.step.attempt if current_run and current_run.step else 3
    if attempt <= 2:
        raise ConnectionError(
            f"The disk is not there (rehearsed failure {attempt} of 2)."
        )


def kill_once(rehearse: Rehearsal, recording_id: str) -> None:
    """Kill this process with ``SIGKILL``, the first time for each recording."""
    if rehearse != "kill" or not current_app.config["REHEARSALS"]:
        return
    marker = _marker(recording_id)
    marker.parent.mkdir(parents=True, exist_ok=True)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def was_killed(recording_id: str) -> bool:
    """Return whether a worker was killed while it transcribed this recording."""
    return _marker(recording_id).exists()


def _marker(recording_id: str) -> Path:
    return storage.media_folder() / "rehearsals" / f"killed-{recording_id}"
