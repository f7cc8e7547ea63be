"""``step.send_event``."""

from __future__ import annotations

import typing as t

from flask_durable import Event
from flask_durable import Step

from ...support.harness import Harness
from ..bodies import run_body


def test_send_event_sends_once_and_its_ids_stay(harness: Harness) -> None:
    got: list[tuple[str, t.Any]] = []
    ids: list[list[str]] = []

    @harness.durable.function(on="made/*")
    def receive(event: Event[t.Any], step: Step) -> None:
        got.append((event.id, event.data))

    def body(event: Event[t.Any], step: Step) -> None:
        events = [Event("made/a", {"n": 1}), Event("made/b", {"n": 2}, id="mine")]
        ids.append(step.send_event("tell", *events))
        step.sleep("wait", 60)

    run_body(harness, body)
    harness.advance(61)

    assert ids[0] == ids[1]
    assert ids[0][1] == "mine"
    assert sorted(got) == sorted([(ids[0][0], {"n": 1}), ("mine", {"n": 2})])
