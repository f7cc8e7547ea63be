"""What the answers of sources have in common."""

from __future__ import annotations

import contextlib
import typing as t

from ...durations import to_seconds
from ...errors import ConfigurationError
from ...errors import PlatformError
from ..observation import ServiceTime
from .estimates import merged
from .estimates import Part
from .estimates import Unit

#: A stretch of time, by what the source calls its beginning.
Stretch = t.Hashable


@contextlib.contextmanager
def understanding(name: str) -> t.Iterator[None]:
    """Tell an answer whose form is not the documented one from a fault of ours.

    :param name: Whose answer is read in the block.
    :raises PlatformError: It has another form.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise PlatformError(
            f"{name} answered in a form that is not understood.",
            hint="Look at the source's url and its version.",
        ) from None


def window_of(owner: str, text: str) -> float:
    """Return how many seconds back *owner* is asked.

    :raises ConfigurationError: *text* is no duration of an hour at least.
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
    """Return the *times* that are known, by function.

    :param names: What the source calls a function, by its id. Others go by their ids.
    :param times: By what the source calls them.
    """
    return {
        function: known
        for function in functions
        if (known := times.get(names.get(function, function)))
    }


class Stretches:
    """Collects what a source says of each function, number by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Stretch, dict[str, t.Any]]] = {}

    def add(self, name: str, stretch: Stretch, kind: str, value: t.Any) -> None:
        """Note a ``"mean"``, ``"samples"`` or ``"p95"`` of one stretch of time."""
        by_time = self._numbers.setdefault(name, {})
        by_time.setdefault(stretch, {"mean": None, "samples": None})[kind] = value

    def merged(self, unit: Unit) -> dict[str, ServiceTime | None]:
        """Return what is known of each function, by what the source calls it."""
        return {
            name: merged((Part(**numbers) for numbers in by_time.values()), unit)
            for name, by_time in self._numbers.items()
        }
