"""An app in a folder of its own, the development stack that runs it, and commands."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import typing as t

import pytest

from ..support.harness import Harness
from ..support.servers import wait_until
from .commands import declare
from .commands import Run
from .commands import runner_of
from .processes import descendants

#: Seconds that a stack may take to start or stop on a busy machine.
TIMEOUT = 60.0

APP = """
import os
import pathlib
import time

from flask import Flask
from flask_durable import Durable

durable = Durable()


@durable.function(on="greeting/asked")
def greet(event, step):
    name = step.run("look-up", str.title, event.data["name"])
    return {"greeting": f"Hello, {name}"}


@durable.function(on="repair/asked", retries=0)
def repair(event, step):
    step.run("prepare", str, 1)
    step.run("repair", _repair, event.data["switch"])
    return "repaired"


def _repair(switch):
    if not pathlib.Path(switch).exists():
        raise RuntimeError("out of order")


@durable.function(on="nap/asked", queue="bed")
def nap(event, step):
    step.run("undress", str, 1)
    step.sleep("nap", "1h")


@durable.function(on="choice/asked", where=lambda event: event.data.get("yes", False))
def choose(event, step):
    return "chosen"


@durable.function(on="work/asked")
def work(event, step):
    step.run("work", _work, event.data["started"])


def _work(started):
    pathlib.Path(started).touch()
    time.sleep(600)


def create_app():
    app = Flask(__name__, instance_path=os.environ.get("TEST_INSTANCE"))
    app.config.from_prefixed_env()
    durable.init_app(app)
    return app
"""


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a folder with an app that has nothing configured."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class Dev:
    """A running ``flask durable dev``, and what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        # A child that outlives it may keep its output open.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Everything it printed so far."""
        return "".join(self.lines)

    def find(self, pattern: str) -> str:
        """Wait until something that fits *pattern* was printed; return its group."""

        def look() -> bool:
            if not (found := re.search(pattern, self.output)):
                assert self.process.poll() is None, self.output
            return found is not None

        wait_until(look, pattern, TIMEOUT)
        found = re.search(pattern, self.output)
        assert found is not None
        return found[1] if found.re.groups else found[0]

    @property
    def url(self) -> str:
        """The address of its web app."""
        return self.find(r"Web app +(http://\S+)")

    @property
    def redis_url(self) -> str:
        """The address of its state server."""
        return self.find(r"State +(redis://\S+)")

    def running(self) -> set[int]:
        """Return the processes that it started and that run."""
        return descendants(self.process.pid)

    def interrupt(self) -> None:
        """Do what Ctrl-C does: the terminal sends SIGINT to its foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line)

    def close(self) -> None:
        """End it, with all that a failed test left of it."""
        left = self.running()
        self.process.kill()
        self.process.wait(TIMEOUT)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reader.join(TIMEOUT)


StartDev = t.Callable[..., Dev]


@pytest.fixture
def start_dev(project: pathlib.Path) -> t.Iterator[StartDev]:
    """Return a function that starts ``flask durable dev`` with options."""
    started: list[Dev] = []

    def start(*options: str, **environment: str) -> Dev:
        process = subprocess.Popen(
            flask_command("durable", "dev", *options),
            cwd=project,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        started.append(Dev(process))
        return started[-1]

    yield start
    for dev in started:
        dev.close()
        print(dev.output)  # pytest shows it when the test failed


def flask_command(*arguments: str) -> list[str]:
    """Return the command line of ``flask`` with *arguments*."""
    return [sys.executable, "-m", "flask", "--app", "app", *arguments]


def run_flask(
    folder: pathlib.Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run ``flask`` with *arguments* in *folder* to its end."""
    return subprocess.run(
        flask_command(*arguments),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture
def driven(harness: Harness) -> Harness:
    """Declare the functions of the tests of commands."""
    declare(harness.durable)
    harness.publish()
    return harness


@pytest.fixture
def run(driven: Harness) -> Run:
    """Return a caller of the commands of an app, with ``flask durable`` left out."""
    return runner_of(driven.app)
