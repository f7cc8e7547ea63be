"""The view that an operator has of values that this process cannot read."""

from __future__ import annotations

import json
import typing as t

import pytest
from click.testing import Result

from flask_durable import Durable
from flask_durable import Event
from flask_durable import Step
from flask_durable import StepError
from flask_durable.cli import durable_cli
from flask_durable.payloads.cipher import check_encryption_key
from flask_durable.payloads.cipher import new_encryption_key

from ..support.harness import Harness
from .conftest import LARGE
from .conftest import Make


def command(harness: Harness, *args: str) -> Result:
    return harness.app.test_cli_runner().invoke(durable_cli, list(args))


def workload() -> Durable:
    durable = Durable()

    def refuse() -> None:
        raise ValueError("no")

    @durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> str:
        text = step.run("text", lambda: str(event.data["text"]))
        with pytest.raises(StepError):
            step.run("refused", refuse)
        return text

    return durable


@pytest.fixture
def locked(make: Make) -> tuple[Harness, str]:
    """A process without the key of a run, and the run's id."""
    sender = make(durable=workload(), DURABLE_ENCRYPTION_KEYS=new_encryption_key())
    run = sender.send_and_settle("a/b", {"text": "secret"})
    return make(
        durable=workload(), DURABLE_ENCRYPTION_KEYS=new_encryption_key()
    ), run.id


def test_a_run_is_shown_as_far_as_it_can_be_read(locked: tuple[Harness, str]) -> None:
    harness, run_id = locked

    result = command(harness, "runs", "show", run_id)

    assert result.exit_code == 0, result.output
    for part in (run_id, "completed", "a/b", "text", "refused"):
        assert part in result.output
    assert result.output.count("cannot be read (payload.locked)") == 2
    assert "secret" not in result.output


def test_json_lists_what_cannot_be_read(locked: tuple[Harness, str]) -> None:
    harness, run_id = locked

    shown = json.loads(command(harness, "runs", "show", run_id, "--json").stdout)

    assert (shown["status"], shown["result"]) == ("completed", None)
    assert (shown["event"]["name"], shown["event"]["data"]) == ("a/b", None)
    assert [(item["field"], item["code"]) for item in shown["unreadable"]] == [
        ("event", "payload.locked"),
        ("result", "payload.locked"),
        ("steps['text'].value", "payload.locked"),
        ("steps['refused'].failure", "payload.locked"),
    ]


def test_a_list_of_runs_needs_no_key(locked: tuple[Harness, str]) -> None:
    harness, run_id = locked

    result = command(harness, "runs", "list")

    assert result.exit_code == 0, result.output
    assert run_id in result.output
    assert "a/b" in result.output


def test_a_run_with_large_values_is_shown_like_any_other(
    make: Make, files: t.Any
) -> None:
    harness = make(durable=workload(), DURABLE_BLOB_URL=files.url)
    run = harness.send_and_settle("a/b", {"text": "x" * LARGE})

    shown = json.loads(command(harness, "runs", "show", run.id, "--json").stdout)

    assert shown["result"] == shown["event"]["data"]["text"] == "x" * LARGE
    assert "unreadable" not in shown


def test_a_new_key_is_one_that_the_app_takes(make: Make) -> None:
    made = json.loads(
        command(make(), "secret", "--kind", "encryption", "--json").output
    )

    (key,) = [value for value in made.values() if len(value) == 44]
    assert check_encryption_key(key) == key
    assert make(DURABLE_ENCRYPTION_KEYS=key).state.payloads.plain is False
