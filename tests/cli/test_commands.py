"""``flask durable`` commands on a real server; runs are driven by the test."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socketserver
import threading
import typing as t
from datetime import datetime
from datetime import timezone

import click
import pytest
import redis
from click.testing import CliRunner
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st

from flask_durable import Cron
from flask_durable import Durable
from flask_durable import LogLine
from flask_durable import RunStatus
from flask_durable import UnavailableError
from flask_durable.cli import durable_cli
from flask_durable.cli import send as send_module
from flask_durable.extension import Durable as DurableClass
from flask_durable.store.directory import names_of

from ..support.harness import Harness
from ..support.servers import free_port


def explode(*args: object) -> None:
    raise RuntimeError("out of order")


def declare(durable: Durable) -> None:
    """Declare the functions that the tests send events to."""

    @durable.function(on="greeting/asked", retries=0)
    def greet(event: t.Any, step: t.Any) -> t.Any:
        return {"greeting": step.run("look-up", str.title, event.data["name"])}

    @durable.function(on="repair/asked", queue="garage", retries=0)
    def repair(event: t.Any, step: t.Any) -> None:
        step.run("prepare", int, 1)
        step.run("repair", explode)

    @durable.function(on="nap/asked")
    def nap(event: t.Any, step: t.Any) -> None:
        step.sleep("nap", "1h")

    @durable.function(on="media/*", where=lambda event: bool(event.data["fits"]))
    def pick(event: t.Any, step: t.Any) -> str:
        return "picked"


@pytest.fixture
def driven(harness: Harness) -> Harness:
    declare(harness.durable)
    harness.publish()
    return harness


Run = t.Callable[..., Result]


def runner_of(app: Flask) -> Run:
    def run(*arguments: str, input: str | None = None) -> Result:
        info = ScriptInfo(create_app=lambda: app)
        return CliRunner().invoke(durable_cli, arguments, obj=info, input=input)

    return run


@pytest.fixture
def run(driven: Harness) -> Run:
    return runner_of(driven.app)


@contextlib.contextmanager
def working(harness: Harness) -> t.Iterator[None]:
    """Execute what comes in, as a worker would, inside the block."""
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.01):
            harness.settle()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(30)
        assert not thread.is_alive()


def rows(result: Result) -> list[list[str]]:
    """Return the cells of a table."""
    return [line.split("\t") for line in result.stdout.splitlines()]


# The group


def test_every_command_has_help_with_examples(run: Run) -> None:
    commands = run("--help")
    assert commands.exit_code == 0
    assert "Exit codes: 0 success, 1 failure, 2 wrong usage, 3" in commands.output
    for name in ("dev", "worker", "send", "functions", "health", "secret"):
        assert f"  {name} " in commands.output
        shown = run(name, "--help")
        assert shown.exit_code == 0
        assert f"flask durable {name}" in shown.output
    for name in ("list", "show", "signal", "cancel", "retry", "resume"):
        assert f"flask durable runs {name}" in run("runs", name, "--help").output


def test_an_app_without_the_extension_is_told_how_to_add_it() -> None:
    result = runner_of(Flask(__name__))("runs", "list")
    assert result.exit_code == 1
    assert 'Add "durable = Durable(app)"' in result.stderr


def test_a_server_that_does_not_answer_is_exit_code_3_and_its_password_is_masked() -> (
    None
):
    app = Flask(__name__)
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    app.config.update(DURABLE_REDIS_URL=url)
    DurableClass(app)
    result = runner_of(app)("runs", "list")
    assert result.exit_code == 3
    assert "cannot be reached" in result.stderr
    assert "redis://***@127.0.0.1" in result.stderr
    assert "secret" not in result.output
    assert "Hint: " in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"-ERR DB index is out of range\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-MISCONF Errors writing to the AOF file\r\n",
    ],
)
@pytest.mark.parametrize("command", ["runs list", "stats", "dlq list", "functions"])
def test_a_server_that_refuses_is_told_in_one_line(reply: bytes, command: str) -> None:
    class Refuses(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while asked := self.request.recv(65536):
                    self.request.sendall(reply * max(asked.count(b"*"), 1))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuses) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"redis://:sesame@127.0.0.1:{server.server_address[1]}/0"
        app = Flask("refused")
        app.config.update(DURABLE_REDIS_URL=url)
        Durable(app)
        result = runner_of(app)(*command.split())
        server.shutdown()
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: The state server redis://***@127.0.0.1")
    assert "sesame" not in result.stderr


def test_an_app_that_has_no_server_at_all_is_told_what_to_do(
    tmp_path: pathlib.Path,
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    DurableClass(app)
    result = runner_of(app)("runs", "list")
    assert result.exit_code == 1
    assert "flask durable dev" in result.stderr


# send


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
    assert "name: may only have letters" in result.stderr
    assert result.stdout == ""


def test_an_event_that_nobody_waits_for_names_the_nearest_triggers(run: Run) -> None:
    result = run("send", "greting/asked", "{}")
    assert result.exit_code == 0
    assert "No function waits for 'greting/asked'" in result.stderr
    assert "greeting/asked" in result.stderr


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


# runs


def test_runs_are_listed_newest_first_and_filtered(run: Run, driven: Harness) -> None:
    for name in ("greeting/asked", "nap/asked", "repair/asked"):
        driven.send_and_settle(name, {"name": "ada"})
    assert [row[1] for row in rows(run("runs", "list"))] == ["repair", "nap", "greet"]
    assert [row[1] for row in rows(run("runs", "list", "--limit", "1"))] == ["repair"]
    failed = rows(run("runs", "list", "--status", "failed"))
    assert [row[1:4] for row in failed] == [["repair", "failed", "repair/asked"]]
    assert [row[1] for row in rows(run("runs", "list", "--function", "nap"))] == ["nap"]
    listed = json.loads(run("runs", "list", "--json").stdout)
    assert [item["status"] for item in listed] == ["failed", "suspended", "completed"]


def test_an_unknown_status_is_wrong_usage(run: Run) -> None:
    assert run("runs", "list", "--status", "tired").exit_code == 2


def test_a_run_is_shown_with_its_steps_and_its_failure(
    run: Run, driven: Harness
) -> None:
    failed = driven.send_and_settle("repair/asked", {})
    result = run("runs", "show", failed.id)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert f"run       {failed.id}" in lines
    assert any(line.startswith("status    failed, took ") for line in lines)
    assert any("prepare  done" in line for line in lines)
    assert any("repair   failed" in line for line in lines)
    assert "          RuntimeError: out of order" in lines
    assert "Traceback (most recent call last):" in result.stdout


def test_a_queued_run_is_shown_with_why_its_message_failed(
    driven: Harness, run: Run
) -> None:
    driven.in_place = 0
    event_id = driven.send("greeting/asked", {"name": "ada"})
    driven.route()
    id = driven.run_of(event_id).id
    assert "message" not in run("runs", "show", id).stdout
    driven.state.failures.note({f"run:{id}": "OSError: No space left on device"})
    shown = run("runs", "show", id).stdout
    assert "message   failed: OSError: No space left on device" in shown
    found = json.loads(run("runs", "show", id, "--json").stdout)
    assert found["message_error"] == "OSError: No space left on device"


def test_a_sleeping_run_is_shown_with_the_time_it_wakes(
    run: Run, driven: Harness
) -> None:
    asleep = driven.send_and_settle("nap/asked", {})
    assert asleep.due is not None
    until = asleep.due.strftime("until %Y-%m-%d %H:%M:%S")
    shown = run("runs", "show", asleep.id).stdout
    assert f"suspended (sleep) {until} UTC" in shown
    assert f"nap (sleep)  waiting  {until}" in shown


def test_a_step_that_invoked_a_run_is_shown_with_that_run(
    run: Run, driven: Harness
) -> None:
    @driven.durable.function(on=None)
    def callee(event: t.Any, step: t.Any) -> None:
        step.sleep("night", "8h")

    @driven.durable.function(on="call/asked", retries=0)
    def caller(event: t.Any, step: t.Any) -> None:
        step.invoke("call", callee)

    driven.publish()
    parent = driven.send_and_settle("call/asked", {})
    [child] = driven.runs.list(parent=parent.id)

    shown = run("runs", "show", parent.id).stdout
    assert "call (invoke)  waiting" in shown
    (drawn,) = [line for line in shown.splitlines() if line.endswith(child.id)]
    assert drawn.split()[1:4] == ["callee", "suspended", "(sleep)"]
    assert "░" in drawn
    assert f"parent    {parent.id}" in run("runs", "show", child.id).stdout
    listed = rows(run("runs", "list", "--parent", parent.id))
    assert [row[0] for row in listed] == [child.id]
    found = json.loads(run("runs", "show", parent.id, "--json").stdout)
    assert (found["parent"], found["steps"][0]["child"]) == (None, child.id)
    [shown_child] = found["steps"][0]["children"]
    assert (shown_child["id"], shown_child["status"]) == (child.id, "suspended")

    run("runs", "cancel", parent.id)
    shown = run("runs", "show", parent.id).stdout
    assert (
        f"{'':12}the run that invoked it does not wait any more" in shown.splitlines()
    )
    assert lines_with(shown, "callee cancelled")


def lines_with(text: str, part: str) -> list[str]:
    """Return the lines with these words, one space apart."""
    return [line for line in text.splitlines() if part in " ".join(line.split())]


def test_branches_are_drawn_under_their_step_with_bars_of_their_own(
    run: Run, driven: Harness
) -> None:
    @driven.durable.function(on="film/made", retries=0)
    def make(event: t.Any, step: t.Any) -> None:
        step.parallel(
            "media",
            audio=lambda step: step.run("cut", str),
            approved=lambda step: step.wait_for_signal("answer", "ok", timeout="7d"),
        )

    driven.publish()
    parent = driven.send_and_settle("film/made", {})
    approved, audio = sorted(
        driven.runs.list(parent=parent.id), key=lambda branch: branch.branch
    )

    shown = run("runs", "show", parent.id).stdout
    step = shown.splitlines().index(*lines_with(shown, "media (group) waiting"))
    first, second = shown.splitlines()[step + 1 : step + 3]
    assert first.split()[1:4] == ["media[approved]", "suspended", "(signal)"]
    assert f"until {approved.due:%Y-%m-%d %H:%M:%S}" in first
    assert second.split()[1:3] == ["media[audio]", "completed"]
    assert [line.split()[-1] for line in (first, second)] == [approved.id, audio.id]
    assert ("░" in first, "█" in second) == (True, True)
    assert "cut" not in shown
    assert f"branch    {audio.branch}" in run("runs", "show", audio.id).stdout
    listed = rows(run("runs", "list", "--parent", parent.id))
    assert {row[0]: row[-1] for row in listed} == {
        approved.id: "media[approved]",
        audio.id: "media[audio]",
    }

    unfolded = run("runs", "show", parent.id, "--branches").stdout
    (cut,) = lines_with(unfolded, "cut done")
    (answer,) = lines_with(unfolded, "answer (signal) waiting")
    assert (cut.index("cut"), answer.index("answer")) == (14, 14)
    assert f"{'':14}signal ok" in unfolded.splitlines()


def chunked(driven: Harness, number: int) -> str:
    """Return the id of a run with a map of *number* items, of which two fail."""

    def chunk(item: str, step: t.Any) -> None:
        step.run("look", explode if item[:2] in ("7 ", "9 ") else str)

    @driven.durable.function(on="chunks/made", retries=0)
    def make(event: t.Any, step: t.Any) -> None:
        items = [f"{place} {'large' * 1000}" for place in range(number)]
        step.map("chunks", chunk, items, tolerate=2)

    driven.publish()
    return t.cast(str, driven.send_and_settle("chunks/made", {}).id)


def test_many_branches_are_folded_to_the_failed_and_the_slowest_ones(
    run: Run, driven: Harness
) -> None:
    id = chunked(driven, 40)
    shown = run("runs", "show", id).stdout
    assert f"{'':10}40 branches: 38 completed, 2 failed" in shown.splitlines()
    drawn = lines_with(shown, "s chunks[")
    failed = [line.split()[1] for line in drawn if "failed" in line]
    assert failed == ["chunks[7]", "chunks[9]"]
    assert 2 < len(drawn) <= 10
    assert shown.count(f"{'':12}RuntimeError: out of order") == 2

    found = json.loads(run("runs", "show", id, "--json").stdout)["steps"][0]
    assert found["branches"] == {"completed": 38, "failed": 2}
    assert len(found["children"]) == len(drawn)
    failures = [child["failure"] for child in found["children"]]
    assert [f["message"] for f in failures if f] == ["out of order"] * 2

    unfolded = run("runs", "show", id, "--branches")
    places = [line.split()[1] for line in lines_with(unfolded.stdout, "s chunks[")]
    assert places == [f"chunks[{place}]" for place in range(40)]
    assert len(lines_with(unfolded.stdout, "look done")) == 38
    whole = json.loads(run("runs", "show", id, "--branches", "--json").stdout)
    steps = [child["steps"][0]["name"] for child in whole["steps"][0]["children"]]
    assert steps == [f"chunks[{place}]/look" for place in range(40)]


def test_branches_that_are_not_drawn_are_read_in_brief(
    run: Run, driven: Harness
) -> None:
    id = chunked(driven, 40)
    client = driven.state.server.client
    client.config_resetstat()
    run("runs", "show", id)
    stats = client.info("commandstats")
    # The run and its steps, and the two failed branches.
    assert stats["cmdstat_hgetall"]["calls"] <= 6
    assert stats["cmdstat_hmget"]["calls"] >= 40


def test_a_run_as_json_has_everything(run: Run, driven: Harness) -> None:
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    shown = json.loads(run("runs", "show", done.id, "--json").stdout)
    assert shown["id"] == done.id
    assert shown["event"]["data"] == {"name": "ada"}
    assert shown["result"] == {"greeting": "Ada"}
    (step,) = shown["steps"]
    assert (step["name"], step["status"], step["value"]) == ("look-up", "done", "Ada")
    assert step["started"].endswith("+00:00")
    (claim,) = shown["claims"]
    assert claim.pop("at").endswith("+00:00")
    assert claim.pop("queued") >= 0
    assert claim.pop("lasted") >= 0
    assert claim == {"number": 1, "ended": "completed"}


def keep_lines(driven: Harness, id: str, *messages: str) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, timezone.utc)
    lines = [LogLine(0, at, "info", "shop", "look-up", 1, text) for text in messages]
    driven.state.run_log_store.append([(id, [line.dump() for line in lines])])


def test_the_lines_of_a_run_are_shown_when_they_are_asked_for(
    run: Run, driven: Harness
) -> None:
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    assert run("runs", "show", done.id, "--logs").stdout.endswith("\nNo lines.\n")
    keep_lines(driven, done.id, "one\ntwo\x1b[2J")

    assert "shop" not in run("runs", "show", done.id).stdout
    assert run("runs", "show", done.id, "--logs").stdout.endswith(
        "\n2026-01-02 03:04:05.678 INFO    shop: one\n    two\\x1b[2J [look-up]\n"
    )
    found = json.loads(run("runs", "show", done.id, "--logs", "--json").stdout)
    assert found["logs"] == [
        {
            "number": 1,
            "at": "2026-01-02T03:04:05.678000+00:00",
            "level": "info",
            "logger": "shop",
            "step": "look-up",
            "attempt": 1,
            "message": "one\ntwo\x1b[2J",
        }
    ]


def test_lines_of_a_run_are_followed_up_to_its_end(run: Run, driven: Harness) -> None:
    asleep = driven.send_and_settle("nap/asked", {})
    keep_lines(driven, asleep.id, "first")

    def end() -> None:
        keep_lines(driven, asleep.id, "second")
        driven.runs.cancel(asleep.id)
        keep_lines(driven, asleep.id, "late")

    timer = threading.Timer(0.1, end)
    timer.start()
    result = run("runs", "show", asleep.id, "--follow", "--json")
    timer.join()

    lines = [json.loads(line)["message"] for line in result.stdout.splitlines()]
    assert lines == ["first", "second", "late"]
    text = run("runs", "show", asleep.id, "--follow")
    assert "shop: first" in text.stdout
    assert f"Run {asleep.id} is cancelled." in text.stderr


def test_a_run_that_does_not_exist_is_an_error(run: Run) -> None:
    result = run("runs", "show", "nothing")
    assert result.exit_code == 1
    assert "There is no run 'nothing'." in result.stderr


def approval_asked(driven: Harness) -> str:
    """Return the id of a run that waits for the signal ``approve``."""

    @driven.durable.function(on="approval/asked")
    def approve(event: t.Any, step: t.Any) -> t.Any:
        return step.wait_for_signal("answer", "approve", timeout="7d")

    driven.publish()
    return t.cast(str, driven.send_and_settle("approval/asked", {}).id)


def test_a_signal_is_given_to_a_run_once_for_each_id(run: Run, driven: Harness) -> None:
    id = approval_asked(driven)
    signal = ("runs", "signal", id, "approve")
    assert run(*signal, '["Ada"]', "--id", "s1").stdout == "s1\n"
    assert run(*signal, "2", "--id", "s1", "--json").stdout == '{"id": "s1"}\n'
    driven.settle()
    assert driven.runs.get(id).result == ["Ada"]


@pytest.mark.parametrize(
    ("input", "result"), [(None, None), ('{"by": "Ada"}', {"by": "Ada"})]
)
def test_a_signal_without_data_has_none_and_may_be_read_from_standard_input(
    run: Run, driven: Harness, input: str | None, result: t.Any
) -> None:
    id = approval_asked(driven)
    given = run("runs", "signal", id, "approve", *(["-"] if input else []), input=input)
    assert len(given.stdout.strip()) == 26
    driven.settle()
    done = driven.runs.get(id)
    assert (done.status, done.result) == (RunStatus.COMPLETED, result)


def test_a_signal_that_no_run_takes_is_exit_code_1_and_bad_data_2(
    run: Run, driven: Harness
) -> None:
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    finished = run("runs", "signal", done.id, "approve")
    assert finished.exit_code == 1
    assert "a finished run takes no signal" in finished.stderr
    missing = run("runs", "signal", "nothing", "approve")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "There is no run 'nothing'." in missing.stderr
    wrong = run("runs", "signal", done.id, "not a name!")
    assert wrong.exit_code == 1
    assert "its name may only have letters" in wrong.stderr
    assert run("runs", "signal", done.id, "approve", "{").exit_code == 2


def test_runs_are_cancelled_with_a_reason(run: Run, driven: Harness) -> None:
    asleep = [driven.send_and_settle("nap/asked", {}) for _ in range(2)]
    ids = [one.id for one in asleep]
    result = run("runs", "cancel", *ids, "--reason", "not tired")
    assert result.exit_code == 0
    assert rows(result) == [[id, "cancelled"] for id in ids]
    assert driven.runs.get(ids[0]).reason == "not tired"


def test_what_one_run_refuses_does_not_keep_the_others_from_it(
    run: Run, driven: Harness
) -> None:
    failed = driven.send_and_settle("repair/asked", {})
    done = driven.send_and_settle("greeting/asked", {"name": "ada"})
    result = run("runs", "retry", done.id, "nothing", failed.id, "--json")
    assert result.exit_code == 1
    first, second, third = json.loads(result.stdout)
    assert first["code"] == "run.state"
    assert second["code"] == "run.not_found"
    assert third == {"id": failed.id, "status": "queued"}
    assert "There is no run 'nothing'." in result.stderr


def test_a_run_that_is_not_paused_cannot_be_resumed(run: Run, driven: Harness) -> None:
    asleep = driven.send_and_settle("nap/asked", {})
    result = run("runs", "resume", asleep.id)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert asleep.id in result.stderr


# functions and health


def test_functions_are_listed_with_where_their_code_is(
    run: Run, driven: Harness
) -> None:
    spec = {**next(iter(driven.durable.functions)).spec(), "id": "newer"}
    driven.state.directory.publish({"newer": spec})
    listed = {row[0]: row[1:] for row in rows(run("functions"))}
    expected = ["greeting/asked", "default", "0", "here, published", "-"]
    assert listed["greet"] == expected
    assert listed["repair"][1] == "garage"
    assert listed["newer"][3] == "published"
    shown = json.loads(run("functions", "--json").stdout)
    assert {item["id"]: item["here"] for item in shown}["newer"] is False


def test_a_function_that_no_worker_has_is_shown_and_can_be_forgotten(
    run: Run, driven: Harness
) -> None:
    driven.start()
    spec = {**next(iter(driven.durable.functions)).spec(), "id": "old_name"}
    driven.state.directory.publish({"old_name": spec})
    refused = run("functions", "forget", "old_name")
    assert (refused.exit_code, "not forgotten" in refused.stderr) == (1, True)

    driven.state.directory.leave("w1", names_of({"old_name": spec}))
    listed = {row[0]: row[1:] for row in rows(run("functions"))}
    assert listed["old_name"][3] == "nobody"
    assert run("functions", "forget", "old_name").exit_code == 0

    assert "old_name" not in {row[0] for row in rows(run("functions"))}
    driven.sweep()
    event_id = driven.send("greeting/asked", {"name": "ada"})
    driven.settle()
    assert [r.function for r in driven.runs.of_event(event_id)] == ["greet"]
    assert run("functions", "forget", "unknown").exit_code == 1


def test_functions_with_schedules_are_listed_with_the_next_instant(
    run: Run, driven: Harness
) -> None:
    spec = next(iter(driven.durable.functions)).spec()
    cron = Cron("0 0 1 1 *", timezone="Europe/Berlin").spec()
    driven.state.directory.publish({"newer": {**spec, "id": "newer", "crons": [cron]}})
    shown = json.loads(run("functions", "--json").stdout)
    (following,) = [item["next"] for item in shown if item["id"] == "newer"]
    assert following.endswith("-12-31T23:00+00:00")


def test_functions_are_listed_without_the_state_server_too() -> None:
    app = Flask(__name__)
    app.config.update(DURABLE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    durable = DurableClass(app)
    declare(durable)
    result = runner_of(app)("functions")
    assert result.exit_code == 0
    assert [row[0] for row in rows(result)] == ["greet", "repair", "nap", "pick"]
    assert "The functions of the workers are unknown" in result.stderr


def test_health_is_exit_code_3_until_a_worker_serves_every_queue(
    run: Run, driven: Harness
) -> None:
    result = run("health")
    assert result.exit_code == 3
    checks = {row[0]: row[1] for row in rows(result)}
    assert checks["state server"] == "ok"
    assert checks["workers"] == "FAILED"
    queues = driven.durable.functions.queues()
    driven.state.directory.beat("w1", {"queues": queues, "threads": 1}, [])
    result = run("health", "--json")
    assert result.exit_code == 0
    assert all(check["ok"] for check in json.loads(result.stdout))


def test_health_without_a_state_server_is_exit_code_3() -> None:
    app = Flask(__name__)
    app.config.update(DURABLE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    DurableClass(app)
    result = runner_of(app)("health")
    assert result.exit_code == 3
    assert rows(result)[0][:2] == ["state server", "FAILED"]


# Bad input


#: Arguments as a shell may pass them, with bytes that are no text.
arguments = st.text(
    st.characters(exclude_categories=(), exclude_characters="\0"), max_size=40
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    command=st.sampled_from(
        [
            ("send", "greeting/asked"),
            ("send",),
            ("send", "greeting/asked", '{"name": "a"}', "--id"),
            ("runs", "show"),
            ("runs", "retry"),
            ("runs", "cancel", "r1", "--reason"),
            ("runs", "list", "--function"),
            ("runs", "list", "--limit"),
            ("runs", "signal", "r1"),
            ("runs", "signal", "r1", "approve"),
            ("runs", "signal", "r1", "approve", "{}", "--id"),
        ]
    ),
    argument=arguments,
)
def test_no_argument_ends_in_a_traceback(
    run: Run, command: tuple[str, ...], argument: str
) -> None:
    result = run(*command, argument)
    assert result.exit_code in (0, 1, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output


def test_a_worker_is_not_given_the_queue_of_events(run: Run) -> None:
    result = run("worker", "--queues", "events,default")
    assert result.exit_code == 2
    assert "'events' is the queue of events, which every worker routes" in result.stderr


def test_functions_are_listed_where_no_server_is_configured(
    tmp_path: pathlib.Path,
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    durable = DurableClass(app)
    declare(durable)
    result = runner_of(app)("functions")
    assert result.exit_code == 0
    assert [row[0] for row in rows(result)] == ["greet", "repair", "nap", "pick"]
    assert "There is no DURABLE_REDIS_URL" in result.stderr


def test_a_push_worker_serves_no_queue_that_nobody_pushes_from(
    run: Run, driven: Harness
) -> None:
    queues = driven.durable.functions.queues()
    driven.state.directory.beat("w1", {"queues": queues, "threads": 0}, [])
    result = run("health", "--json")
    assert result.exit_code == 3
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert checks["workers"]["detail"].startswith("no worker serves")


def test_the_help_of_an_option_is_a_phrase_of_its_own() -> None:
    context = click.Context(durable_cli)
    found = [
        durable_cli.get_command(context, n) for n in durable_cli.list_commands(context)
    ]
    while found:
        each = t.cast(click.Command, found.pop())
        found += getattr(each, "commands", {}).values()
        for parameter in each.params:
            text = getattr(parameter, "help", None) or ""
            assert not text.startswith(("Of ", "In ")), (each.name, parameter.name)
