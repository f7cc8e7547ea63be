"""Schedules: one run for each instant, by any worker and however often.

The clock is moved by moving the marks of the schedules: an hour later is a mark that
was set an hour ago.
"""

from __future__ import annotations

import logging
import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import UTC
from itertools import pairwise

import pytest

from flask_durable import Cron
from flask_durable import CronTick
from flask_durable import Durable
from flask_durable import Event
from flask_durable import Run
from flask_durable import Step
from flask_durable.engine.schedule import ALL_MADE_UP
from flask_durable.engine.sweeper import Sweeper
from flask_durable.store.directory import names_of

from ..support.harness import Harness
from ..support.servers import ValkeyServer

EVERY_MINUTE = "* * * * *"
HOUR = 3600

#: Seconds between two instants of :func:`often`.
OFTEN = 600


def often(hours: str = "*") -> str:
    """Return an expression with six instants an hour, all of them minutes from now.

    So the number of instants in a time that has gone by is known, and no test depends
    on the moment when it runs.
    """
    first = (datetime.now(UTC).minute + 5) % 10
    minutes = ",".join(str(first + ten) for ten in range(0, 60, 10))
    return f"{minutes} {hours} * * *"


def scheduled(
    harness: Harness, *on: t.Any, id: str = "report", **options: t.Any
) -> None:
    @harness.durable.function(on=on, id=id, **options)
    def report(event: Event[t.Any], step: Step) -> t.Any:
        if isinstance(event.data, CronTick):
            tick = event.data
            return [tick.expression, tick.scheduled_at.timestamp(), event.id]
        return event.data


def runs(harness: Harness) -> list[Run]:
    """Return the runs that there are, the oldest instant first."""
    found = [harness.runs.get(run.id) for run in harness.runs.list(limit=100)]
    return sorted(found, key=lambda run: run.event.at)


def instants(harness: Harness) -> list[datetime]:
    return [run.event.at for run in runs(harness)]


def sweep(harness: Harness, later: float = 0) -> None:
    """Let time go by and sweep, as another process that looks for the first time."""
    harness.start()
    harness.move_clock(later)
    Sweeper(harness.state.services, harness.state.outbox, harness.state.admin).sweep()


def look(harness: Harness, later: float = 0) -> None:
    """Sweep, and execute what is ready."""
    sweep(harness, later)
    harness.settle()


def begin(harness: Harness) -> None:
    harness.start()
    harness.sweep()
    assert runs(harness) == []


def test_an_instant_that_has_come_starts_one_run_with_a_tick(
    any_harness: Harness,
) -> None:
    every_ten = often()
    scheduled(any_harness, Cron(every_ten))
    begin(any_harness)

    look(any_harness, OFTEN)

    (run,) = runs(any_harness)
    expression, at, event_id = run.result
    assert run.status == "completed"
    assert expression == every_ten
    assert at % 60 == 0
    assert 0 <= datetime.now(UTC).timestamp() - at < OFTEN
    assert any_harness.runs.of_event(event_id)[0].id == run.id


def test_several_who_look_at_the_same_time_start_one_run(harness: Harness) -> None:
    scheduled(harness, Cron(often()))
    begin(harness)
    state = harness.state
    sweepers = [Sweeper(state.services, state.outbox, state.admin) for _ in range(3)]
    harness.move_clock(OFTEN)
    marks = state.directory.schedule_marks
    # Each is told the mark from before the others had moved it.
    told: t.Any = None

    def stale(*asked: t.Any) -> t.Any:
        nonlocal told
        told = told or marks(*asked)
        return told

    state.directory.schedule_marks = stale  # type: ignore[method-assign]
    for sweeper in sweepers:
        sweeper.sweep()
    harness.settle()

    assert len(runs(harness)) == 1


def test_nothing_is_started_again_while_no_instant_comes(harness: Harness) -> None:
    scheduled(harness, Cron(often()))
    begin(harness)
    look(harness, OFTEN)
    look(harness)
    harness.sweep()
    harness.settle()
    assert len(runs(harness)) == 1


def test_a_death_between_the_run_and_the_mark_leaves_one_run(harness: Harness) -> None:
    scheduled(harness, Cron(often()))
    begin(harness)
    harness.move_clock(OFTEN)
    marks = harness.state.directory.schedule_marks
    calls = 0

    def dying(*asked: t.Any) -> t.Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return marks(*asked)

    harness.state.directory.schedule_marks = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        look(harness)
    harness.state.directory.schedule_marks = marks  # type: ignore[method-assign]

    look(harness)
    assert len(runs(harness)) == 1


def test_a_clock_that_jumps_ahead_and_back_starts_no_instant_twice(
    harness: Harness,
) -> None:
    scheduled(harness, Cron(EVERY_MINUTE))
    begin(harness)
    marks = harness.state.directory.schedule_marks
    ahead = begun = 0

    def jumping(*asked: t.Any) -> t.Any:
        nonlocal begun
        _, noted = marks(*asked)
        # The middle of the minute in which the schedule began: its seconds are not the
        # test's matter.
        begun = begun or min(noted.values()) // 60_000 * 60_000 + 30_000
        return begun + ahead, noted

    harness.state.directory.schedule_marks = jumping  # type: ignore[method-assign]
    for minutes in (3, 0, 1, 2, 3):
        ahead = minutes * 60_000
        look(harness)
        assert len(set(instants(harness))) == len(instants(harness)) == 3
    ahead = 240_000
    look(harness)
    assert len(instants(harness)) == 4


def test_of_a_long_downtime_the_latest_instant_is_made_up(harness: Harness) -> None:
    scheduled(harness, Cron("0 */2 * * *"))
    begin(harness)
    look(harness, 86400)
    (instant,) = instants(harness)
    assert datetime.now(UTC) - instant < timedelta(hours=2, minutes=1)


def test_of_a_short_downtime_every_instant_is_made_up(harness: Harness) -> None:
    scheduled(harness, Cron(EVERY_MINUTE))
    begin(harness)
    look(harness, 3600)
    made_up = instants(harness)
    assert len(made_up) == ALL_MADE_UP / 60_000
    assert {b - a for a, b in pairwise(made_up)} == {timedelta(minutes=1)}


def test_of_a_downtime_of_more_than_a_week_nothing_is_made_up(harness: Harness) -> None:
    scheduled(harness, Cron("0 */2 * * *"))
    begin(harness)
    look(harness, 8 * 86400)
    assert runs(harness) == []


def test_a_tick_with_jitter_starts_as_much_later_as_everybody_finds(
    harness: Harness,
) -> None:
    cron = Cron("0 0 * * *", jitter="1h")
    scheduled(harness, cron)
    harness.start()
    instant = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    instant = instant.replace(hour=0, minute=0, second=0) + timedelta(days=1)

    assert harness.sweeper.schedules.start("report", instant)

    (run,) = runs(harness)
    delay = timedelta(seconds=cron.delay("report", instant))
    assert run.status == "suspended"
    assert abs(run.event.at - instant - delay) < timedelta(milliseconds=2)
    assert run.event.data["scheduled_at"].startswith(f"{instant:%Y-%m-%dT00:00:00}")


def test_schedules_that_meet_make_one_tick_of_the_first(harness: Harness) -> None:
    first, second = often(), often("*/1")
    scheduled(harness, Cron(first), Cron(second))
    begin(harness)
    look(harness, OFTEN)
    (run,) = runs(harness)
    assert run.result[0] == first


def test_a_function_is_started_by_its_events_too(harness: Harness) -> None:
    scheduled(harness, Cron(often()), "order/placed")
    begin(harness)
    look(harness, OFTEN)
    run = harness.send_and_settle("order/placed", {"cents": 1})
    assert run.result == {"cents": 1}
    assert len(runs(harness)) == 2


def test_a_filter_is_asked_about_ticks(harness: Harness) -> None:
    scheduled(harness, Cron(often()), where=lambda event: False)
    begin(harness)
    look(harness, OFTEN)
    (run,) = runs(harness)
    assert (run.status, run.reason) == ("completed", "filtered")


def test_timeouts_and_queue_are_those_of_the_function(harness: Harness) -> None:
    scheduled(harness, Cron(often()), queue="nightly", start_timeout="1h")
    begin(harness)
    sweep(harness, OFTEN)
    (run,) = runs(harness)
    assert (run.status, run.queue) == ("queued", "nightly")
    sweep(harness, 3601)
    assert harness.runs.get(run.id).status == "cancelled"


# -- Versions of the code ---------------------------------------------------------


def other_version(harness: Harness, url: str) -> Harness:
    """Return another process of the same app, with functions of its own."""
    return Harness(url, harness.state.settings.namespace, durable=Durable())


def test_a_worker_without_the_code_leaves_the_schedule_alone(
    harness: Harness, valkey: ValkeyServer
) -> None:
    scheduled(harness, Cron(often()))
    begin(harness)
    old = other_version(harness, valkey.url)
    try:
        look(old, OFTEN)
        assert runs(harness) == []
    finally:
        old.close()


def test_a_worker_with_older_code_follows_what_was_published_last(
    harness: Harness, valkey: ValkeyServer
) -> None:
    scheduled(harness, Cron(often()))
    begin(harness)
    new = other_version(harness, valkey.url)
    try:
        scheduled(new, Cron("0 0 1 1 *"))
        begin(new)
        look(harness, OFTEN)
        assert runs(harness) == []
    finally:
        new.close()


def test_a_changed_schedule_makes_up_nothing_from_before_the_change(
    harness: Harness, valkey: ValkeyServer
) -> None:
    scheduled(harness, Cron("0 0 1 1 *"))
    begin(harness)
    harness.move_clock(3600)
    new = other_version(harness, valkey.url)
    try:
        scheduled(new, Cron(often()))
        begin(new)
        look(new)
        assert runs(new) == []
        look(new, OFTEN)
        assert len(runs(new)) == 1
    finally:
        new.close()


def test_a_schedule_that_comes_back_makes_up_nothing_of_the_time_between(
    harness: Harness, valkey: ValkeyServer
) -> None:
    scheduled(harness, Cron("0 */2 * * *"), Cron("30 0 1 1 *"))
    begin(harness)
    new = other_version(harness, valkey.url)
    try:
        scheduled(new, Cron("0 0 1 1 *"), Cron("30 0 1 1 *"))
        begin(new)
        # The old worker has not read the directory since, and looks once more.
        harness.sweeper.schedules._next_look = 0.0
        harness.sweeper.schedules.look()
        look(new, 7 * HOUR)
    finally:
        new.close()
    client, root = harness.state.server.client, harness.state.store.keys.root
    for name in names_of(new.durable.functions.specs()):
        client.zincrby(f"{root}:functions:seen", -HOUR * 1000, name)
    harness.publish()
    look(harness)
    assert runs(harness) == []
    look(harness, 2 * HOUR)
    assert len(runs(harness)) == 1


def test_of_two_versions_the_one_that_came_last_says_when(
    harness: Harness, valkey: ValkeyServer
) -> None:
    scheduled(harness, Cron(often()))
    begin(harness)
    new = other_version(harness, valkey.url)
    try:
        scheduled(new, Cron("0 0 1 1 *"))
        begin(new)
        harness.publish()  # one more process of the old release
        look(new, OFTEN)
        look(harness, OFTEN)
        assert runs(harness) == []
    finally:
        new.close()


def test_a_published_schedule_that_is_not_understood_is_said_and_skipped(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    scheduled(harness, Cron(often()))
    scheduled(harness, Cron(often()), id="other")
    begin(harness)
    spec = next(f.spec() for f in harness.durable.functions if f.id == "report")
    strange = [{"expression": "whenever", "timezone": "UTC", "jitter": 0}, {"x": 1}]
    harness.state.directory.publish({"report": {**spec, "crons": strange}})
    with caplog.at_level(logging.WARNING):
        look(harness, OFTEN)
    assert [run.function for run in runs(harness)] == ["other"]
    assert "The schedule of report" in caplog.text


# -- A task that another scheduler calls ------------------------------------------


def test_a_task_at_an_instant_of_the_schedule_is_that_instants_tick(
    harness: Harness,
) -> None:
    scheduled(harness, Cron(often()))
    begin(harness)
    look(harness, OFTEN)
    (run,) = runs(harness)

    for late in (0, 23.5):
        instant = run.event.at + timedelta(seconds=late)
        assert harness.sweeper.schedules.start("report", instant)
        harness.settle()
    assert len(runs(harness)) == 1


def test_a_task_at_another_time_starts_the_function_once(harness: Harness) -> None:
    scheduled(harness, Cron("0 0 1 1 *"))
    begin(harness)
    instant = datetime(2026, 5, 1, 12, 34, tzinfo=UTC)
    for _ in range(2):
        assert harness.sweeper.schedules.start("report", instant)
        harness.settle()
    (run,) = runs(harness)
    assert run.result[:2] == [None, instant.timestamp()]


def test_a_task_with_another_name_starts_nothing(harness: Harness) -> None:
    scheduled(harness, "order/placed")
    begin(harness)
    for name in ("report", "nobody", "", "report/on_failure"):
        assert not harness.sweeper.schedules.start(name, datetime.now(UTC))
    assert runs(harness) == []
