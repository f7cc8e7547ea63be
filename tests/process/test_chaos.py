"""Everything that can die does, at random, for a while; then all is counted."""

from __future__ import annotations

import random
import time

from .chaos import Chaos
from .chaos import Misdeed
from .sites import Site


def test_every_accepted_event_is_one_completed_run(
    shaky_site: Site, chance: random.Random, reign: float
) -> None:
    chaos = Deaths(shaky_site, chance)
    chaos.reign(reign)
    chaos.judge()


class Deaths(Chaos):
    """Takes processes and the state server down and up again."""

    _server_starts: float | None = None

    def misdeeds(self) -> list[Misdeed]:
        return [*super().misdeeds(), self._kill_the_server, self.repeat_messages]

    def mend(self) -> None:
        if self._server_starts is not None and time.monotonic() > self._server_starts:
            self._server_starts = None
            self.site.valkey.start()

    def heal(self) -> None:
        super().heal()
        if self._server_starts is not None:
            self._server_starts = 0
            self.mend()

    def repeat_messages(self) -> None:
        if self._server_starts is None:
            super().repeat_messages()

    def _kill_the_server(self) -> None:
        if self._server_starts is None:
            self.site.valkey.kill()
            self._server_starts = time.monotonic() + self.chance.uniform(0, 1)
