"""The receiver of a process's metrics."""

from __future__ import annotations

import typing as t
from abc import ABC
from abc import abstractmethod

#: A counter, or a duration in milliseconds, as statsd names them.
Kind = t.Literal["c", "ms"]


class Series(t.Protocol):
    """The values of one metric with its tags. Several threads may append."""

    @property
    def append(self) -> t.Callable[[float], None]:
        """Takes a value: a count, or milliseconds."""


class Sink(ABC):
    """Takes counters and durations."""

    @abstractmethod
    def series(self, name: str, kind: Kind, /, **tags: str) -> Series:
        """Return the series of a metric with these tags.

        The caller appends to it, and calls :meth:`tick` afterwards.
        """

    @abstractmethod
    def tick(self) -> None:
        """Have the appended values sent or written in a moment."""

    @abstractmethod
    def sent(self) -> None:
        """Note that a send ended, perhaps the last activity here for long."""

    @abstractmethod
    def flush(self) -> None:
        """Send or write the collected values, now."""

    def count(self, name: str, number: int = 1, **tags: str) -> None:
        """Add *number* to a counter."""
        if number:
            self.series(name, "c", **tags).append(number)
            self.tick()

    def timing(self, name: str, milliseconds: float, **tags: str) -> None:
        """Add a duration."""
        self.series(name, "ms", **tags).append(max(milliseconds, 0.0))
        self.tick()
