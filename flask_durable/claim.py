"""A claim: that a worker took a run, went on with it, and let go of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from datetime import timezone


@dataclass(frozen=True)
class Claim:
    """A worker's claim of a run.

    Between two claims a run is suspended, paused, or waits in its queue.

    :param number: Which of the run's claims this is, counted from 1.
    :param at: When it was claimed, by the state server's clock.
    :param queued: Seconds that the run waited in its queue before.
    :param lasted: Seconds until the worker let go of the run; ``None`` while it has it.
    :param ended: What that came to: the status that the run then had, or ``"lost"`` if
        its worker was not heard of until its lease ended; ``None`` while it has it.
    """

    number: int
    at: datetime
    queued: float
    lasted: float | None = None
    ended: str | None = None

    @classmethod
    def load_all(cls, text: str) -> tuple[Claim, ...]:
        """Return the claims that a run's record has, as its scripts write them."""
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
