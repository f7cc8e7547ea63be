"""The protocol of a source of durations of functions."""

from __future__ import annotations

import typing as t

from ..decision.observation import ServiceTime


class DurationSource(t.Protocol):
    """Knows how long one delivery of a function takes.

    Created from the keyword options of its configuration. Connects on first use. Only
    one thread at a time asks it.
    """

    def describe(self) -> str:
        """Return the source in one line, for people, without any secret."""

    def read(self, functions: t.Collection[str]) -> t.Mapping[str, ServiceTime]:
        """Return the service times of *functions* that it knows, by their ids.

        A function without a known one is absent: no duration is not a duration of 0.

        :raises PlatformError: The source refuses, does not answer, or answers in an
            unknown format.
        """
