"""The outcome of a policy, in numbers. All times are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field


@dataclass
class Outcome:
    """The outcome of a policy.

    :param jobs: For each job the time at which it arrived, and the seconds until its
        last start; infinite for jobs that are not done at the end.
    :param worker_seconds: Seconds of workers, from asking for one to its stop.
    :param kills: The number of jobs that were killed.
    :param lost: Seconds of work that had been done on them.
    :param turns: The number of times it grew after it had shrunk, or the reverse.
    :param sizes: Pairs of a time and the number of workers from then on, with those
        that boot and those that drain.
    :param end: The time at which the last job was done, or given up.
    """

    jobs: list[tuple[float, float]] = field(default_factory=list)
    worker_seconds: float = 0.0
    kills: int = 0
    lost: float = 0.0
    turns: int = 0
    sizes: list[tuple[float, int]] = field(default_factory=list)
    end: float = 0.0

    @property
    def waits(self) -> list[float]:
        """Return the wait of each job."""
        return [wait for _, wait in self.jobs]

    def missed(self, wait: float) -> float:
        """Return the share of jobs that waited for longer than *wait* seconds."""
        if not self.jobs:
            return 0.0
        return sum(waited > wait for _, waited in self.jobs) / len(self.jobs)

    def percentiles(self, *shares: float) -> list[float]:
        """Return, for each share, the wait that this share of jobs does not exceed."""
        return percentiles(self.waits, *shares)


def percentiles(values: list[float], *shares: float) -> list[float]:
    """Return, for each share, the value that this share of *values* does not exceed."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return [ordered[min(int(s * len(ordered)), last)] if ordered else 0 for s in shares]
