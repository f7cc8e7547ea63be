"""Arrival rates of jobs, from the totals of earlier looks."""

from __future__ import annotations

import typing as t

Totals = tuple[tuple[float, t.Mapping[str, int]], ...]
#: Counts of one function: times, and how often it had arrived by then.
_Counts = t.Sequence[tuple[float, int]]

#: Seconds over which arrivals are counted. The lower rate is taken: a burst that is
#: over is soon forgotten, and one that begins is not mistaken for a steady load.
_SHORT, _LONG = 60.0, 300.0


def rates(totals: Totals, now: float, arrived: t.Mapping[str, int]) -> dict[str, float]:
    """Return jobs a second, by function; a function with too short a history is absent.

    :param totals: Times, and the jobs that had arrived by then, oldest first.
    :param now: Seconds since 1970.
    :param arrived: The jobs that have arrived until now, by function.
    """
    found = {
        function: _rate(
            # A function that was not counted before may have arrived in a queue that
            # was not looked at: its earlier count is unknown.
            [(time, counts[function]) for time, counts in totals if function in counts],
            now,
            count,
        )
        for function, count in arrived.items()
    }
    return {function: rate for function, rate in found.items() if rate}


def _rate(history: _Counts, now: float, count: int) -> float:
    rates = []
    for window in (_SHORT, _LONG):
        base = _base(history, now, window)
        if base is None:
            return 0.0
        time, before = base
        rates.append(max(count - before, 0) / (now - time))
    return min(rates)


def _base(history: _Counts, now: float, window: float) -> tuple[float, int] | None:
    """Return the latest entry that is a window old, or the first if half as old."""
    old = [entry for entry in history if entry[0] <= now - window]
    if old:
        return old[-1]
    return history[0] if history and history[0][0] <= now - window / 2 else None


def remember(totals: Totals, now: float, arrived: t.Mapping[str, int]) -> Totals:
    """Return the history with the jobs that arrived until now, without old ones."""
    since = now - _LONG
    old = [entry for entry in totals if entry[0] <= since]
    recent = [entry for entry in totals if entry[0] > since]
    return (*old[-1:], *recent, (now, dict(arrived)))
