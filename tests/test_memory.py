"""Near the server's memory limit new events are refused, and old ones go on."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import UnavailableError

from .harness import Harness
from .servers import valkey_server


def test_a_full_server_refuses_new_events_and_finishes_the_accepted() -> None:
    key = "evk_" + "b" * 43
    with valkey_server(maxmemory="30mb") as server:
        harness = Harness(server.url, "full", DURABLE_EVENT_KEYS=key)

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> str:
            step.run("one", lambda: "x" * 100_000)
            step.sleep("rest", 60)
            return step.run("two", lambda: "done")

        accepted = harness.send("a/b")
        harness.settle()
        filler = 0
        while harness.state.memory._ask() < 0.95:
            harness.state.server.client.set(f"filler{filler}", "x" * 500_000)
            filler += 1
        harness.state.memory._ask_at = float("-inf")

        with pytest.raises(UnavailableError, match="full"):
            harness.send("a/b")
        answer = harness.app.test_client().post(
            "/durable/events",
            json={"name": "a/b"},
            headers={"Authorization": f"Bearer {key}"},
        )
        harness.advance(61)

        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        run = harness.run_of(accepted)
        assert (run.status, run.result) == (RunStatus.COMPLETED, "done")
        harness.close()
