"""The log lines of a run: those that are kept, and new ones as they come."""

from __future__ import annotations

import time
import typing as t

from .output import echo
from .output import echo_json
from .output import style
from .run_json import iso

if t.TYPE_CHECKING:
    from ..observe.run_logs import LogLine
    from ..runs.model import Run
    from ..runs.runs import Runs

#: Seconds between two looks, and from the end of a run until its last lines are kept.
_INTERVAL = 0.5
_LAST_LINES = 1.0

_COLOURS = {"error": "red", "critical": "red", "warning": "yellow"}


def line_as_json(line: LogLine) -> dict[str, t.Any]:
    """Return *line* as a JSON object."""
    return {
        "number": line.number,
        "at": iso(line.at),
        "level": line.level,
        "logger": line.logger,
        "step": line.step,
        "attempt": line.attempt,
        "message": line.message,
    }


def line_as_text(line: LogLine) -> str:
    """Return *line* for a person; the lines after the first are indented."""
    at = line.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    level = style(f"{line.level.upper():<7}", fg=_COLOURS.get(line.level))
    step = f" [{line.step}]" if line.step else ""
    message = line.message.replace("\n", "\n    ")
    return f"{at} {level} {line.logger}: {message}{step}"


def follow(runs: Runs, id: str, *, as_json: bool) -> Run:
    """Print the lines of a run until it is finished, and return the run."""
    seen = 0
    finished_since: float | None = None
    while True:
        run = runs.get(id)
        for line in runs.logs(id, after=seen):
            seen = line.number
            if as_json:
                echo_json(line_as_json(line))
            else:
                echo(line_as_text(line))
        if run.status.finished:
            finished_since = finished_since or time.monotonic()
            if time.monotonic() - finished_since >= _LAST_LINES:
                return run
        time.sleep(_INTERVAL)
