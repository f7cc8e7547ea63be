"""A measured figure, and the budget that it has to keep."""

from __future__ import annotations

import statistics
import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One budget and what was measured for it.

    :param name: What was measured.
    :param budget: The limit, in *unit*; ``None`` for a figure that has none.
    :param measured: The figure, in *unit*.
    :param unit: Such as ``"trips"``, ``"ms"``, or ``"x"`` for a ratio to a yardstick.
    :param at_least: Whether the budget is a minimum; otherwise it is a maximum.
    :param detail: What the figure was made of, in one line.
    """

    name: str
    budget: float | None
    measured: float
    unit: str
    at_least: bool = False
    detail: str = ""

    @property
    def bound(self) -> str:
        """Which way the budget limits the figure."""
        return "at least" if self.at_least else "at most"

    @property
    def ok(self) -> bool:
        """Whether the budget holds."""
        if self.budget is None:
            return True
        if self.at_least:
            return self.measured >= self.budget
        return self.measured <= self.budget

    def to_json(self) -> dict[str, t.Any]:
        """Return the figure as a JSON object."""
        return {
            "name": self.name,
            "budget": self.budget,
            "bound": self.bound,
            "measured": round(self.measured, 4),
            "unit": self.unit,
            "ok": self.ok,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Options:
    """How thorough a benchmark is.

    :param quick: Whether to be done in seconds, at the price of noise.
    :param rounds: How often a timing and its yardstick are repeated, in turns.
    :param runs: How many runs the memory benchmark makes.
    :param idle: Seconds that a worker idles before its latency is taken once more.
    """

    quick: bool
    rounds: int
    runs: int
    idle: float


#: A benchmark: what it is given, and the figures that it yields.
Benchmark = t.Callable[[Options], t.Iterable[Figure]]


def spread(values: t.Sequence[float], digits: int = 2) -> str:
    """Return the median of *values*, with the least and the greatest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
