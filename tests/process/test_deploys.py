"""Deploys in a row while events keep coming: one worker after the other is replaced."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import typing as t
from collections import defaultdict

import pytest

from .sites import Site
from .sites import TIMEOUT

#: Deploys, by default and with ``--long``.
SHORT = 4
LONG = 20

#: Seconds between two events, and of each of a run's five steps: more than one worker
#: can do, so that messages wait, are in hand and are fetched ahead at each deploy.
INTERVAL = 0.1
PACE = 0.05


@pytest.mark.timeout(900)
def test_deploys_in_a_row_under_load_lose_repeat_and_dead_letter_nothing(
    any_site: Site, pytestconfig: pytest.Config
) -> None:
    deploys = LONG if pytestconfig.getoption("--long") else SHORT
    workers = [any_site.ready()]
    with load(any_site) as events:
        for _ in range(deploys):
            any_site.has_begun(15, workers[-1].pid)
            workers.append(any_site.ready())
            workers[-2].signal(signal.SIGTERM)
            assert workers[-2].wait() == 0

    any_site.are("completed", *events, timeout=300)
    assert any_site.count("completed") == len(events)
    any_site.are_empty()
    any_site.each_step_ran_once()
    pids: dict[str, set[int]] = defaultdict(set)
    for line in any_site.trace():
        pids[line["run"]].add(line["pid"])
    assert any(len(several) > 1 for several in pids.values()), "no run was handed on"


@contextlib.contextmanager
def load(site: Site) -> t.Iterator[list[str]]:
    """Send events inside the block; yield their ids, which become more."""
    events: list[str] = []
    over = threading.Event()

    def send() -> None:
        for number in itertools.count():
            if over.wait(INTERVAL):
                return
            events.append(site.send("work/five", f"five-{number}", pace=PACE))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield events
    finally:
        over.set()
        sender.join(TIMEOUT)
        assert not sender.is_alive()
