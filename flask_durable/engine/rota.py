"""Visits to all partitions, one after the other, where some do not answer.

The partitions of a cluster are on several servers. One that hangs does not answer until
the caller gives up. So that it holds up no other, it is visited last, once a round, and
a caller may leave it alone for a while:

=========================  ============================================================
a visit                    then
=========================  ============================================================
succeeds                   its server counts as one that answers
gets no answer             the other partitions of that server of a cluster are left out
                           this round; they are visited after all others from now on,
                           and rest for twice as long each time
raises another error       the next partition is visited
=========================  ============================================================
"""

from __future__ import annotations

import time
import typing as t

from ..redis.errors import TRANSIENT
from ..store.server import StateServer

#: Seconds that a server rests after the first visit without an answer.
_FIRST_REST = 0.5

T = t.TypeVar("T")


class Rota:
    """Visits partitions for one thread.

    :param server: The state server with the partitions.
    :param longest_rest: Seconds that a silent server is left alone at most.
    """

    def __init__(self, server: StateServer, longest_rest: float) -> None:
        self._server = server
        self._longest_rest = longest_rest
        #: Server to the end of its rest and the length of it.
        self._silent: dict[str, tuple[float, float]] = {}

    def visit(
        self,
        tags: t.Iterable[str],
        call: t.Callable[[str], T],
        failed: t.Callable[[Exception], object],
    ) -> dict[str, T]:
        """Call *call* with each of *tags* and return its results by tag.

        :param failed: A callable that gets each error of a visit.
        """
        places = {tag: self._server.place_of(tag) or tag for tag in tags}
        found: dict[str, T] = {}
        left_out: set[str] = set()
        for tag in sorted(places, key=lambda tag: places[tag] in self._silent):
            place = places[tag]
            if place in left_out or self._rests(place):
                continue
            try:
                found[tag] = call(tag)
                self._silent.pop(place, None)
            except Exception as error:
                if isinstance(error, TRANSIENT):
                    left_out.add(place)
                    self._let_rest(place)
                failed(error)
        return found

    def _rests(self, place: str) -> bool:
        until, _ = self._silent.get(place, (0.0, 0.0))
        return time.monotonic() < until

    def _let_rest(self, place: str) -> None:
        _, last = self._silent.get(place, (0.0, 0.0))
        rest = min(max(2 * last, _FIRST_REST), self._longest_rest)
        self._silent[place] = (time.monotonic() + rest, rest)
