"""The protocol for a look into queues and at the workers that serve them.

:class:`QueueSnapshot` is the result of one look at the queues of a pool.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..decision.fleet import Silence
from ..decision.fleet import Unit
from ..decision.observation import Running
from ..decision.observation import Sample
from ..decision.observation import Waiting


class Introspector(t.Protocol):
    """Looks into the queues of a pool.

    An introspector of another library is created from ``queues``, a list of names, and
    the keyword options of the pool's configuration. It connects on first use, and
    moves no message.
    """

    @property
    def silence(self) -> Silence:
        """The assumed state of a worker that reports nothing."""

    @property
    def slots(self) -> int:
        """The number of jobs a worker takes at a time, until one is up to report it."""

    def look(self, horizon: float) -> QueueSnapshot:
        """Return the jobs that wait, the jobs that run, and the workers.

        :param horizon: Seconds into the future for which coming work is looked up.
        :raises PlatformError: The server of the queues refuses or does not answer.
        """


#: The function's name for a run that holds a slot and is otherwise unknown.
UNSEEN = "(unseen)"


@dataclass(frozen=True)
class QueueSnapshot:
    """The result of a look at the queues of a pool.

    :param now: Seconds since 1970, by the server's clock.
    :param waiting: Runs that wait, by function and age.
    :param running: Runs that hold a thread of a worker that takes more.
    :param wakeups: Function and seconds until due, of runs that sleep, wait for a
        retry or are scheduled.
    :param arrived: The number of times a run was queued since counting began, by
        function.
    :param queues: The queue in which each function was seen.
    :param samples: Samples of queues that are too long to be looked at as a whole.
    :param units: The workers that serve the queues or did until now, as far as known.
    :param orphans: The number of runs that no known worker has; ``None`` if runs are
        not known by worker.
    :param failure: The part that could not be looked at, with the error; all other
        fields are then empty.
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
    def failed(cls, failure: str, now: float) -> QueueSnapshot:
        """Return the empty result of a look that failed."""
        return cls(now, (), (), (), {}, failure=failure)

    @property
    def serving(self) -> tuple[Unit, ...]:
        """Return the workers that take runs."""
        return tuple(unit for unit in self.units if not unit.draining)

    @property
    def unsaid(self) -> int:
        """Return how many runs no worker reports as its own."""
        if self.orphans is not None:
            return self.orphans
        return len(self.running) - sum(unit.busy for unit in self.units)

    @property
    def functions(self) -> frozenset[str]:
        """Return the ids of all functions that were seen."""
        return frozenset(
            [
                *(group.function for group in self.waiting),
                *(job.function for job in self.running),
                *(function for function, _ in self.wakeups),
                *self.arrived,
            ]
        ) - {UNSEEN}
