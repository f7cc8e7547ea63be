"""What a look at the queues of a pool finds."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from .fleet import Unit
from .observation import Running
from .observation import Sample
from .observation import Waiting

#: What a run is of that holds a slot, and of which nobody knows what it is.
UNSEEN = "(unseen)"


@dataclass(frozen=True)
class Sighting:
    """What was counted.

    :param now: Seconds since 1970, by the server's clock.
    :param waiting: Runs that wait, by function and age.
    :param running: Runs that hold a thread of a worker that takes more.
    :param wakeups: Function and seconds until due, of runs that sleep, wait for a
        retry or are scheduled.
    :param arrived: By function, how often a run was queued since counting began.
    :param queues: By function, the queue that it was seen in.
    :param samples: Queues that are too long to be looked at as a whole.
    :param units: The workers that serve them or did until now, as far as is known.
    :param orphans: How many runs no worker has that is known; ``None`` where it is not
        known who has which.
    :param failure: What could not be looked at, and why; then all else is empty.
    """

    now: float
    waiting: tuple[Waiting, ...]
    running: tuple[Running, ...]
    wakeups: tuple[tuple[str, float], ...]
    arrived: t.Mapping[str, int]
    queues: t.Mapping[str, str] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    units: tuple[Unit, ...] = ()
    orphans: int | None = None
    failure: str | None = None

    @classmethod
    def failed(cls, failure: str, now: float) -> Sighting:
        """Return what is seen where nothing can be."""
        return cls(now, (), (), (), {}, failure=failure)

    @property
    def serving(self) -> tuple[Unit, ...]:
        """Return the workers that take runs."""
        return tuple(unit for unit in self.units if not unit.draining)

    @property
    def unsaid(self) -> int:
        """Return how many runs there are of which no worker says that it has them."""
        if self.orphans is not None:
            return self.orphans
        return len(self.running) - sum(unit.busy for unit in self.units)

    @property
    def functions(self) -> frozenset[str]:
        """Return the ids of all functions of which something was seen."""
        return frozenset(
            [
                *(group.function for group in self.waiting),
                *(job.function for job in self.running),
                *(function for function, _ in self.wakeups),
                *self.arrived,
            ]
        ) - {UNSEEN}
