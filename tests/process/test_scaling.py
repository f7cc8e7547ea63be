"""A pool of real worker processes, kept and scaled by the commands."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from ..support.servers import valkey_server
from ..support.servers import wait_until

APP = """
import os, time
import click
from flask import Flask
from flask_durable import Durable
from flask_durable import Event

app = Flask(__name__)
app.config["DURABLE_REDIS_URL"] = os.environ["TEST_REDIS_URL"]
app.config["DURABLE_SCALE"] = {
    "default": {
        "desired_wait": "5s",
        "minimum": int(os.environ["TEST_MINIMUM"]),
        "maximum": int(os.environ["TEST_MAXIMUM"]),
        "period": "1s",
        "boot": "2s",
    }
}
durable = Durable(app)


def job(number, seconds):
    with open("began.txt", "a") as log:
        log.write(f"{number}\\n")
    time.sleep(seconds)
    with open("done.txt", "a") as log:
        log.write(f"{number}\\n")


@durable.function(on="job/asked")
def work(event, step):
    step.run("one", job, event.data["number"], event.data["seconds"])
    step.run("two", lambda: None)


@durable.function(on="job/asked-for-long")
def long_work(event, step):
    step.run("one", job, event.data["number"], event.data["seconds"])


@app.cli.command("burst")
@click.argument("count", type=int)
def burst(count):
    \"\"\"Send jobs: most are short, some long, and few very long.\"\"\"
    for start in range(0, count, 100):
        events = []
        for number in range(start, min(count, start + 100)):
            name = "job/asked" if number % 10 else "job/asked-for-long"
            seconds = 0.2 if number % 10 else 1.0 if number % 100 else 4.0
            events.append(Event(name, {"number": number, "seconds": seconds}))
        durable.send_many(events)
"""


#: Minimum and maximum of the pool, and jobs: a burst for every day, and a real one.
SHORT = (0, 3, 60)
LONG = (1, 6, 2_000)


@pytest.fixture
def burst(pytestconfig: pytest.Config) -> tuple[int, int, int]:
    """Bounds of the pool, and how many jobs there are."""
    return LONG if pytestconfig.getoption("--long") else SHORT


@pytest.fixture
def call(
    tmp_path: pathlib.Path, burst: tuple[int, int, int]
) -> t.Iterator[t.Callable[..., t.Any]]:
    """Run a command of the app, to its end or, with ``stays=True``, beside the test."""
    (tmp_path / "app.py").write_text(APP)
    running: list[subprocess.Popen[str]] = []
    with valkey_server() as server:
        environment = {
            **os.environ,
            "TEST_REDIS_URL": server.url,
            "TEST_MINIMUM": str(burst[0]),
            "TEST_MAXIMUM": str(burst[1]),
        }
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
            process.wait(60)


# Its own waits may take longer together than a test may usually.
@pytest.mark.timeout(600)
def test_a_burst_scales_a_pool_up_and_down_and_loses_nothing(
    call: t.Callable[..., t.Any],
    burst: tuple[int, int, int],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    minimum, maximum, jobs = burst
    assert call("scale", "--queue", "default").returncode == 3  # no supervisor yet
    pool = call("pool", "default", "--threads=2", stays=True)
    wait_until(lambda: call("scale", "--queue", "default").returncode == 0, timeout=60)
    loop = call("scale", "--all", "--loop=1s", "--json", stays=True)
    sent = call("burst", str(jobs))
    assert sent.returncode == 0, sent.stderr

    done = tmp_path / "done.txt"
    wait_until(
        lambda: done.exists() and len(done.read_text().split()) >= jobs,
        "the end of all jobs",
        timeout=60 + jobs,
    )
    wait_until(
        lambda: _workers(pool.pid) == minimum, "the end of all workers", timeout=90
    )
    numbers = [str(number) for number in range(jobs)]
    for file in ("began.txt", "done.txt"):  # nothing was lost, or killed and repeated
        assert sorted((tmp_path / file).read_text().split(), key=int) == numbers
    for status in ("queued", "running", "suspended", "paused", "failed", "cancelled"):
        listed = call("runs", "list", "--status", status, "--json")
        assert json.loads(listed.stdout) == []

    records = _decisions(call)
    sizes = [record["workers"] for record in records]
    changes = [size for size, _ in itertools.groupby(sizes)]
    assert max(sizes) == maximum
    assert sizes[-1] == minimum
    assert all(record["reason"] for record in records)
    with capsys.disabled():
        print(f"\n{jobs} jobs, workers: {' → '.join(map(str, changes))}")
    times = [t for r in records if (t := r["service_times"].get("work"))]
    measured = [known for known in times if known["source"] == "workers"]
    assert measured[-1]["mean"] > 0.1
    for process in (loop, pool):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def _workers(pool: int) -> int:
    """Return how many processes the supervisor keeps."""
    return len(pathlib.Path(f"/proc/{pool}/task/{pool}/children").read_text().split())


def _decisions(call: t.Callable[..., t.Any]) -> list[dict[str, t.Any]]:
    """Return what the scaler decided, oldest first."""
    history = call("scale", "--all", "--history=2000", "--json").stdout
    return [json.loads(line) for line in history.splitlines()[::-1] if line.strip()]
