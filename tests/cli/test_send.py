"""``flask durable send``: the event, its refusals, and the wait for its runs."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
import redis

from flask_durable import RunStatus
from flask_durable import UnavailableError
from flask_durable.cli import send as send_module
from flask_durable.extension import Durable as DurableClass
from flask_durable.store.directory import names_of

from ..support.harness import Harness
from .commands import rows
from .commands import Run
from .commands import working


def test_send_prints_the_event_id_alone(run: Run, driven: Harness) -> None:
    result = run("send", "greeting/asked", '{"name": "ada"}')
    assert result.exit_code == 0
    event_id = result.stdout.strip()
    done = driven.run_of_settled(event_id)
    assert done.result == {"greeting": "Ada"}


def test_send_takes_data_from_a_file_or_from_standard_input(
    run: Run, driven: Harness, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "event.json"
    path.write_text('{"name": "ada"}')
    first = run("send", "greeting/asked", f"@{path}").stdout.strip()
    second = run("send", "greeting/asked", "-", input='{"name": "bob"}').stdout.strip()
    assert driven.run_of_settled(first).result == {"greeting": "Ada"}
    assert driven.run_of_settled(second).result == {"greeting": "Bob"}


def test_send_twice_with_one_id_starts_one_run(run: Run, driven: Harness) -> None:
    for _ in range(2):
        result = run("send", "greeting/asked", '{"name": "a"}', "--id", "import-17")
        assert result.stdout.strip() == "import-17"
    driven.settle()
    assert len(driven.runs.list()) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "Expecting"),
        ("[]", "JSON object"),
        ('{"x": NaN}', "NaN is not JSON"),
        ("@missing.json", "No such file"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_data_that_is_not_a_json_object_is_wrong_usage(
    run: Run, data: str, said: str
) -> None:
    result = run("send", "greeting/asked", data)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'{"a": ', "event.json is not JSON"), (b"\xff\xfe", "not text in UTF-8")],
)
def test_advice_on_data_in_a_file_is_about_the_file(
    run: Run, tmp_path: pathlib.Path, content: bytes, said: str
) -> None:
    path = tmp_path / "event.json"
    path.write_bytes(content)
    for data in (f"@{path}", f"@{path.with_name('missing.json')}"):
        result = run("send", "greeting/asked", data)
        assert result.exit_code == 2
        assert data[1:] in "".join(result.stderr.split("\n"))
        assert "Write it as" not in result.stderr
        assert said in result.stderr or "missing" in data


def test_an_event_that_is_refused_is_answered_field_by_field(run: Run) -> None:
    result = run("send", "bad name!", "{}")
    assert result.exit_code == 1
    assert result.stderr.count("may only have letters") == 1
    assert result.stdout == ""


def test_an_event_that_nobody_waits_for_names_the_nearest_triggers(run: Run) -> None:
    result = run("send", "greting/asked", "{}")
    assert result.exit_code == 0
    assert "No function waits for 'greting/asked'" in result.stderr
    assert "greeting/asked" in result.stderr


def test_an_event_that_only_steps_wait_for_is_said_to_be_for_them(
    run: Run, driven: Harness
) -> None:
    @driven.durable.function(on="order/placed", awaits=["order/paid"])
    def order(event: t.Any, step: t.Any) -> None:
        step.wait_for_event("stamp", "order/stamped", timeout="1d")

    driven.publish()
    driven.send_and_settle("order/placed", {})
    for name in ("order/paid", "order/stamped"):
        result = run("send", name)
        assert result.exit_code == 0
        assert result.stderr == (
            f" * No function starts with {name!r}: it is for steps that wait.\n"
        )
    assert "nearest: order/paid" in run("send", "order/pait").stderr


def test_send_says_when_no_worker_is_alive(run: Run, driven: Harness) -> None:
    assert "No worker is alive" in run("send", "nap/asked").stderr
    driven.publish()
    driven.state.directory.beat("w1", {"queues": ["default"], "threads": 1}, [])
    assert run("send", "nap/asked").stderr == ""


def test_a_function_that_only_a_worker_has_counts_as_known(
    run: Run, driven: Harness
) -> None:
    spec = {**next(iter(driven.durable.functions)).spec(), "triggers": ["new/*"]}
    driven.state.directory.publish({"newer": {**spec, "id": "newer"}})
    assert "No function" not in run("send", "new/thing").stderr


def test_send_and_wait_prints_the_runs_and_their_results(
    run: Run, driven: Harness
) -> None:
    with working(driven):
        result = run("send", "greeting/asked", '{"name": "ada"}', "--wait")
    assert result.exit_code == 0
    ((id, function, status, _, value),) = rows(result)
    assert (function, status, value) == ("greet", "completed", '{"greeting": "Ada"}')
    assert driven.runs.get(id).status is RunStatus.COMPLETED


def test_send_and_wait_does_not_wait_for_a_function_that_no_worker_has(
    run: Run, driven: Harness
) -> None:
    driven.start()
    directory = driven.state.directory
    spec = {**next(iter(driven.durable.functions)).spec(), "id": "old_name"}
    directory.publish({"old_name": spec})
    directory.leave("w1", names_of({"old_name": spec}))
    directory.beat("w2", {"queues": ["default"], "threads": 1}, [])
    with working(driven):
        result = run("send", "greeting/asked", '{"name": "ada"}', "--wait")
    assert result.exit_code == 0
    assert "No worker has the code of old_name" in result.stderr
    shown = {row[1]: row[2] for row in rows(result)}
    assert shown["greet"] == "completed"


def test_send_and_wait_is_refused_where_workers_have_none_of_the_functions(
    run: Run, driven: Harness
) -> None:
    directory = driven.state.directory
    directory.leave("w1", names_of(driven.durable.functions.specs()))
    directory.beat("w2", {"queues": ["default"], "threads": 1}, [])
    result = run("send", "greeting/asked", '{"name": "ada"}', "--wait")
    assert result.exit_code == 1
    assert "no worker has a function for it" in result.stderr


def test_send_and_wait_is_exit_code_1_when_a_run_fails(
    run: Run, driven: Harness
) -> None:
    with working(driven):
        result = run("send", "repair/asked", "--wait", "--json")
    assert result.exit_code == 1
    (shown,) = json.loads(result.stdout)["runs"]
    assert shown["status"] == "failed"
    assert shown["failure"]["message"] == "out of order"


def test_send_and_wait_waits_for_a_function_without_a_filter_however_long(
    run: Run, driven: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_module, "_WORKERS_WAIT", 0)
    with working(driven):
        result = run("send", "greeting/asked", '{"name": "ada"}', "--wait")
    assert [row[2] for row in rows(result)] == ["completed"]


def test_send_and_wait_gives_up_after_its_timeout(run: Run) -> None:
    result = run("send", "nap/asked", "--wait", "--timeout", "50ms")
    assert result.exit_code == 1
    assert "not finished after 0.05 s" in result.stderr


def test_waiting_for_an_event_that_nobody_waits_for_fails_at_once(run: Run) -> None:
    result = run("send", "unheard", "--wait")
    assert result.exit_code == 1
    assert "no function waits for it" in result.stderr


def test_send_and_wait_ends_although_the_filter_of_a_function_refused(
    run: Run, driven: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_module, "_WORKERS_WAIT", 0.05)
    with working(driven):
        result = run("send", "media/cut", '{"fits": false}', "--wait", "--json")
    assert result.exit_code == 0
    assert [r for r in json.loads(result.stdout)["runs"] if r["result"]] == []


def test_an_event_that_was_sent_is_not_reported_as_failed_by_a_look_afterwards(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> t.NoReturn:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(send_module, "audience_of", fail)
    result = run("send", "nap/asked")
    assert result.exit_code == 0
    assert result.stdout.strip()


def test_a_queue_that_takes_nothing_is_exit_code_3(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> t.NoReturn:
        raise UnavailableError("The queue is full.", hint="Start a worker.")

    monkeypatch.setattr(DurableClass, "send", refuse)
    result = run("send", "nap/asked")
    assert result.exit_code == 3
    assert result.stderr == "Error: The queue is full.\n  Hint: Start a worker.\n"


@pytest.mark.parametrize("timeout", ["soon", "-1s", ""])
def test_a_timeout_that_is_no_duration_is_wrong_usage(run: Run, timeout: str) -> None:
    result = run("send", "nap/asked", "--wait", "--timeout", timeout)
    assert result.exit_code == 2
    assert "--timeout" in result.stderr
