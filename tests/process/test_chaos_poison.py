"""Events and runs that kill or hang what takes them, among many that are fine."""

from __future__ import annotations

import pathlib
import random

from flask_durable.common.redelivery import MAX_DELAY
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage

from ..support.servers import wait_until
from .chaos import Chaos
from .chaos import Misdeed
from .chaos import RECOVERY
from .sites import Process
from .sites import Site

#: The way the process ends each time: one at a time, or nothing else would ever go on.
DEADLY = ("filter dies", "run dies")

#: Seconds that all may take to end: an event that was received together with several
#: that killed their process waits out the pause for so many receives.
PATIENCE = RECOVERY + MAX_DELAY

#: Each kind of poison: name, data, and what may have come of it in the end. What is
#: taken only after there was an antidote completes.
KINDS: dict[str, tuple[str, dict[str, str], set[str]]] = {
    "filter dies": ("work/dies", {}, {"completed", "dead letter"}),
    "filter hangs": ("work/hangs", {}, {"completed", "failed"}),
    "filter panics": ("work/panics", {}, {"completed", "failed"}),
    "schema panics": ("meal/served", {"dish": "odd"}, {"completed", "dead letter"}),
    "run dies": ("work/poison", {"antidote": ""}, {"completed"}),
}


def test_poison_costs_itself_alone(
    any_site: Site, chance: random.Random, reign: float
) -> None:
    chaos = Poison(any_site, chance)
    chaos.reign(reign)
    chaos.judge()


class Poison(Chaos):
    """Sends some events that are poison, until there is an antidote."""

    size = 2

    def __init__(self, site: Site, chance: random.Random) -> None:
        super().__init__(site, chance)
        #: The kind of each event that is poison, by id.
        self.poison: dict[str, str] = {}
        self._antidote = pathlib.Path(f"{site.environment['TEST_TRACE']}.antidote")

    def misdeeds(self) -> list[Misdeed]:
        return [*super().misdeeds(), *[self._send_poison] * 8]

    def mend(self) -> None:
        for worker in [each for each in self.workers if not each.is_alive]:
            self.workers.remove(worker)
            self.workers.append(self.worker())

    def worker(self) -> Process:
        # More than makes a suspect: a run on trial may be killed by a filter's death or
        # a misdeed, and must not be paused for that at once.
        return self.site.worker(threads=4, FLASK_DURABLE_MAX_DISPATCHES="6")

    def heal(self) -> None:
        super().heal()
        for kind in KINDS:  # each at least once, with good ones around it
            self.send()
            self._send(kind)
            self.send()
            self.mend()
        self._antidote.touch()

    def judge(self) -> None:
        try:
            wait_until(self._has_ended, "what is poison to end", PATIENCE)
        except TimeoutError as error:
            outcomes = self._outcomes()
            found = {e: (kind, outcomes[e]) for e, kind in self.poison.items()}
            raise AssertionError(f"{error}: {found}") from None
        bad = list(self.poison)
        outcomes = self._outcomes()
        completed = [e for e in bad if outcomes[e] == "completed"]
        good = self.runs_of(*self.accepted)
        self.site.counts("completed", good + len(completed), timeout=RECOVERY)
        self.site.are("completed", *self.accepted)
        self.site.no_committed_step_ran_again()
        dead = self._dead()
        assert dead <= set(bad), dead
        # One may have come twice, and wait out a pause though its run is over.
        wait_until(self._is_over, "queues with dead letters alone", PATIENCE)

    def _has_ended(self) -> bool:
        self.mend()
        ended = True
        outcomes = self._outcomes()
        for event, kind in self.poison.items():
            outcome = outcomes[event]
            if outcome == "paused":
                self.site.resume(self.site.run_of(event).id)
            ended = ended and outcome in KINDS[kind][2]
        return ended

    def _is_over(self) -> bool:
        return all(
            queue.waiting == queue.in_flight == queue.delayed == 0
            for queue in self.site.queues()
        )

    def _is_deadly(self) -> bool:
        """True while an event or a run waits that ends the process that takes it."""
        outcomes = self._outcomes()
        return any(
            outcomes[event] not in ("paused", *KINDS[kind][2])
            for event, kind in self.poison.items()
            if kind in DEADLY
        )

    def _outcomes(self) -> dict[str, str]:
        """Return what has come of each poison so far, by event."""
        runs = self.site.runs_of(*self.poison)
        found = {run.event_id: run.status.value for run in runs}
        assert len(found) == len(runs), runs
        if len(found) < len(self.poison):
            found = {**dict.fromkeys(self._dead(), "dead letter"), **found}
        return {event: found.get(event, "none") for event in self.poison}

    def _dead(self) -> set[str]:
        letters = self.site.state.dead_letters.list(queue=EVENT_QUEUE, limit=1000)
        return {str(letter.event_id) for letter in letters}

    def _send_poison(self) -> None:
        self._send(self.chance.choice(list(KINDS)))

    def _send(self, kind: str) -> None:
        if kind in DEADLY and self._is_deadly():
            return
        name, data, _ = KINDS[kind]
        if "antidote" in data:
            data = {"antidote": str(self._antidote)}
        event = f"poison-{len(self.poison)}"
        # Past the sender, which would check it itself.
        message = EventMessage(name, data, event, at=1).encode()
        assert self.site.state.message_sender.send(EVENT_QUEUE, [message]) == [None]
        self.poison[event] = kind
