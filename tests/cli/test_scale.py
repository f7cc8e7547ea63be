"""``flask durable scale``: what it refuses, how it ends, and whose turn it is."""

from __future__ import annotations

import dataclasses
import itertools
import typing as t

import pytest
from click.testing import Result

from flask_durable.cli import durable_cli
from flask_durable.cli import scale as command

from ..support.harness import Harness
from ..support.servers import free_port
from ..support.servers import ValkeyServer

COMMAND = {"platform": "command", "read": "echo 0", "apply": "true {n}"}


@pytest.fixture
def scale(valkey: ValkeyServer, namespace: str) -> t.Iterator[t.Callable[..., Result]]:
    """Run the command of an app with one pool of its own and one of RQ."""
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    pools = {
        "default": {"desired_wait": "5s", "period": "5m", "platform": COMMAND},
        "legacy": {
            "desired_wait": "5s",
            "platform": COMMAND,
            "introspector": {"introspector": "rq", "url": nowhere},
        },
    }
    made = Harness(valkey.url, namespace, in_place=0, DURABLE_SCALE=pools)

    def scale(*arguments: str) -> Result:
        return t.cast(
            Result,
            made.app.test_cli_runner().invoke(durable_cli, ["scale", *arguments]),
        )

    yield scale
    made.close()


def test_queues_that_cannot_be_looked_at_are_a_failure_that_is_said(
    scale: t.Callable[..., Result],
) -> None:
    for how in ([], ["--quiet"], ["--explain"]):
        result = scale("--queue=legacy", *how)
        assert result.exit_code == command.SENSOR
        assert "The queues could not be read" in result.output
    assert scale("--queue=default").exit_code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        *(["--set=3", "--dry-run"], ["--pause", "--dry-run"]),
        *(["--loop=0s"], ["--set=3", "--for=0s"]),
    ],
)
def test_what_makes_no_sense_is_refused(
    scale: t.Callable[..., Result], wrong: list[str]
) -> None:
    assert scale("--queue=default", *wrong).exit_code == 2
    assert "by hand" not in scale("--queue=default").output


def test_a_loop_decides_by_its_own_period(
    scale: t.Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    periods: list[float] = []

    def loop(scalers: t.Any, period: float, **how: bool) -> None:
        periods.extend(scaler.options.period for scaler in scalers)

    monkeypatch.setattr(command, "_loop", loop)
    assert scale("--all", "--loop=15s").exit_code == 0
    assert periods == [15, 15]


@dataclasses.dataclass(eq=False)
class Pool:
    """A scaler, as far as a loop knows it."""

    name: str
    needed: bool = False

    def is_needed(self) -> bool:
        return self.needed


def test_a_pool_without_a_worker_comes_early_and_but_once_in_a_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(command.time, "sleep", slept.append)
    served, deserted = Pool("served"), Pool("deserted", needed=True)
    turns = command._turns(t.cast("t.Any", [served, deserted]), 2.5)

    found = [pool and pool.name for pool in itertools.islice(turns, 2 * 6)]

    period = ["served", "deserted", None, "deserted", None, None]
    assert t.cast("list[t.Any]", found) == 2 * period
    assert slept == 2 * [1, 1, 0.5]
