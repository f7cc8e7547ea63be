"""A pool of real worker processes, kept and scaled by the commands."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from ..cli.processes import descendants
from ..servers import valkey_server
from ..servers import wait_until

APP = """
import os, time
from flask import Flask
from flask_durable import Durable

app = Flask(__name__)
app.config["DURABLE_REDIS_URL"] = os.environ["TEST_REDIS_URL"]
app.config["DURABLE_SCALE"] = {
    "default": {"desired_wait": "5s", "maximum": 3, "period": "1s", "boot": "2s"}
}
durable = Durable(app)


@durable.function(on="job/asked")
def work(event, step):
    step.run("one", time.sleep, event.data["seconds"])
    step.run("two", lambda: None)


@app.cli.command("burst")
def burst():
    for _ in range(60):
        durable.send("job/asked", {"seconds": 0.2})
"""


@pytest.fixture
def call(tmp_path: pathlib.Path) -> t.Iterator[t.Callable[..., t.Any]]:
    """Run a command of the app, to its end or, with ``stays=True``, beside the test."""
    (tmp_path / "app.py").write_text(APP)
    running: list[subprocess.Popen[str]] = []
    with valkey_server() as server:
        environment = {**os.environ, "TEST_REDIS_URL": server.url}
        flask = [sys.executable, "-m", "flask", "--app", "app"]

        def call(*arguments: str, stays: bool = False) -> t.Any:
            command = flask if arguments[0] == "burst" else [*flask, "durable"]
            options: dict[str, t.Any] = {"cwd": tmp_path, "env": environment}
            if stays:
                with open(tmp_path / f"{arguments[0]}.log", "w") as log:
                    process = subprocess.Popen(
                        [*command, *arguments],
                        stdout=log,
                        stderr=log,
                        text=True,
                        **options,
                    )
                running.append(process)
                return process
            return subprocess.run(
                [*command, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                **options,
            )

        yield call
        for process in running:
            process.kill()
            process.wait()


def test_a_burst_scales_a_pool_up_and_down_and_loses_nothing(
    call: t.Callable[..., t.Any],
) -> None:
    assert call("scale", "--queue", "default").returncode == 3  # no supervisor yet
    pool = call("pool", "default", "--threads=2", stays=True)
    wait_until(lambda: call("scale", "--queue", "default").returncode == 0, timeout=60)
    loop = call("scale", "--all", "--loop=1s", "--json", stays=True)
    sent = call("burst")
    assert sent.returncode == 0, sent.stderr

    def completed() -> bool:
        listed = call("runs", "list", "--status", "completed", "--json", "--limit=100")
        return len(json.loads(listed.stdout)) == 60

    wait_until(completed, timeout=120)
    wait_until(lambda: not descendants(pool.pid), "the end of all workers", timeout=60)

    records = [
        json.loads(line)
        for line in call("scale", "--all", "--history=500", "--json").stdout.split("\n")
        if line.strip()
    ]
    sizes = [record["workers"] for record in reversed(records)]
    assert max(sizes) == 3
    assert sizes[-1] == 0
    assert all(record["reason"] for record in records)
    times = [t for r in records if (t := r["service_times"].get("work"))]
    measured = [known for known in times if known["source"] == "workers"]
    assert measured[-1]["mean"] > 0.1
    for process in (loop, pool):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
