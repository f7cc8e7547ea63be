"""Answers of sources, for the next run of the scaler, perhaps in another process.

An answer is *fresh* for some minutes, in which its source is not asked again. After
that it is kept for a day, as long as its source tells nothing newer: an old measurement
is better than none.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ..decision.observation import ServiceTime

#: Seconds for which an answer is fresh, also the answer that a function is unknown.
FRESH_SECONDS = 300.0

#: Seconds for which an answer is kept.
KEPT_SECONDS = 24 * 3600.0

#: The most seconds for which a source is not asked, whatever it asks for.
LONGEST_SOURCE_REST = 3600.0


class AnswerStore(t.Protocol):
    """Keeps a text for each source."""

    def recall(self, source: str) -> str | None:
        """Return the text that is kept for *source*."""

    def keep(self, source: str, text: str) -> None:
        """Keep *text* for *source*, for a day at least."""


class ProcessAnswerStore:
    """Keeps the texts in this process."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def recall(self, source: str) -> str | None:
        """Return the text that is kept for *source*."""
        return self._texts.get(source)

    def keep(self, source: str, text: str) -> None:
        """Keep *text* for *source*."""
        self._texts[source] = text


@dataclasses.dataclass
class Answers:
    """The answers of one source. Times are seconds since 1970, by the asker's clock.

    :param rests: The time until which the source is not to be asked.
    :param failing: True if the last attempt to ask it failed.
    :param times: The time of the answer and the service time, by function.
    """

    rests: float = 0.0
    failing: bool = False
    times: dict[str, tuple[float, ServiceTime | None]] = dataclasses.field(
        default_factory=dict
    )

    def fresh(self, now: float) -> set[str]:
        """Return the functions that need not be asked for."""
        return {
            name
            for name, (at, _) in self.times.items()
            if 0 <= now - at < FRESH_SECONDS
        }

    def usable(self, now: float) -> dict[str, ServiceTime]:
        """Return the known service times that are not too old."""
        return {
            name: known
            for name, (at, known) in self.times.items()
            if known is not None and abs(now - at) < KEPT_SECONDS
        }

    def rests_at(self, now: float) -> bool:
        """Return whether the source is not to be asked."""
        return now < self.rests <= now + LONGEST_SOURCE_REST

    def take(
        self,
        asked: t.Iterable[str],
        found: t.Mapping[str, ServiceTime],
        now: float,
    ) -> None:
        """Record an answer, and drop those that are too old."""
        self.rests, self.failing = 0.0, False
        self.times |= {name: (now, found.get(name)) for name in asked}
        self.times = {
            name: (at, known)
            for name, (at, known) in self.times.items()
            if abs(now - at) < KEPT_SECONDS
        }

    def encode(self) -> str:
        """Return the answers as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def decode(cls, text: str | None) -> Answers:
        """Return the answers in *text*; none if it is ``None``."""
        if text is None:
            return cls()
        fields = json.loads(text)
        times = {
            name: (at, None if known is None else ServiceTime(**known))
            for name, (at, known) in fields["times"].items()
        }
        return cls(fields["rests"], fields["failing"], times)
