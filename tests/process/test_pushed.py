"""Push workers in processes that die and hang, and daemons that keep the contract."""

from __future__ import annotations

import pathlib
import random
import signal
import threading
import typing as t

import pytest

from ..support.servers import SQSServer
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from ..worker.push.sqsd import Daemon
from ..worker.push.sqsd import to_address
from .sites import Site
from .sites import TIMEOUT

#: Seconds that a message is hidden which nobody has answered for.
VISIBILITY = 2

#: The settings that make a web process a push worker.
PUSHED = {"FLASK_DURABLE_PUSH_LOOPBACK": "1", "FLASK_DURABLE_PUSH_BUDGET": "300ms"}


class Instance:
    """A web process, and the daemon that posts to it."""

    def __init__(self, site: Site, sqs: SQSServer, namespace: str) -> None:
        self.web, address = site.web(**PUSHED)
        post = to_address(address, inactivity=1.0)
        self.daemon = Daemon(sqs, post, namespace, visibility=VISIBILITY)
        self.alive = True

    def kill(self) -> None:
        self.alive = False
        self.web.kill()


class Platform:
    """An environment of two instances."""

    def __init__(self, site: Site, sqs: SQSServer, namespace: str) -> None:
        self.site = site
        self.instances = [Instance(site, sqs, namespace) for _ in range(2)]

    @property
    def answers(self) -> list[int | None]:
        return [answer for each in self.instances for answer in each.daemon.answers]

    def delivers(self, *events: str) -> None:
        """Deliver what the queues have, until the runs of *events* are completed."""

        def look() -> bool:
            # At random: what one hangs on would else be received by it each time.
            for instance in random.sample(self.instances, 2):
                if instance.alive:
                    instance.daemon.round()
            states = [run.status.value for run in self.site.runs_of(*events)]
            done = states == ["completed"] * len(events)
            return done and not self.instances[0].daemon.left()

        wait_until(look, "what is delivered to complete the runs", 60)


@pytest.fixture
def platform(
    tmp_path: pathlib.Path, valkey: ValkeyServer, sqs: SQSServer, namespace: str
) -> t.Iterator[Platform]:
    site = Site(tmp_path, valkey, sqs.url, namespace)
    try:
        yield Platform(site, sqs, namespace)
    finally:
        site.close()


def test_runs_of_a_killed_instance_go_on_with_another(platform: Platform) -> None:
    site = platform.site
    events = [site.send("work/five", f"five-{n}", pace=0.3) for n in range(3)]

    def kill_in_a_step() -> None:
        site.has_begun(2)
        pid = site.trace("begin")[-1]["pid"]
        next(each for each in platform.instances if each.web.pid == pid).kill()

    killer = threading.Thread(target=kill_in_a_step)
    killer.start()
    try:
        platform.delivers(*events)
    finally:
        killer.join(2 * TIMEOUT)
    site.no_committed_step_ran_again()
    assert None in platform.answers


def test_an_instance_that_hangs_leaves_its_messages_to_another(
    platform: Platform,
) -> None:
    site = platform.site
    web = platform.instances[0].web
    events = [site.send("work/five", f"five-{n}", pace=0.1) for n in range(3)]
    web.signal(signal.SIGSTOP)
    platform.delivers(*events)
    web.signal(signal.SIGCONT)
    # What it was given while it hung is old news.
    platform.delivers(*events)
    site.no_committed_step_ran_again()
    assert None in platform.answers


def test_a_step_that_outlasts_the_daemons_patience_is_begun_once(
    platform: Platform,
) -> None:
    event = platform.site.send("work/five", "slow", pace=1.2)
    platform.delivers(event)
    platform.site.each_step_ran_once()
    assert None in platform.answers
