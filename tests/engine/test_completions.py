"""The lines of runs that completed are logged in one go, and none is lost."""

from __future__ import annotations

import logging
import threading

import pytest

from flask_durable.engine import completions
from flask_durable.engine.completions import Completions

from ..support.servers import wait_until


@pytest.fixture(autouse=True)
def informed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flask_durable")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_lines_of_many_threads_are_all_logged_in_a_moment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    completed = Completions()
    completed.start()
    names = [f"run-{number}" for number in range(100)]
    threads = [
        threading.Thread(target=lambda part=part: [completed.add(n, "f") for n in part])
        for part in (names[:50], names[50:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    wait_until(lambda: len(caplog.records) == 100, "the lines")
    assert sorted(told(caplog)) == sorted(f"Run {n} of f completed." for n in names)
    completed.close()


def test_a_process_that_ends_logs_what_is_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "PAUSE", 60)
    completed = Completions()
    completed.start()
    completed.add("one", "f")
    completed.add("two", "f")

    completed.close()
    completed.add("three", "f")

    assert told(caplog) == [f"Run {n} of f completed." for n in ("one", "two", "three")]


def test_a_line_is_logged_at_once_where_no_thread_was_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Completions().add("one", "f")

    assert told(caplog) == ["Run one of f completed."]
