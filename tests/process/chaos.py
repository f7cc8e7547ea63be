"""Chaos: events are sent while faults happen at random; afterwards all is counted.

Each test of this kind lets faults happen for some seconds, and prints its seed
(``--chaos-seed``). ``pytest --chaos 3600 tests/process`` makes an hour of it, which the
chosen tests share. With ``-rP`` each test prints the faults that it let happen. The
same has to hold after all of them: see :meth:`Chaos.judge`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import time
import typing as t
import urllib.error
import urllib.request
from collections import Counter

from flask_durable import UnavailableError
from flask_durable.messages import RunMessage

from .app import durable
from .sites import Process
from .sites import Site

#: Seconds of chaos in each test: by default, and with ``--long``.
SHORT = 5.0
LONG = 300.0

HOUR = 3600.0

#: Seconds that all accepted events may take once everything runs again.
RECOVERY = 120.0


class Kind(t.NamedTuple):
    """Events of one name: the function that they start, and all that comes of it.

    :param steps: The number of steps, those of other runs included.
    :param others: The functions of the runs that this one sets in motion.
    """

    function: str
    steps: int
    others: tuple[str, ...] = ()


KINDS = {
    "work/five": Kind("five", 5),
    "work/snooze": Kind("snooze", 2),
    "work/tangled": Kind("tangled", 8, ("errand", "teller")),
    "work/grown": Kind("grow", 1),
    "work/added": Kind("grow", 1),
    "work/sized": Kind("fit", 1),
    "work/fresh": Kind("fresh", 1),
    "work/broken": Kind("broken", 3),
}

EVENT_KEY = "evk_" + 43 * "a"

Misdeed = t.Callable[[], None]


class Chaos:
    """Sends events while it does one misdeed after another.

    :param site: The site that it happens in.
    :param chance: The source of random choices.
    """

    #: The number of workers.
    size = 3
    #: The names of events; one that is listed twice is sent more often.
    names: t.ClassVar = [*["work/five"] * 3, "work/snooze", "work/tangled"]

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site = site
        self.chance = chance
        #: The names of the events that were accepted, by id.
        self.accepted: dict[str, str] = {}
        self.workers: list[Process] = []
        #: The number of tries of each misdeed.
        self.did: Counter[str] = Counter()
        self._sent = 0
        self._stopped: list[Process] = []
        self._ended: list[Process] = []

    def misdeeds(self) -> list[Misdeed]:
        """Return the possible faults; one that is listed twice happens more often."""
        return [
            self.kill_a_worker,
            self.stop_a_worker,
            self.continue_a_worker,
            self.repeat_messages,
        ]

    def mend(self) -> None:
        """Mend the faults so far; called all the time."""

    # -- The reign ----------------------------------------------------------------

    def reign(self, seconds: float) -> None:
        """Let faults happen for some seconds, each at least once, and then heal."""
        self.workers = [self.worker() for _ in range(self.size)]
        for worker in self.workers:
            worker.says("is ready")
        misdeeds = self.misdeeds()
        due = list(dict.fromkeys(misdeeds))
        self.chance.shuffle(due)
        end = time.monotonic() + seconds
        while due or time.monotonic() < end:
            self.send()
            self.mend()
            if self.chance.random() < 0.25:
                misdeed = due.pop() if due else self.chance.choice(misdeeds)
                misdeed()
                self.did[misdeed.__name__.strip("_")] += 1
            time.sleep(self.chance.uniform(0.05, 0.25))
        self.heal()
        print(f"{seconds:.0f} s, {len(self.accepted)} events: {dict(self.did)}")

    def heal(self) -> None:
        """Let everything run again."""
        while self._stopped:
            self.continue_a_worker()

    def worker(self) -> Process:
        """Start a worker."""
        return self.site.worker()

    def event(self) -> tuple[str, dict[str, t.Any]]:
        """Return name and data of the next event."""
        name = self.chance.choice(self.names)
        return name, {"pace": self.chance.uniform(0, 0.2)}

    def send(self) -> None:
        """Send one event."""
        self._sent += 1
        name, data = self.event()
        event = f"chaos-{self._sent}"
        # An event that is not accepted may be there all the same, so it is repeated.
        deadline = time.monotonic() + RECOVERY
        while not self.sends(event, name, data):
            assert time.monotonic() < deadline, f"nobody accepts {event}"
            self.mend()
            time.sleep(0.05)
        self.accepted[event] = name

    def sends(self, event: str, name: str, data: dict[str, t.Any]) -> bool:
        """Send an event once; return whether it was accepted."""
        with contextlib.suppress(UnavailableError):
            self.site.send(name, event, **data)
            return True
        return False

    # -- Misdeeds -----------------------------------------------------------------

    def kill_a_worker(self) -> None:
        """Kill a worker at once, and start another one."""
        victim = self._victim()
        victim.kill()
        self.workers.append(self.worker())

    def end_a_worker(self) -> None:
        """Ask a worker to go, as in a deploy, and start another one."""
        self.end(self._victim())
        self.workers.append(self.worker())

    def stop_a_worker(self) -> None:
        """Stop a worker's process where it is."""
        victim = self.chance.choice(self.workers)
        if victim not in self._stopped:
            victim.signal(signal.SIGSTOP)
            self._stopped.append(victim)

    def continue_a_worker(self) -> None:
        """Let one go on that was stopped."""
        if self._stopped:
            self._stopped.pop().signal(signal.SIGCONT)

    def repeat_messages(self) -> None:
        """Send messages again of runs that are waiting, being run, or long over."""
        with contextlib.suppress(UnavailableError):
            events = self.chance.choices([*self.accepted, "none"], k=5)
            messages = [
                RunMessage(run.id, run.function, int(run.created.timestamp() * 1000))
                for run in self.site.runs_of(*events)
            ]
            broker = durable.state_of(self.site.app).broker
            broker.sender.send("default", [message.encode() for message in messages])

    def end(self, worker: Process) -> None:
        """Ask a worker to go."""
        worker.signal(signal.SIGCONT)
        if "is ready" in worker.output:
            self._ended.append(worker)
        worker.signal(signal.SIGTERM)

    def _victim(self) -> Process:
        victim = self.chance.choice(self.workers)
        self.workers.remove(victim)
        if victim in self._stopped:
            self._stopped.remove(victim)
        return victim

    # -- Afterwards ---------------------------------------------------------------

    def judge(self) -> None:
        """Check that each accepted event is one run that was completed.

        No committed step was begun again, each step has come to its end, the counts of
        runs are right, and no message is left anywhere.
        """
        events, site = self.accepted, self.site
        assert len(events) > 3  # otherwise no fault could have mattered
        site.counts("completed", self.runs_of(*events), timeout=RECOVERY)
        site.are("completed", *events)
        site.no_committed_step_ran_again()
        kinds = Counter(KINDS[name] for name in events.values())
        done = {(line["run"], line["step"]) for line in site.trace("end")}
        # Each step has come to its end, however often a death kept it from that.
        assert len(done) == sum(kind.steps * count for kind, count in kinds.items())
        site.are_empty()
        assert [worker.wait() for worker in self._ended] == [0] * len(self._ended)
        self._runs_were_counted(kinds)

    def runs_of(self, *events: str) -> int:
        """Return the number of runs that come of some events."""
        return sum(1 + len(KINDS[self.accepted[event]].others) for event in events)

    def _runs_were_counted(self, kinds: Counter[Kind]) -> None:
        expected: dict[str, Counter[str]] = {}
        for kind, number in kinds.items():
            for function in (kind.function, *kind.others):
                counts = expected.setdefault(function, Counter())
                counts.update(started=number, completed=number)
        with self.site.app.app_context():
            totals = durable.state_of(self.site.app).run_counts.totals()
        assert totals == expected


def post(address: str, event: str, name: str, data: dict[str, t.Any]) -> int | None:
    """Post an event to a web process; return the status, or None without an answer."""
    request = urllib.request.Request(
        f"{address}/durable/events",
        json.dumps({"name": name, "id": event, "data": data}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {EVENT_KEY}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None
