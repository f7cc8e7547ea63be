"""Apps whose hooks redirect, raise, switch loggers off and read what is not theirs."""

from __future__ import annotations

import pathlib
import random
import typing as t

from flask_durable.messages import EventMessage

from ..worker.push.sqsd import AGENT
from ..worker.push.sqsd import PATH
from ..worker.push.sqsd import to_address
from .chaos import Chaos
from .chaos import EVENT_KEY
from .chaos import post
from .sites import Process
from .sites import Site

HOSTILE = str(pathlib.Path(__file__).with_name("hostile.py"))


def test_hostile_hooks_lose_and_repeat_nothing(
    any_site: Site, chance: random.Random, reign: float
) -> None:
    chaos = Hostile(any_site, chance)
    chaos.reign(reign)
    chaos.judge()


class Hostile(Chaos):
    """Sends over HTTP, to an app that is in bad company in each of its processes.

    With SQS, some events come as messages of a daemon, until they are served.
    """

    size = 2

    def __init__(self, site: Site, chance: random.Random) -> None:
        super().__init__(site, chance)
        _, self._address = site.web(
            app=HOSTILE,
            FLASK_DURABLE_EVENT_KEYS=EVENT_KEY,
            FLASK_DURABLE_PUSH_LOOPBACK="1",
            FLASK_DURABLE_PUSH_BUDGET="300ms",
        )

    def worker(self) -> Process:
        return self.site.worker(app=HOSTILE)

    def event(self) -> tuple[str, dict[str, t.Any]]:
        return "work/broken", {}  # with retries enough

    def sends(self, event: str, name: str, data: dict[str, t.Any]) -> bool:
        if self.site.kind == "sqs" and self.chance.random() < 0.5:
            return self._is_served(EventMessage(name, data, event, at=1))
        return post(self._address, event, name, data) == 202

    def _is_served(self, message: EventMessage) -> bool:
        headers = {
            **AGENT,
            "X-Aws-Sqsd-Msgid": message.id,
            "X-Aws-Sqsd-Receive-Count": "1",
        }
        deliver = to_address(self._address)
        return deliver(PATH, headers, message.encode().encode()) == 200
