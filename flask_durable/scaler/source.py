"""What a place that knows how long functions take can be asked."""

from __future__ import annotations

import typing as t

from .observation import ServiceTime


class DurationSource(t.Protocol):
    """Knows how long one delivery of a function takes.

    Made of the keyword options of its configuration. Connects on first use. It is asked
    by one thread at a time.
    """

    def describe(self) -> str:
        """Return what it is in one line, for people, without any secret."""

    def read(self, functions: t.Collection[str]) -> t.Mapping[str, ServiceTime]:
        """Return what it knows of *functions*, by their ids.

        One of which it knows nothing is absent: no duration is not a duration of 0.

        :raises PlatformError: It refuses, does not answer, or is not understood.
        """
