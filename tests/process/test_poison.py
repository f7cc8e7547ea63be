"""Events that nobody can process, among many that are fine."""

from __future__ import annotations

import itertools
import pathlib
import random
import typing as t
from collections import Counter

import pytest

from flask_durable import DeadLetter
from flask_durable.dead_letters.dead_letters import DeadLetters
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.queue.transport import QueueCounts

from ..support.servers import wait_until
from .sites import Site

#: Events, by default and with ``--long``. A message of moto's SQS costs milliseconds.
EVENTS = {"redis": 1000, "sqs": 160}
LONG = 10_000

#: One of so many is bad, in one of three ways.
ONE_IN = 20

#: The beginning of the reason of each kind.
REASONS = {
    "garbled": "not JSON",
    "unfit": "The data of 'meal/served'",
    "hot": "The event 'meal/served' cannot be checked: it made its schema raise "
    "RuntimeError.",
}

#: Those that are fine once the code is.
CURABLE = ("hot",)


@pytest.mark.timeout(900)
def test_every_good_event_runs_once_and_every_bad_one_is_dead_with_its_reason(
    any_site: Site, pytestconfig: pytest.Config
) -> None:
    long = pytestconfig.getoption("--long", False)
    count = LONG if long else EVENTS[any_site.kind]
    good, bad = count - count // ONE_IN, count // ONE_IN
    kinds = dict(zip(map(str, range(bad)), itertools.cycle(REASONS), strict=False))
    serve(any_site, [meal(n, "soup") for n in range(good)], kinds)
    for _ in range(2):
        any_site.ready(threads=4)

    any_site.counts("completed", good, timeout=600)
    letters = any_site.state.dead_letters

    def found() -> list[DeadLetter]:
        return letters.list(queue=EVENT_QUEUE, limit=count)

    wait_until(
        lambda: {number_of(letter): kind_of(letter) for letter in found()} == kinds,
        f"{bad} dead letters, each with its reason",
        600,
    )
    wait_until(
        lambda: any_site.queues()[0] == QueueCounts(0, 0, 0, letters.count()),
        "nothing else is left",
    )
    # SQS moves none in one step: one may be there twice, if its mover came late.
    assert len(found()) == bad or any_site.kind == "sqs"
    any_site.each_step_ran_once()
    assert len(any_site.trace()) == good

    cured = sum(Counter(kinds.values())[kind] for kind in CURABLE)
    cure(any_site, letters)
    any_site.counts("completed", good + cured)
    any_site.each_step_ran_once()
    assert len(any_site.trace()) == good + cured
    kept = {number for number, kind in kinds.items() if kind not in CURABLE}
    wait_until(lambda: {number_of(letter) for letter in found()} == kept)


def serve(site: Site, meals: list[str], kinds: t.Mapping[str, str]) -> None:
    """Send *meals* and the bad ones, in no order."""
    bodies = meals + [bad_one(number, kind) for number, kind in kinds.items()]
    random.Random(1).shuffle(bodies)
    outcomes = site.state.message_sender.send(EVENT_QUEUE, bodies)
    assert outcomes == [None] * len(bodies)


def cure(site: Site, letters: DeadLetters) -> None:
    """Repair what some of the bad ones died of, and let them be processed again."""
    pathlib.Path(f"{site.environment['TEST_TRACE']}.antidote").touch()
    for kind in CURABLE:
        handled = letters.redrive(queue=EVENT_QUEUE, reason=REASONS[kind])
        assert (handled.failed, handled.complete) == (0, True)


def bad_one(number: str, kind: str) -> str:
    if kind == "garbled":
        return f"{{nonsense bad-{number}."
    return meal(f"bad-{number}.", 7 if kind == "unfit" else kind)


def meal(id: t.Any, dish: str | int) -> str:
    return EventMessage("meal/served", {"dish": dish}, str(id), at=1).encode()


def number_of(letter: DeadLetter) -> str:
    return letter.body.partition("bad-")[2].partition(".")[0]


def kind_of(letter: DeadLetter) -> str:
    fits = [kind for kind, text in REASONS.items() if letter.reason.startswith(text)]
    return fits[0] if fits else letter.reason
