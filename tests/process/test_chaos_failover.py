"""The state server's name moves to its replica under load, again and again."""

from __future__ import annotations

import pathlib
import random
import time
import typing as t

import pytest

from ..support.replicas import command
from ..support.replicas import Pair
from ..support.replicas import replicated
from ..support.servers import wait_until
from .chaos import Chaos
from .chaos import Misdeed
from .sites import Site

#: Seconds for which a new primary is alone at most.
ALONE = 0.5


@pytest.fixture
def pair() -> t.Iterator[Pair]:
    with replicated(appendfsync="always") as pair:
        yield pair


@pytest.fixture
def replicated_site(
    tmp_path: pathlib.Path, pair: Pair, namespace: str
) -> t.Iterator[Site]:
    # What a primary has confirmed that dies, its replica has: "within what was
    # replicated" is all then.
    asked = {"FLASK_DURABLE_FSYNC": "step", "FLASK_DURABLE_REPLICAS": "1"}
    site = Site(tmp_path, pair.server, None, namespace, **asked)
    try:
        yield site
    finally:
        site.close()


def test_what_was_accepted_outlives_every_failover(
    replicated_site: Site, pair: Pair, chance: random.Random, reign: float
) -> None:
    chaos = Failovers(replicated_site, chance, pair)
    chaos.reign(reign)
    chaos.judge()


class Failovers(Chaos):
    """Moves the name to the other server, planned or because the first one died."""

    size = 2

    def __init__(self, site: Site, chance: random.Random, pair: Pair) -> None:
        super().__init__(site, chance)
        self._pair = pair
        self._back: float | None = None

    def misdeeds(self) -> list[Misdeed]:
        often = [self._hand_over, self._lose_the_primary, self._change_disks]
        return [*super().misdeeds(), *often * 3]

    def mend(self) -> None:
        if self._back is not None and time.monotonic() > self._back:
            self._back = None
            self._pair.bring_back()

    def heal(self) -> None:
        super().heal()
        # The reign may have ended while a primary was alone.
        self._bring_back()
        # At least one of each, however few there was time for.
        for last in (self._lose_the_primary, self._hand_over):
            wait_until(lambda: self._pair.is_whole, "the replica")
            last()
            self._bring_back()
            self.send()
        self._have_disks("always")

    def _bring_back(self) -> None:
        if self._back is not None:
            self._back = 0
            self.mend()

    def _change_disks(self) -> None:
        # With slow ones, what waits for them is more often in between at a failover.
        self._have_disks(self.chance.choice(["always", "everysec"]))

    def _have_disks(self, appendfsync: str) -> None:
        if self._back is None:
            for server in (self._pair.old, self._pair.new):
                command(server, "CONFIG", "SET", "appendfsync", appendfsync)

    def _hand_over(self) -> None:
        if self._pair.is_whole:
            self._pair.hand_over()

    def _lose_the_primary(self) -> None:
        if self._pair.is_whole:
            self._pair.lose_the_primary()
            self._back = time.monotonic() + self.chance.uniform(0, ALONE)
