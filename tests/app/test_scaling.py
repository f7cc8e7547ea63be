"""A pool's scaler counts what its platform calls a worker."""

from __future__ import annotations

import socket
import sys
import typing as t
from pathlib import Path

import pytest

from flask_durable import Event
from flask_durable import Step
from flask_durable.app.scaling import make_scaler
from flask_durable.app.scaling import pool_options
from flask_durable.app.scaling import pool_state_of
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.pool_state import Hold
from flask_durable.worker.beat import Beat
from flask_durable.worker.beat import UNIT

from ..support.harness import Harness

HOST = socket.gethostname()
THREADS = 2


@pytest.fixture
def make_pool(
    make_harness: t.Callable[..., Harness],
) -> t.Callable[[int, list[str]], Harness]:
    """Return a function that makes an app with a pool."""

    def make(asked: int, apply: list[str]) -> Harness:
        platform = {"platform": "command", "apply": apply}
        platform["read"] = [sys.executable, "-c", f"print({asked}, {asked})"]
        pool = {"desired_wait": "60s", "minimum": 1, "platform": platform}
        harness = make_harness(DURABLE_SCALE={"work": pool})
        harness.state.window.add(THREADS)

        @harness.durable.function(on="go", queue="work")
        def go(event: Event[t.Any], step: Step) -> None: ...

        return harness

    return make


def beat(harness: Harness, *ids: str) -> None:
    """Have idle workers of those *ids*."""
    for id in ids:
        Beat(harness.state, id, ["work"], THREADS).publish()


def run(harness: Harness) -> dict[str, t.Any]:
    report = make_scaler(harness.state, pool_options(harness.state, "work")).run()
    assert report.error is None
    return t.cast("dict[str, t.Any]", report.record["observation"])


def test_workers_on_one_host_are_counted_one_by_one(
    make_pool: t.Callable[..., Harness],
) -> None:
    harness = make_pool(3, ["true", "{n}"])
    beat(harness, "one", "two", "three")
    seen = run(harness)
    assert (seen["ready"], seen["booting"], seen["slots"]) == (3, 0, 2)


def test_processes_of_one_supervisor_count_as_one_worker(
    make_pool: t.Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_pool(2, ["true", "{n}"])
    for supervisor in ("left", "right"):
        monkeypatch.setenv(UNIT, supervisor)
        beat(harness, f"{supervisor}-1", f"{supervisor}-2")
    seen = run(harness)
    assert (seen["ready"], seen["booting"], seen["slots"]) == (2, 0, 4)


def test_where_workers_are_chosen_by_host_name_all_on_a_host_count_as_one(
    make_pool: t.Callable[..., Harness], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    script = f"import sys; open({str(told)!r}, 'w').write(sys.argv[1])"
    # Of its two workers one is on another host, and not heard of.
    harness = make_pool(2, [sys.executable, "-c", script, "{victims}", "{n}"])
    beat(harness, "one", "two")
    pool_state_of(harness.state, "work").order(Hold(1, "a test"), 60)
    seen = run(harness)
    assert (seen["ready"], seen["booting"], seen["slots"]) == (1, 1, 4)
    assert told.read_text() == HOST


@pytest.mark.parametrize(
    "options",
    [
        {"platform": "kubernetes", "deployment": "d", "url": "http://k", "token": "t"},
        {"platform": "fly", "app": "shop", "token": "t"},
        {"platform": "asg", "group": "shop", "region": "eu-west-1"},
        {
            "platform": "elasticbeanstalk",
            "environment": "shop",
            "region": "eu-west-1",
        },
    ],
)
def test_platforms_that_choose_by_host_name_say_so(options: dict[str, t.Any]) -> None:
    traits = make_platform(options).traits
    assert traits.by_host
    assert traits.picks_victims
