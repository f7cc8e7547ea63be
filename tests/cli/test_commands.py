"""``flask durable`` commands on a real server; runs are driven by the test."""

from __future__ import annotations

import contextlib
import pathlib
import socketserver
import threading
import typing as t

import click
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st

from flask_durable import Durable
from flask_durable.cli import durable_cli
from flask_durable.extension import Durable as DurableClass

from ..support.servers import free_port
from .commands import Run
from .commands import runner_of

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
