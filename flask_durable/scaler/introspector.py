"""What looks into queues, and at the workers that serve them."""

from __future__ import annotations

import typing as t

from .fleet import Silence
from .sighting import Sighting


class Introspector(t.Protocol):
    """Looks into the queues of a pool.

    Those of other libraries are made of ``queues``, a list of names, and of the keyword
    options of the pool's configuration. They connect on first use, and move no message.
    """

    @property
    def silence(self) -> Silence:
        """What a worker is that is not heard of."""

    @property
    def slots(self) -> int:
        """How many jobs a worker takes at a time, as long as none is up to say it."""

    def look(self, horizon: float) -> Sighting:
        """Return what waits, what runs, and who is there for it.

        :param horizon: Seconds into the future that are of interest.
        :raises PlatformError: The server of the queues refuses or does not answer.
        """
