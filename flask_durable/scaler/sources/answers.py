"""Tools for reading the answers of sources."""

from __future__ import annotations

import contextlib
import typing as t

from ...common.durations import to_seconds
from ...errors import ConfigurationError
from ...errors import PlatformError
from ..decision.observation import ServiceTime
from .estimates import merged
from .estimates import Part
from .estimates import Unit

#: A stretch of time, identified by the source's own value for its beginning.
Stretch = t.Hashable


@contextlib.contextmanager
def understanding(name: str) -> t.Iterator[None]:
    """Turn errors of reading an undocumented format into a :class:`PlatformError`.

    :param name: The name of the source whose answer is read in the block.
    :raises PlatformError: The answer has another format than the documented one.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise PlatformError(
            f"{name} answered in an unknown format.",
            hint="Check the source's url and the server's version.",
        ) from None


def window_of(owner: str, text: str) -> float:
    """Return how many seconds *owner* looks back.

    :raises ConfigurationError: The *text* is not a duration of at least an hour.
    """
    try:
        seconds = to_seconds(text)
    except ValueError as error:
        raise ConfigurationError(f"The window of {owner} is wrong: {error}.") from None
    if seconds < 3600:
        raise ConfigurationError(f"The window of {owner} is shorter than an hour.")
    return seconds


def of_functions(
    functions: t.Collection[str],
    names: t.Mapping[str, str],
    times: t.Mapping[str, ServiceTime | None],
) -> dict[str, ServiceTime]:
    """Return the known *times*, by function.

    :param names: The source's names of functions, by their ids. A function that is not
        here goes by its id.
    :param times: Service times by the source's names.
    """
    return {
        function: known
        for function in functions
        if (known := times.get(names.get(function, function)))
    }


class Stretches:
    """Collects a source's numbers of each function, one at a time."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Stretch, dict[str, t.Any]]] = {}

    def add(self, name: str, stretch: Stretch, kind: str, value: t.Any) -> None:
        """Add a ``"mean"``, ``"samples"`` or ``"p95"`` of one stretch of time."""
        by_time = self._numbers.setdefault(name, {})
        by_time.setdefault(stretch, {"mean": None, "samples": None})[kind] = value

    def merged(self, unit: Unit) -> dict[str, ServiceTime | None]:
        """Return the service time of each function, by the source's name."""
        return {
            name: merged((Part(**numbers) for numbers in by_time.values()), unit)
            for name, by_time in self._numbers.items()
        }
