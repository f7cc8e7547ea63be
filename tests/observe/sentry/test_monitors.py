"""The monitor of Sentry's that a run checks in at."""

from __future__ import annotations

import json
import typing as t
import uuid

import pytest

from flask_durable.events.builtin import SCHEDULE_HEADER
from flask_durable.middleware import AttemptInfo
from flask_durable.middleware import EventInfo
from flask_durable.observe.sentry.monitors import CheckIn


def attempt(function: str = "report", **given: t.Any) -> AttemptInfo:
    schedule = {
        "expression": "0 4 * * *",
        "timezone": "UTC",
        "jitter": 0.0,
        "number": 1,
        "timeout": None,
        **given,
    }
    headers = {SCHEDULE_HEADER: json.dumps(schedule)}
    event = EventInfo("durable/cron.tick", "e1", 0, headers)
    return AttemptInfo("r1", function, "default", event, 1, 0, 0, 0, 0, 10)


def check_in(*args: t.Any, **given: t.Any) -> CheckIn:
    found = CheckIn.of(attempt(*args, **given))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("function", "number", "slug"),
    [
        ("report", 1, "report"),
        ("report", 2, "report-2"),
        ("report-2", 1, "report-2-"),
        ("Reports.nightly", 1, "reports-nightly-"),
        ("größe", 1, "gr-e-"),
        ("é", 3, "function-3-"),
        ("x" * 50, 1, "x" * 50),
        ("x" * 80, 1, "x" * 41 + "-"),
        ("x" * 80, 12, "x" * 38 + "-12-"),
    ],
)
def test_a_monitor_has_the_function_s_name_as_sentry_takes_it(
    function: str, number: int, slug: str
) -> None:
    found = check_in(function, number=number).slug
    assert found.startswith(slug)
    assert len(found) == len(slug) + 8 * slug.endswith("-") <= 50


def test_no_two_schedules_share_a_monitor() -> None:
    long = "x" * 60
    functions = ["a.b", "a-b", "A-b", "a_b", "a", "a-2", long + "1", long + "2"]
    slugs = [
        check_in(function, number=number).slug
        for function in functions
        for number in (1, 2)
    ]
    assert len(set(slugs)) == len(slugs)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"timeout": 61.0}, {"max_runtime": 2}),
        ({"timeout": 90 * 86400.0}, {"max_runtime": 40_320}),
        ({"jitter": 30.0}, {"checkin_margin": 2}),
        ({"jitter": 600.0}, {"checkin_margin": 11}),
    ],
)
def test_a_monitor_waits_for_the_delay_and_the_time_that_a_run_may_take(
    given: dict[str, t.Any], expected: dict[str, int]
) -> None:
    config = check_in(**given).config
    schedule = {"type": "crontab", "value": "0 4 * * *"}
    assert config == {"schedule": schedule, "timezone": "UTC", **expected}


def test_all_attempts_of_a_run_are_one_check_in() -> None:
    first, second = check_in(), check_in()
    assert first.id == second.id == uuid.UUID(first.id).hex


def test_a_run_of_an_event_that_such_a_run_sent_checks_in_nowhere() -> None:
    sent = attempt()
    sent.event = EventInfo("mail/wanted", "e2", 0, sent.event.headers)
    assert CheckIn.of(sent) is None
    sent.event = EventInfo("durable/cron.tick", "e3", 0, {})
    assert CheckIn.of(sent) is None


def test_a_branch_of_such_a_run_checks_in_nowhere() -> None:
    branch = attempt()
    branch.branch = "chunks[3]"
    assert CheckIn.of(branch) is None
