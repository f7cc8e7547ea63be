"""Notes of why messages failed: the last ones, for some time, per partition."""

from __future__ import annotations

import pytest

from flask_durable.store import message_failures as module
from flask_durable.store.keys import Keys
from flask_durable.store.message_failures import MessageFailures

from .kit import Kit


@pytest.fixture
def failures(kit: Kit) -> MessageFailures:
    return MessageFailures(kit.server, kit.keys)


def known(failures: MessageFailures, *about: str) -> dict[str, str]:
    return {one: failure.error for one, failure in failures.of(about).items()}


def test_the_last_error_is_known_with_its_time(
    kit: Kit, failures: MessageFailures
) -> None:
    failures.note({"event:a": "first", "run:b": "KeyError: 'x'\nand more"})
    failures.note({"event:a": "last"})
    assert known(failures, "event:a", "run:b", "run:a") == {
        "event:a": "last",
        "run:b": "KeyError: 'x'\nand more",
    }
    seconds, microseconds = kit.client.time()
    age = seconds * 1000 + microseconds / 1000 - failures.of(["event:a"])["event:a"].at
    assert 0 <= age < 60_000
    assert failures.of([]) == {}


def test_more_than_one_call_takes_are_noted_in_every_partition(kit: Kit) -> None:
    failures = MessageFailures(kit.server, Keys("spread", 3))
    errors = {f"event:{n}": f"error {n}" for n in range(1000)}
    failures.note(errors)
    assert known(failures, *errors) == errors
    assert len(kit.client.keys("{spread:*}:failures")) == 3


def test_the_oldest_go_when_there_are_too_many(
    kit: Kit, failures: MessageFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NOTED", 10)
    for n in range(5):
        failures.note({f"event:{n}-{m}": "old" for m in range(10)})
    failures.note({"event:new": "new"})
    assert kit.client.hlen(f"{kit.keys.root}:failures") == 10
    assert kit.client.zcard(f"{kit.keys.root}:failures:at") == 10
    assert known(failures, "event:new", "event:0-0") == {"event:new": "new"}


def test_those_whose_time_is_over_go(kit: Kit, failures: MessageFailures) -> None:
    failures.note({"event:old": "old", "event:kept": "kept"})
    days = module.REMEMBERED + 1000
    kit.client.zincrby(f"{kit.keys.root}:failures:at", -days, "event:old")
    failures.note({"event:new": "new"})
    assert known(failures, "event:old", "event:kept", "event:new") == {
        "event:kept": "kept",
        "event:new": "new",
    }
