"""The development stack as tests and demos use it: a context manager."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import signal
import sys
import threading
import typing as t
import urllib.request

import pytest
from flask import Flask

from flask_durable import ConfigurationError
from flask_durable import Durable
from flask_durable import RunStatus
from flask_durable import UnavailableError
from flask_durable.cli.dev import DevStack
from flask_durable.cli.stack import children
from flask_durable.cli.stack import local_sqs
from flask_durable.cli.stack.stack import until_interrupted

from ...support.servers import wait_until
from ..conftest import APP
from ..conftest import TIMEOUT
from ..processes import gone

#: The module's name, so that it is not mistaken for another app.
MODULE = "stack_test_app"

ADDRESS = """

@durable.function(on="address/asked")
def address(event, step):
    return step.create_url("link", expires="1h").href
"""


@pytest.fixture
def app_import(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[str]:
    """Make the folder of an app the current one."""
    (tmp_path / f"{MODULE}.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield MODULE
    sys.modules.pop(MODULE, None)


def test_a_ready_stack_runs_what_is_sent_from_this_process(app_import: str) -> None:
    with DevStack(app_import, port=0, quiet=True) as stack:
        stack.wait_ready(TIMEOUT)
        pids = stack.pids
        assert sorted(pids) == ["server", "web", "worker"]
        with urllib.request.urlopen(f"{stack.url}/durable/healthz") as response:
            assert response.status == 200
        with stack.app.app_context():
            event_id = stack.durable.send("greeting/asked", {"name": "ada"})
            wait_until(lambda: stack.durable.runs.of_event(event_id), timeout=TIMEOUT)
            (run,) = stack.durable.runs.of_event(event_id)
            done = stack.durable.runs.wait(run.id, timeout=TIMEOUT)
        assert done.status is RunStatus.COMPLETED
    assert all(gone(pid) for pid in pids.values())


def greeting_of(stack: DevStack, name: str) -> t.Any:
    """Return what came of an event that has the same id each time."""
    with stack.app.app_context():
        runs = stack.durable.runs
        stack.durable.send("greeting/asked", {"name": name}, id="once")
        wait_until(lambda: runs.of_event("once"), timeout=TIMEOUT)
        (run,) = runs.of_event("once")
        return runs.wait(run.id, timeout=TIMEOUT).result


def test_a_stack_knows_nothing_of_an_earlier_one_in_the_same_process(
    app_import: str, tmp_path: pathlib.Path
) -> None:
    seen, folders = [], []
    for name in ("ada", "grace"):
        with DevStack(app_import, port=0, quiet=True) as stack:
            stack.wait_ready(TIMEOUT)
            assert stack.server is not None
            folders.append(stack.server.directory)
            seen.append(greeting_of(stack, name))
    assert seen == [{"greeting": "Hello, Ada"}, {"greeting": "Hello, Grace"}]
    assert not any(folder.exists() for folder in folders)
    assert not list((tmp_path / "instance" / "durable").glob("*.aof*"))


def test_a_stack_leaves_what_is_kept_for_development_alone(app_import: str) -> None:
    with DevStack(app_import, port=0, quiet=True, keep_data=True) as kept:
        with DevStack(app_import, port=0, quiet=True) as stack:
            assert stack.redis_url != kept.redis_url
            state = stack.durable.state_of(stack.app)
            assert state.server.url == stack.redis_url
        assert state.server.url == kept.redis_url


def test_a_stack_whose_worker_was_killed_is_not_ready_by_its_last_beat(
    app_import: str,
) -> None:
    with DevStack(app_import, port=0, quiet=True) as stack:
        stack.wait_ready(TIMEOUT)
        os.kill(stack.pids["worker"], signal.SIGKILL)
        wait_until(lambda: "worker" not in stack.pids, timeout=TIMEOUT)
        stack.wait_ready(TIMEOUT)
        workers = stack.durable.state_of(stack.app).directory.workers()
        assert stack.pids["worker"] in [worker["pid"] for worker in workers]


def test_a_stack_with_several_worker_processes_becomes_ready(app_import: str) -> None:
    with DevStack(app_import, port=0, processes=2, quiet=True) as stack:
        stack.wait_ready(TIMEOUT)
        assert greeting_of(stack, "ada") == {"greeting": "Hello, Ada"}


def test_the_addresses_that_a_worker_makes_are_those_of_the_web_app(
    app_import: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{MODULE}.py").write_text(APP + ADDRESS)
    monkeypatch.setenv("FLASK_SECRET_KEY", "not a secret")
    with DevStack(app_import, port=0, quiet=True) as stack, stack.app.app_context():
        stack.wait_ready(TIMEOUT)
        stack.durable.send("address/asked", {}, id="once")
        runs = stack.durable.runs
        wait_until(lambda: runs.of_event("once"), timeout=TIMEOUT)
        (run,) = runs.of_event("once")
        address = runs.wait(run.id, timeout=TIMEOUT).result
    assert address.startswith(f"{stack.url}/durable/answers/")


def test_a_quiet_stack_writes_what_its_processes_print_to_files(
    app_import: str, capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    with DevStack(app_import, port=0, quiet=True) as stack:
        stack.wait_ready(TIMEOUT)
        os.kill(stack.pids["worker"], signal.SIGKILL)
        wait_until(lambda: "worker" not in stack.pids, timeout=TIMEOUT)
        stack.wait_ready(TIMEOUT)
    logs = tmp_path / "instance" / "durable"
    assert "Running on" in (logs / "web.log").read_text()
    assert "greet on greeting/asked" in (logs / "worker.log").read_text()
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "worker died (signal 9)" in printed.err
    assert "Running on" not in printed.err


def test_a_stack_may_be_used_by_a_thread(app_import: str) -> None:
    faults: list[BaseException] = []

    def use() -> None:
        try:
            with DevStack(app_import, port=0, quiet=True) as stack:
                stack.wait_ready(TIMEOUT)
                pids.update(stack.pids)
        except BaseException as error:
            faults.append(error)

    pids: dict[str, int] = {}
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(2 * TIMEOUT)
    assert faults == []
    assert pids
    assert all(gone(pid) for pid in pids.values())


def test_a_stack_that_is_not_ready_in_time_says_what_is_missing(
    app_import: str,
) -> None:
    with (
        DevStack(app_import, port=0, quiet=True) as stack,
        pytest.raises(TimeoutError, match="web app is not ready after 0 s"),
    ):
        stack.wait_ready(0)


def test_a_stack_whose_worker_keeps_dying_says_so_and_where_to_look(
    app_import: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "LONGEST_DELAY", 0.5)

    class Broken(DevStack):
        def _worker_arguments(self) -> list[str]:
            return ["durable", "worker", "--no-such-option"]

    with Broken(app_import, port=0, quiet=True) as stack:
        with pytest.raises(UnavailableError, match="worker keeps dying") as raised:
            stack.wait_ready(TIMEOUT)
        assert "worker.log" in str(raised.value.hint)
        with pytest.raises(UnavailableError, match="worker keeps dying"):
            stack.wait()


def test_an_exception_in_the_block_stops_the_stack_and_goes_on(app_import: str) -> None:
    pids: dict[str, int] = {}

    def fail() -> None:
        with DevStack(app_import, port=0, quiet=True) as stack:
            pids.update(stack.pids)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert pids
    assert all(gone(pid) for pid in pids.values())


def test_a_local_queue_contradicts_a_configured_one(tmp_path: pathlib.Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["DURABLE_QUEUE_URL"] = "sqs://?region=eu-west-1"
    Durable(app)
    with (
        app.app_context(),
        pytest.raises(ConfigurationError, match="DURABLE_QUEUE_URL"),
        DevStack(queue="sqs", port=0),
    ):
        pass


def test_a_local_queue_without_moto_names_the_extra(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "moto" else find(name)
    )
    app = Flask(__name__, instance_path=str(tmp_path))
    Durable(app)
    with (
        app.app_context(),
        pytest.raises(ConfigurationError, match=r"flask-durable\[dev-sqs\]"),
        DevStack(queue="sqs", port=0),
    ):
        pass


def test_the_children_of_a_local_queue_never_see_real_credentials() -> None:
    inherited = {"AWS_PROFILE": "prod", "AWS_SESSION_TOKEN": "t", "PATH": "/bin"}
    made = local_sqs.environment(inherited, "http://127.0.0.1:1")
    assert "AWS_PROFILE" not in made
    assert "AWS_SESSION_TOKEN" not in made
    assert made["PATH"] == "/bin"
    assert made["FLASK_DURABLE_QUEUE_URL"].endswith("endpoint=http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("host", "url", "local"),
    [
        ("127.0.0.1", "http://127.0.0.1:1", True),
        ("localhost", "http://localhost:1", True),
        ("::1", "http://[::1]:1", True),
        ("0.0.0.0", "http://127.0.0.1:1", False),
        ("::", "http://[::1]:1", False),
        ("192.168.1.5", "http://192.168.1.5:1", False),
    ],
)
def test_only_a_loopback_address_counts_as_local(
    host: str, url: str, local: bool
) -> None:
    stack = DevStack("app", host=host, port=1)
    assert stack.url == url
    assert stack.is_local is local


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_what_is_done_until_then(name: str) -> None:
    with until_interrupted():
        signal.raise_signal(signal.Signals[name])
        raise AssertionError("it goes on")
