"""Everything that can die does, at random, for a while; then all is counted."""

from __future__ import annotations

import contextlib
import random
import signal
import time
import typing as t

import pytest

from flask_durable import UnavailableError
from flask_durable.queue.envelope import RunMessage

from .app import durable
from .sites import Process
from .sites import Site

#: Seconds of chaos: by default, and with ``--long``.
SHORT = 10.0
LONG = 300.0

WORKERS = 3


@pytest.mark.timeout(600)
def test_every_accepted_event_is_one_completed_run(
    shaky_site: Site, pytestconfig: pytest.Config
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chaos = Chaos(shaky_site, random.Random(seed))
    chaos.reign(LONG if pytestconfig.getoption("--long", False) else SHORT)
    chaos.heal()

    assert len(chaos.accepted) > 3  # else there was nothing to go wrong
    shaky_site.are("completed", *chaos.accepted, timeout=120)
    assert shaky_site.count("completed") == len(chaos.accepted)
    shaky_site.no_committed_step_ran_again()
    done = {(line["run"], line["step"]) for line in shaky_site.trace("end")}
    assert len(done) == 5 * len(chaos.accepted)
    shaky_site.are_empty()
    with shaky_site.app.app_context():
        totals = durable.state_of(shaky_site.app).run_counts.totals()
    number = len(chaos.accepted)
    assert totals == {"five": {"started": number, "completed": number}}


class Chaos:
    """Sends events while it takes processes and the state server down and up again."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site = site
        self.chance = chance
        self.accepted: list[str] = []
        self._workers: list[Process] = []
        self._stopped: list[Process] = []
        self._server_starts: float | None = None

    def reign(self, seconds: float) -> None:
        """Do one thing after another, for so long."""
        self._workers = [self.site.worker() for _ in range(WORKERS)]
        for worker in self._workers:
            worker.says("is ready")
        end = time.monotonic() + seconds
        misdeeds: list[t.Callable[[], None]] = [
            self._kill_a_worker,
            self._stop_a_worker,
            self._continue_a_worker,
            self._kill_the_server,
            self._repeat_messages,
            self._repeat_messages,
        ]
        while time.monotonic() < end:
            self._send()
            self._restart_the_server()
            if self.chance.random() < 0.25:
                self.chance.choice(misdeeds)()
            time.sleep(self.chance.uniform(0.05, 0.25))

    def heal(self) -> None:
        """Let everything run again."""
        while self._stopped:
            self._continue_a_worker()
        self._restart_the_server(now=True)
        while len(self._workers) < WORKERS:
            self._workers.append(self.site.worker())

    def _send(self) -> None:
        event = f"chaos-{len(self.accepted)}"
        # What is not accepted is sent again with the same id, as a client does it.
        with contextlib.suppress(UnavailableError):
            self.site.send("work/five", event, pace=self.chance.uniform(0, 0.2))
            self.accepted.append(event)

    def _kill_a_worker(self) -> None:
        victim = self.chance.choice(self._workers)
        self._workers.remove(victim)
        if victim in self._stopped:
            self._stopped.remove(victim)
        victim.kill()
        self._workers.append(self.site.worker())

    def _stop_a_worker(self) -> None:
        victim = self.chance.choice(self._workers)
        if victim not in self._stopped:
            victim.signal(signal.SIGSTOP)
            self._stopped.append(victim)

    def _continue_a_worker(self) -> None:
        if self._stopped:
            self._stopped.pop().signal(signal.SIGCONT)

    def _kill_the_server(self) -> None:
        if self._server_starts is None:
            self.site.valkey.kill()
            self._server_starts = time.monotonic() + self.chance.uniform(0, 1)

    def _restart_the_server(self, now: bool = False) -> None:
        due = self._server_starts
        if due is not None and (now or time.monotonic() > due):
            self._server_starts = None
            self.site.valkey.start()

    def _repeat_messages(self) -> None:
        """Send messages again of runs that are waiting, being run, or long over."""
        if self._server_starts is not None or not self.accepted:
            return
        events = self.chance.choices(self.accepted, k=5)
        messages = [
            RunMessage(run.id, run.function, int(run.created.timestamp() * 1000))
            for run in self.site.runs_of(*events)
        ]
        broker = durable.state_of(self.site.app).broker
        broker.send("default", [message.encode() for message in messages])
