"""Recorded jobs, in a file: a line for each, as JSON or CSV.

::

    {"at": 1795292240.5, "function": "resize", "seconds": 0.3}

    at,function,seconds
    2026-11-25T10:00:00Z,resize,0.3

``at`` is the time at which the job could first begin, in seconds from any beginning or
as ISO 8601; ``seconds`` is how long it held a thread.
"""

from __future__ import annotations

import csv
import json
import typing as t
from datetime import datetime

from .workloads import Arrival

_FIELDS = ("at", "function", "seconds")


def read_trace(lines: t.Iterable[str]) -> list[Arrival]:
    """Return the jobs of a recorded trace; the first one arrives at 0.

    :raises ValueError: A line is not a job; the text names the line.
    """
    jobs = [_job(number, fields) for number, fields in _records(lines)]
    first = min((job.time for job in jobs), default=0.0)
    return sorted(Arrival(j.time - first, j.function, j.seconds) for j in jobs)


def _records(lines: t.Iterable[str]) -> t.Iterator[tuple[int, t.Any]]:
    """Yield the fields of each line, by its number."""
    numbered = ((n, line) for n, line in enumerate(lines, 1) if line.strip())
    number, first = next(numbered, (0, "{"))
    if first.lstrip().startswith("{"):
        if number:
            yield number, _loaded(first)
        for number, line in numbered:
            yield number, _loaded(line)
        return
    names = [name.strip() for name in next(csv.reader([first]))]
    for number, line in numbered:
        yield number, dict(zip(names, next(csv.reader([line])), strict=False))


def _loaded(line: str) -> t.Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _job(number: int, fields: t.Any) -> Arrival:
    try:
        at, function, seconds = (fields[name] for name in _FIELDS)
        job = Arrival(_time(at), str(function), float(seconds))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"line {number} is no job: it takes {', '.join(_FIELDS)}"
        ) from error
    if not 0 <= job.seconds < float("inf"):
        raise ValueError(f"line {number} is no job: seconds is {seconds}")
    return job


def _time(value: t.Any) -> float:
    try:
        return float(value)
    except ValueError:
        return datetime.fromisoformat(value).timestamp()
