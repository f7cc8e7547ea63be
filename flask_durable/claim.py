"""A claim: one worker's time with a run, from taking it to giving it up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from datetime import timezone


@dataclass(frozen=True)
class Claim:
    """A worker's claim of a run.

    Between two claims a run is suspended, paused, or waits in its queue.

    :param number: The number of this claim among the run's claims, counted from 1.
    :param at: The time of the claim, by the state server's clock.
    :param queued: Seconds that the run waited in its queue before.
    :param lasted: Seconds until the worker gave up the run; ``None`` while it has it.
    :param ended: The status of the run after it, or ``"lost"`` if its worker was silent
        until its lease ended; ``None`` while the worker has the run.
    """

    number: int
    at: datetime
    queued: float
    lasted: float | None = None
    ended: str | None = None

    @classmethod
    def load_all(cls, text: str) -> tuple[Claim, ...]:
        """Return the claims in a run's record, from the text of the scripts."""
        return tuple(cls._load(*claim.split(":")) for claim in text.split())

    @classmethod
    def _load(
        cls,
        number: str,
        at: str,
        queued: str,
        lasted: str | None = None,
        ended: str | None = None,
    ) -> Claim:
        return cls(
            number=int(number),
            at=datetime.fromtimestamp(int(at) / 1000, timezone.utc),
            queued=int(queued) / 1000,
            lasted=None if lasted is None else int(lasted) / 1000,
            ended=ended,
        )
