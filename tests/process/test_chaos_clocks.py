"""Clocks of senders, workers and the server are wrong by up to an hour, and jump."""

from __future__ import annotations

import pathlib
import random
import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import timezone

import pytest

from flask_durable.queue.transport import Received
from flask_durable.queue.transport import Transport

from ..queue.kit import body
from ..queue.kit import make_transport
from ..queue.kit import QUEUE
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from .app import durable
from .chaos import Chaos
from .chaos import EVENT_KEY
from .chaos import HOUR
from .chaos import Misdeed
from .chaos import post
from .chaos import RECOVERY
from .clocks import Clock
from .sites import Process
from .sites import Site


def test_clocks_of_senders_and_workers_that_jump_lose_and_hasten_nothing(
    any_site: Site, chance: random.Random, reign: float
) -> None:
    chaos = WrongProcesses(any_site, chance)
    chaos.reign(reign)

    # Half an hour is over for no run, whatever a worker's clock said.
    due = [event for event in chaos.accepted if event not in chaos.later]
    any_site.counts("completed", chaos.runs_of(*due), timeout=RECOVERY)
    any_site.are("suspended", *chaos.later)
    any_site.skip(HOUR)
    chaos.judge()


@pytest.fixture
def clock(tmp_path: pathlib.Path) -> Clock:
    return Clock(tmp_path / "clock-of-server")


@pytest.fixture
def moved_site(
    tmp_path: pathlib.Path, clock: Clock, namespace: str
) -> t.Iterator[Site]:
    """A site whose server goes by *clock*."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = ValkeyServer(str(folder))
    try:
        server.environment = clock.of_program
        server.start()
        site = Site(tmp_path, server, None, namespace)
        try:
            yield site
        finally:
            site.close()
    finally:
        server.kill()


def test_a_servers_clock_that_jumps_loses_and_repeats_nothing(
    moved_site: Site, clock: Clock, chance: random.Random, reign: float
) -> None:
    chaos = WrongServer(moved_site, chance, clock)
    chaos.reign(reign)
    chaos.judge()


def test_a_lost_workers_message_comes_again_although_the_clock_was_set_back(
    moved_site: Site, clock: Clock, namespace: str
) -> None:
    def transport() -> Transport:
        return make_transport("redis", moved_site.valkey.url, namespace, 0.5)

    lost, other = transport(), transport()
    lost.declare(QUEUE)
    assert lost.send(QUEUE, [body(1)]) == [None]
    [taken] = lost.receive(QUEUE, 1, 1)
    clock.move(-HOUR)

    found: list[Received] = []
    wait_until(lambda: found.extend(other.receive(QUEUE, 1, 0.1)) or found, "it", 30)
    assert found[0].body == taken.body
    assert found[0].receive_count == 2
    lost.close()
    other.close()


class WrongProcesses(Chaos):
    """Moves the clocks of workers and of a web process that accepts events."""

    size = 2

    def __init__(self, site: Site, chance: random.Random) -> None:
        super().__init__(site, chance)
        self.later: list[str] = []
        self._clocks: list[Clock] = []
        clock = self._clock()
        _, self._address = site.web(
            **clock.of_python, FLASK_DURABLE_EVENT_KEYS=EVENT_KEY
        )

    def misdeeds(self) -> list[Misdeed]:
        return [*super().misdeeds(), *[self._move_a_clock] * 6]

    def worker(self) -> Process:
        return self.site.worker(**self._clock().of_python)

    def sends(self, event: str, name: str, data: dict[str, t.Any]) -> bool:
        if self.chance.random() < 0.5:
            status = post(self._address, event, name, data)
            assert status in (202, 503)
            return status == 202
        if self.chance.random() < 0.3:
            # The sender is right: it is due in half an hour.
            at = datetime.now(timezone.utc) + timedelta(minutes=30)
            with self.site.app.app_context():
                durable.send(name, data, id=event, at=at)
            self.later.append(event)
            return True
        return super().sends(event, name, data)

    def _clock(self) -> Clock:
        number = len(self._clocks)
        self._clocks.append(Clock(self.site.folder / f"clock-{number}"))
        self._clocks[-1].move(_wrong(self.chance))
        return self._clocks[-1]

    def _move_a_clock(self) -> None:
        self.chance.choice(self._clocks).move(_wrong(self.chance))


class WrongServer(Chaos):
    """Moves the server's clock. No run sleeps: sleeps end by that clock."""

    def __init__(self, site: Site, chance: random.Random, clock: Clock) -> None:
        super().__init__(site, chance)
        self._clock = clock

    def misdeeds(self) -> list[Misdeed]:
        return [*super().misdeeds(), *[self._move_the_clock] * 4]

    def event(self) -> tuple[str, dict[str, t.Any]]:
        return "work/five", {"pace": self.chance.uniform(0, 0.2)}

    def heal(self) -> None:
        self.send()  # at the last a jump back, with work in hand
        self._clock.move(self._clock.shift - HOUR)
        self.send()
        super().heal()

    def _move_the_clock(self) -> None:
        self._clock.move(_wrong(self.chance))


def _wrong(chance: random.Random) -> float:
    return chance.choice([-HOUR, HOUR, chance.uniform(-HOUR, HOUR), 0.05, -0.05])
