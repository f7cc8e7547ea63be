"""How fast jobs arrive, from what had arrived at earlier looks."""

from __future__ import annotations

import typing as t

Totals = tuple[tuple[float, t.Mapping[str, int]], ...]

#: Seconds over which arrivals are counted. The lower rate is taken: a burst that is
#: over is soon forgotten, and one that begins is not mistaken for a steady load.
_SHORT, _LONG = 60.0, 300.0


def rates(totals: Totals, now: float, arrived: t.Mapping[str, int]) -> dict[str, float]:
    """Return jobs a second, by function; none before there is history enough.

    :param totals: Times, and what had arrived until then, oldest first.
    :param now: Seconds since 1970.
    :param arrived: What has arrived until now.
    """
    bases = [_base(totals, now, window) for window in (_SHORT, _LONG)]
    found: dict[str, float] = {}
    for base in bases:
        if base is None:
            return {}
        time, before = base
        for function, count in arrived.items():
            rate = max(count - before.get(function, 0), 0) / (now - time)
            found[function] = min(found.get(function, rate), rate)
    return {function: rate for function, rate in found.items() if rate}


def _base(
    totals: Totals, now: float, window: float
) -> tuple[float, t.Mapping[str, int]] | None:
    """Return the latest entry that is a window old, or the first if half as old."""
    old = [entry for entry in totals if entry[0] <= now - window]
    if old:
        return old[-1]
    return totals[0] if totals and totals[0][0] <= now - window / 2 else None


def remember(totals: Totals, now: float, arrived: t.Mapping[str, int]) -> Totals:
    """Return the history with what has arrived until now, and without what is old."""
    since = now - _LONG
    old = [entry for entry in totals if entry[0] <= since]
    recent = [entry for entry in totals if entry[0] > since]
    return (*old[-1:], *recent, (now, dict(arrived)))
