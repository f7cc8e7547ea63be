"""The tasks of ``cron.yaml``: each does what is due."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import UTC

import pytest

from flask_durable import Cron
from flask_durable import Event
from flask_durable import Step
from flask_durable.messages import EVENT_QUEUE

from ...support.harness import Harness
from ...support.servers import wait_until
from .sqsd import Daemon


def test_a_task_does_what_is_due(pushed: Harness, daemon: Daemon) -> None:
    @pushed.durable.function(on="work/asked")
    def naps(event: Event[t.Any], step: Step) -> str:
        step.sleep("nap", "1h")
        return "woken"

    id = pushed.send("work/asked", {})
    daemon.drain()
    pushed.move_clock(3601)
    assert daemon.task("sweep", "2026-11-25T10:00:00Z") == 200
    daemon.drain()
    assert pushed.run_of(id).result == "woken"


def test_a_task_with_the_name_of_a_scheduled_function_starts_it_once(
    pushed: Harness, daemon: Daemon
) -> None:
    @pushed.durable.function(on=Cron("0 0 1 1 *"), id="report")
    def report(event: Event[t.Any], step: Step) -> str:
        return str(event.data.scheduled_at)

    for _ in range(3):
        assert daemon.task("report", "2026-11-25T10:00:00Z") == 200
        daemon.drain()
    (run,) = pushed.runs.list(function="report")
    assert pushed.runs.get(run.id).result == "2026-11-25 10:00:00+00:00"


@pytest.mark.parametrize(
    ("name", "scheduled"),
    [
        ("nobody", "2026-11-25T10:00:00Z"),
        ("report", "soon"),
        ("report", ""),
        ("report", "0001-01-01T00:00:00Z"),
        ("report", "9999-12-31T23:59:59-10:00"),
    ],
)
def test_a_task_that_names_nothing_is_a_tick_all_the_same(
    pushed: Harness, daemon: Daemon, name: str, scheduled: str
) -> None:
    pushed.durable.function(on=Cron("0 0 1 1 *"), id="report")(lambda event, step: 1)
    assert daemon.task(name, scheduled) == 200
    assert pushed.runs.list() == []


def test_a_function_is_started_by_its_schedule_without_any_worker(
    pushed: Harness, daemon: Daemon
) -> None:
    # Half an hour from now, so that none comes while the test runs.
    hourly = f"{(datetime.now(UTC).minute + 30) % 60} * * * *"
    pushed.durable.function(on=Cron(hourly), id="report")(lambda event, step: 1)
    pushed.publish()
    directory = pushed.state.directory
    directory.schedule_marks({f"report {hourly} UTC": 0}, directory.remembered.version)
    pushed.move_clock(3600)
    assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200

    def completed() -> bool:
        daemon.drain()
        return [run.status.value for run in pushed.runs.list()] == ["completed"]

    wait_until(completed, "the run of the tick", 30)


def test_a_run_whose_message_vanished_goes_on_after_a_task(
    pushed: Harness, daemon: Daemon
) -> None:
    for name in ("one", "two"):
        pushed.durable.function(on="work/asked", id=name)(lambda event, step: None)
    id = pushed.send("work/asked", {})
    daemon.deliver(EVENT_QUEUE)
    # So that it counts as sent.
    assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200
    (message,) = daemon.receive("default")
    daemon.settle("default", message, 200)
    assert daemon.left() == 0

    (queued,) = [run for run in pushed.runs.of_event(id) if not run.status.finished]
    key = f"{pushed.state.store.keys.tag_of(queued.id)}:run:{queued.id}"
    pushed.state.server.client.hincrby(key, "queued_at", -61_000)
    pushed.move_clock(61)
    assert daemon.task("tick", "2026-11-25T10:00:00Z") == 200
    daemon.drain()
    assert pushed.runs.get(queued.id).status == "completed"
