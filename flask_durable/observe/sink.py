"""What takes the metrics of a process."""

from __future__ import annotations

import typing as t
from abc import ABC
from abc import abstractmethod

#: A counter, or a duration in milliseconds, as statsd names them.
Kind = t.Literal["c", "ms"]


class Series(t.Protocol):
    """Where values of one metric with its tags are put. Of several threads."""

    @property
    def append(self) -> t.Callable[[float], None]:
        """Takes a value: a count, or milliseconds."""


class Sink(ABC):
    """Takes counters and durations."""

    @abstractmethod
    def series(self, name: str, kind: Kind, **tags: str) -> Series:
        """Return where values of a metric with these tags are put.

        Whoever has a series appends to it, and calls :meth:`tick` afterwards.
        """

    @abstractmethod
    def tick(self) -> None:
        """See to it that what was put into a series goes on in a moment."""

    @abstractmethod
    def sent(self) -> None:
        """A send ended, and nothing else may happen in this process for long."""

    @abstractmethod
    def flush(self) -> None:
        """Let go of what was gathered, now."""

    def count(self, name: str, number: int = 1, **tags: str) -> None:
        """Add *number* to a counter."""
        if number:
            self.series(name, "c", **tags).append(number)
            self.tick()

    def timing(self, name: str, milliseconds: float, **tags: str) -> None:
        """Add a duration."""
        self.series(name, "ms", **tags).append(max(milliseconds, 0.0))
        self.tick()
