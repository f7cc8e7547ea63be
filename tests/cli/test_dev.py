"""``flask durable dev`` in real processes: started, killed, interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import urllib.error
import urllib.request

import pytest

from flask_durable.redis.embedded import EmbeddedServer
from flask_durable.redis.embedded import find_running

from ..support.servers import wait_until
from .conftest import APP
from .conftest import Dev
from .conftest import run_flask
from .conftest import StartDev
from .conftest import TIMEOUT
from .processes import gone


def post(dev: Dev, name: str, /, **data: object) -> str:
    """Send an event through the web app, as soon as it answers; return its id."""
    body = json.dumps({"name": name, "data": data}).encode()
    request = urllib.request.Request(
        f"{dev.url}/durable/events", body, {"Content-Type": "application/json"}
    )
    ids: list[str] = []

    def accepted() -> bool:
        assert dev.process.poll() is None, dev.output
        with contextlib.suppress(OSError), urllib.request.urlopen(request) as response:
            ids.append(json.load(response)["ids"][0])
        return bool(ids)

    wait_until(accepted, "the web app", TIMEOUT)
    return ids[0]


def result_of(project: pathlib.Path, name: str, data: str) -> object:
    """Send an event on the command line; return what its one run returned."""
    done = run_flask(project, "durable", "send", name, data, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return run["result"]


def wait_until_gone(pids: set[int]) -> None:
    wait_until(lambda: all(gone(pid) for pid in pids), "the end of all", TIMEOUT)


def test_one_command_runs_an_app_that_has_nothing_configured(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    dev = start_dev("--port", "0")
    id = post(dev, "greeting/asked", name="ada")
    again = json.dumps({"name": "ada"})
    assert result_of(project, "greeting/asked", again) == {"greeting": "Hello, Ada"}

    def first_is_done() -> bool:
        listed = run_flask(project, "durable", "runs", "list", "--json")
        runs = json.loads(listed.stdout)
        return id in [r["event"]["id"] for r in runs if r["status"] == "completed"]

    wait_until(first_is_done, "the run of the posted event", TIMEOUT)
    assert "not for production" in dev.output
    assert "greet on greeting/asked (queue default)" in dev.output
    assert "nap on nap/asked (queue bed)" in dev.output


def test_ctrl_c_stops_all_of_it_cleanly(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    dev = start_dev("--port", "0")
    post(dev, "greeting/asked", name="ada")
    pids = dev.running()
    assert len(pids) >= 4  # server, web app and its reloader, worker
    dev.interrupt()
    assert dev.process.wait(TIMEOUT) == 0
    assert all(gone(pid) for pid in pids)
    assert "Traceback" not in dev.output
    log = (project / "instance" / "durable" / "server.log").read_text()
    assert "bye bye" in log
    # The terminal's signal did not reach the server, which goes last.
    assert "SIGINT" not in log


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_stops_all_of_it_cleanly(
    start_dev: StartDev, signum: signal.Signals
) -> None:
    dev = start_dev("--port", "0", "--no-reload")
    post(dev, "greeting/asked", name="ada")
    pids = dev.running()
    dev.process.send_signal(signum)
    assert dev.process.wait(TIMEOUT) == 0
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
def test_nothing_is_left_behind_when_it_is_killed(
    start_dev: StartDev, reload: str
) -> None:
    dev = start_dev("--port", "0", reload)
    post(dev, "greeting/asked", name="ada")
    pids = dev.running()
    assert len(pids) >= 3
    dev.process.kill()
    wait_until_gone(pids)


def test_a_second_ctrl_c_does_not_wait_for_a_running_step(
    start_dev: StartDev, tmp_path: pathlib.Path
) -> None:
    dev = start_dev("--port", "0")
    started = tmp_path / "started"
    post(dev, "work/asked", started=str(started))
    wait_until(started.exists, "the step", TIMEOUT)
    pids = dev.running()
    dev.interrupt()
    dev.find("Stopping")
    dev.interrupt()
    dev.process.wait(TIMEOUT)
    wait_until_gone(pids)


def test_a_second_one_in_the_same_folder_uses_the_server_of_the_first(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    first = start_dev("--port", "0", "--no-reload")
    url = first.redis_url
    second = start_dev("--port", "0", "--no-reload")
    assert second.redis_url == url
    assert "of another flask durable dev" in second.output
    second.interrupt()
    assert second.process.wait(TIMEOUT) == 0
    assert find_running(project / "instance" / "durable") == url


def test_a_killed_worker_is_started_again(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    dev = start_dev("--port", "0", "--no-reload")
    post(dev, "greeting/asked", name="ada")
    for pid in dev.running():
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "worker" in command:
            os.kill(pid, signal.SIGKILL)
    dev.find("worker died")
    result_of(project, "greeting/asked", '{"name": "ada"}')


def test_a_killed_server_is_started_again_and_the_work_goes_on(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    dev = start_dev("--port", "0", "--no-reload")
    post(dev, "greeting/asked", name="ada")
    for pid in dev.running():
        if "-server" in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    dev.find("The embedded server has died")
    wait_until(lambda: find_running(project / "instance" / "durable"))
    result_of(project, "greeting/asked", '{"name": "ada"}')


def test_changed_source_is_run_by_web_app_and_worker(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    dev = start_dev("--port", "0")
    post(dev, "greeting/asked", name="ada")
    (project / "app.py").write_text(APP.replace("Hello", "Good day"))
    dev.find("restarting the worker")
    dev.find("Detected change")

    def changed() -> bool:
        result = result_of(project, "greeting/asked", '{"name": "ada"}')
        return result == {"greeting": "Good day, Ada"}

    wait_until(changed, "the new code", TIMEOUT)


def test_a_broken_source_is_waited_for_until_it_is_mended(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    dev = start_dev("--port", "0")
    post(dev, "greeting/asked", name="ada")
    (project / "app.py").write_text(APP + "\n1 / 0\n")
    dev.find("worker died")
    (project / "app.py").write_text(APP)
    assert result_of(project, "greeting/asked", '{"name": "ada"}')


def test_a_configured_server_is_used_and_none_is_started(
    start_dev: StartDev, project: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with EmbeddedServer(tmp_path / "elsewhere") as server:
        url = str(server.url)
        dev = start_dev("--port", "0", "--no-reload", FLASK_DURABLE_REDIS_URL=url)
        assert dev.redis_url == url
        post(dev, "greeting/asked", name="ada")
        assert find_running(project / "instance" / "durable") is None
        dev.interrupt()
        assert dev.process.wait(TIMEOUT) == 0
        assert server.alive()


def test_the_same_runs_on_a_local_sqs_endpoint(start_dev: StartDev) -> None:
    dev = start_dev("--port", "0", "--queue", "sqs", "--no-reload")
    endpoint = dev.find(r"SQS at (http://\S+)")
    post(dev, "greeting/asked", name="ada")
    with urllib.request.urlopen(f"{endpoint}/moto-api/data.json") as response:
        assert "Queue" in json.load(response)["sqs"]
    dev.interrupt()
    assert dev.process.wait(TIMEOUT) == 0


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(
    start_dev: StartDev,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dev = start_dev("--port", str(taken.getsockname()[1]))
        assert dev.process.wait(TIMEOUT) == 3
    wait_until(lambda: "--port" in dev.output)
    assert "Traceback" not in dev.output


def test_an_app_without_the_extension_is_an_error_that_says_what_to_do(
    start_dev: StartDev, project: pathlib.Path
) -> None:
    (project / "app.py").write_text("import flask\napp = flask.Flask(__name__)\n")
    dev = start_dev("--port", "0")
    assert dev.process.wait(TIMEOUT) == 1
    wait_until(lambda: "durable = Durable(app)" in dev.output)
    assert "Traceback" not in dev.output


def test_away_from_loopback_the_endpoint_stays_closed(start_dev: StartDev) -> None:
    dev = start_dev("--port", "0", "--host", "0.0.0.0", "--no-reload")
    assert "closed" in dev.find(r"Events .*")
    codes: list[int] = []

    def answered() -> bool:
        try:
            urllib.request.urlopen(f"{dev.url}/durable/events", b"{}").close()
            codes.append(200)
        except urllib.error.HTTPError as error:
            with error:
                codes.append(error.code)
        except OSError:
            assert dev.process.poll() is None, dev.output
        return bool(codes)

    wait_until(answered, "the web app", TIMEOUT)
    assert codes[0] in (401, 403, 404)
