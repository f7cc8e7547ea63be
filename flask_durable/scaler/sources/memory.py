"""What sources said, for the next run of the scaler, which may be another process.

An answer is *fresh* for some minutes, in which nobody is asked again. After that it is
kept for a day, for as long as its source tells nothing newer: an old measurement is
better than none.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ..observation import ServiceTime

#: Seconds for which an answer is fresh, also that a function is not known.
FRESH = 300.0

#: Seconds for which it is kept.
KEPT = 24 * 3600.0

#: The most seconds for which a source is left alone, whatever it asks for.
LONGEST_REST = 3600.0


class Memory(t.Protocol):
    """Keeps a text for each source."""

    def recall(self, source: str) -> str | None:
        """Return what is kept for *source*."""

    def keep(self, source: str, text: str) -> None:
        """Keep *text* for *source*, for a day at least."""


class ProcessMemory:
    """Keeps it in this process."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def recall(self, source: str) -> str | None:
        """Return what is kept for *source*."""
        return self._texts.get(source)

    def keep(self, source: str, text: str) -> None:
        """Keep *text* for *source*."""
        self._texts[source] = text


@dataclasses.dataclass
class Answers:
    """What one source said. Times are seconds since 1970, by the clock of who asked.

    :param rests: Until when it is to be left alone.
    :param failing: Whether it failed when it was asked last.
    :param times: By function: when it was asked, and what it knew.
    """

    rests: float = 0.0
    failing: bool = False
    times: dict[str, tuple[float, ServiceTime | None]] = dataclasses.field(
        default_factory=dict
    )

    def fresh(self, now: float) -> set[str]:
        """Return the functions that need not be asked for."""
        return {name for name, (at, _) in self.times.items() if 0 <= now - at < FRESH}

    def usable(self, now: float) -> dict[str, ServiceTime]:
        """Return what is known."""
        return {
            name: known
            for name, (at, known) in self.times.items()
            if known is not None and abs(now - at) < KEPT
        }

    def rests_at(self, now: float) -> bool:
        """Return whether the source is to be left alone."""
        return now < self.rests <= now + LONGEST_REST

    def take(
        self,
        asked: t.Iterable[str],
        found: t.Mapping[str, ServiceTime],
        now: float,
    ) -> None:
        """Note an answer, and drop what is too old."""
        self.rests, self.failing = 0.0, False
        self.times |= {name: (now, found.get(name)) for name in asked}
        self.times = {
            name: (at, known)
            for name, (at, known) in self.times.items()
            if abs(now - at) < KEPT
        }

    def encode(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def decode(cls, text: str | None) -> Answers:
        """Return what *text* says; nothing if there is none."""
        if text is None:
            return cls()
        fields = json.loads(text)
        times = {
            name: (at, None if known is None else ServiceTime(**known))
            for name, (at, known) in fields["times"].items()
        }
        return cls(fields["rests"], fields["failing"], times)
