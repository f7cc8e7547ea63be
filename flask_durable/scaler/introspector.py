"""The protocol for a look into queues and at the workers that serve them."""

from __future__ import annotations

import typing as t

from .fleet import Silence
from .sighting import Sighting


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

    def look(self, horizon: float) -> Sighting:
        """Return the jobs that wait, the jobs that run, and the workers.

        :param horizon: Seconds into the future for which coming work is looked up.
        :raises PlatformError: The server of the queues refuses or does not answer.
        """
