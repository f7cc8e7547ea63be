"""``flask durable stats``: what it tells of runs that were executed."""

from __future__ import annotations

import json
import time
import typing as t

import pytest

from flask_durable import Event
from flask_durable import NonRetriable
from flask_durable import Step

from ..support.harness import Harness
from .commands import Run
from .commands import runner_of


@pytest.fixture
def executed(harness: Harness) -> Harness:
    """An app whose runs completed, failed after a retry, and sleep."""
    errors = [ValueError("again"), NonRetriable("never")]

    def explode() -> None:
        raise errors.pop(0)

    @harness.durable.function(on="work/asked")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("one", time.monotonic)
        step.run("two", time.monotonic)

    @harness.durable.function(on="repair/asked", retries=1)
    def repair(event: Event[t.Any], step: Step) -> None:
        step.run("repair", explode)

    @harness.durable.function(on="nap/asked")
    def nap(event: Event[t.Any], step: Step) -> None:
        step.sleep("nap", "30d")

    for name in ("work/asked", "work/asked", "repair/asked", "nap/asked"):
        harness.send(name, {})
    harness.settle()
    harness.advance(3600)
    harness.state.histograms.flush()
    return harness


@pytest.fixture
def run(executed: Harness) -> Run:
    return runner_of(executed.app)


def found(run: Run, *arguments: str) -> dict[str, dict[str, t.Any]]:
    result = run("stats", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return {each["function"]: each for each in json.loads(result.stdout)}


def test_runs_are_counted_by_how_they_ended(run: Run) -> None:
    stats = found(run)

    assert list(stats) == ["nap", "repair", "work"]
    counts = ("started", "completed", "failed", "cancelled", "failure_rate")
    assert [stats["work"][each] for each in counts] == [2, 2, 0, 0, 0.0]
    assert [stats["repair"][each] for each in counts] == [1, 0, 1, 0, 1.0]
    assert [stats["nap"][each] for each in counts] == [1, 0, 0, 0, None]


def test_each_time_is_measured_as_often_as_it_happened(run: Run) -> None:
    stats = found(run)

    def measured(function: str) -> list[int]:
        times = ("run", "step", "queue_wait", "service")
        return [(stats[function][each] or {"count": 0})["count"] for each in times]

    # Runs that ended, attempts of steps, claims, and deliveries.
    assert measured("work") == [2, 4, 2, 2]
    assert measured("repair") == [1, 2, 2, 2]
    assert measured("nap")[:2] == [0, 0]
    run_times = stats["work"]["run"]
    assert 0 < run_times["p50"] <= run_times["p95"] <= run_times["p99"] < 60


def test_a_function_can_be_chosen_and_one_without_runs_has_no_stats(run: Run) -> None:
    assert list(found(run, "--function", "work", "--since", "90m")) == ["work"]
    assert found(run, "--function", "unknown") == {}
    assert "No runs in that time." in run("stats", "--function", "unknown").stderr


def test_elsewhere_than_on_a_terminal_it_is_one_line_a_function(run: Run) -> None:
    lines = run("stats").stdout.splitlines()

    cells = dict((line.split("\t")[0], line.split("\t")[1:]) for line in lines)
    assert cells["repair"][:5] == ["1", "0", "1", "0", "100.0%"]
    assert cells["nap"][4:7] == ["-", "-", "-"]
    assert cells["work"][5].count("/") == 2


@pytest.mark.parametrize("since", ["0s", "192h", "soon"])
def test_a_time_for_which_nothing_is_kept_is_wrong_usage(run: Run, since: str) -> None:
    result = run("stats", "--since", since)

    assert result.exit_code == 2
    assert "--since" in result.stderr
