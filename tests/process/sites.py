"""Worker processes, the servers that they use, and checks of their work."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t
from collections import Counter

import redis

from flask_durable import Event
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable.app.state import AppState
from flask_durable.messages import EVENT_QUEUE
from flask_durable.queue.transport import QueueCounts

from ..cli.processes import descendants
from ..support.servers import free_port
from ..support.servers import ValkeyServer
from ..support.servers import wait_until
from . import app as work

#: Seconds that each wait may take on a busy machine.
TIMEOUT = 60.0

#: Short, so that the runs of a dead process are soon taken over.
LEASE = "2s"

#: Seconds that messages stay hidden after their process died.
VISIBILITY = 2

APP = str(pathlib.Path(__file__).with_name("app.py"))


class Process:
    """A ``flask`` process of the app, with its output in a file."""

    def __init__(
        self, command: list[str], log: pathlib.Path, environment: dict[str, str]
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def says(self, text: str, times: int = 1) -> None:
        """Wait until the process has printed *text*."""

        def look() -> bool:
            assert self.is_alive, self.output
            return self.output.count(text) >= times

        wait_until(look, f"{text!r} in {self.log.name}", TIMEOUT)

    def signal(self, number: int, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait(TIMEOUT)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end of the process; return its exit code."""
        return self._process.wait(timeout)

    def threads(self) -> int:
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("Threads:")[2].split()[0])

    def end(self) -> None:
        """End it and all that it started, whatever state it is in."""
        left = descendants(self.pid)
        for pid in (self.pid, *left):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(TIMEOUT)


class Site:
    """One namespace on real servers, and the processes that work in it.

    :param environment: Further settings of every process, this one included.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        valkey: ValkeyServer,
        queue_url: str | None,
        namespace: str,
        **environment: str,
    ) -> None:
        self.folder = folder
        self.valkey = valkey
        self.kind = "redis" if queue_url is None else "sqs"
        self.environment = {
            "FLASK_DURABLE_REDIS_URL": valkey.url,
            "FLASK_DURABLE_NAMESPACE": namespace,
            "FLASK_DURABLE_LEASE": LEASE,
            "FLASK_DURABLE_VISIBILITY_TIMEOUT": f"{VISIBILITY}s",
            "TEST_TRACE": str(folder / "trace"),
            **environment,
        }
        if queue_url is not None:
            self.environment["FLASK_DURABLE_QUEUE_URL"] = queue_url
        prefix = "FLASK_"
        self.app = work.create_app(
            **{
                key.removeprefix(prefix): value
                for key, value in self.environment.items()
                if key.startswith(prefix)
            }
        )
        self.processes: list[Process] = []
        self._tag = f"{{{namespace}:0}}"

    @property
    def state(self) -> AppState:
        """The services of the app in this process."""
        return work.durable.state_of(self.app)

    # -- Processes ----------------------------------------------------------------

    def worker(
        self, *options: str, threads: int = 2, app: str = APP, **environment: str
    ) -> Process:
        """Start a worker, without waiting for it."""
        command = ["durable", "worker", f"--threads={threads}", *options]
        return self._start("worker", command, app, environment)

    def ready(self, *options: str, **given: t.Any) -> Process:
        """Start a worker, and wait until it works."""
        worker = self.worker(*options, **given)
        worker.says("is ready")
        return worker

    def web(self, app: str = APP, **environment: str) -> tuple[Process, str]:
        """Start the web app; return it and its address."""
        port = free_port()
        command = ["run", f"--port={port}", "--no-reload"]
        process = self._start("web", command, app, environment)
        process.says(f":{port}")
        return process, f"http://127.0.0.1:{port}"

    def command(self, *arguments: str, **environment: str) -> str:
        """Run ``flask durable …`` to its end, which has to be a good one."""
        name = f"command-{arguments[0]}"
        process = self._start(name, ["durable", *arguments], APP, environment)
        assert process.wait() == 0, process.output
        return process.output

    def _start(
        self, name: str, command: list[str], app: str, environment: dict[str, str]
    ) -> Process:
        log = self.folder / f"{name}-{len(self.processes)}.log"
        process = Process(
            [sys.executable, "-m", "flask", "--app", app, *command],
            log,
            {**os.environ, **self.environment, **environment},
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End every process, and show what they printed: pytest does, on failure."""
        for process in self.processes:
            process.end()
            print(f"--- {process.log.name}\n{process.output[-8000:]}")
        state = work.durable.state_of(self.app)
        state.broker.close()
        state.server.close()

    # -- Runs ---------------------------------------------------------------------

    def send(self, name: str, id: str, **data: t.Any) -> str:
        """Send an event from this process; return its id."""
        with self.app.app_context():
            return work.durable.send(name, data, id=id)

    def send_many(self, name: str, ids: t.Iterable[str]) -> None:
        """Send events without data."""
        with self.app.app_context():
            work.durable.send_many(Event(name, {}, id=id) for id in ids)

    def runs_of(self, *events: str) -> list[Run]:
        """Return the runs that exist of *events*."""
        with self.app.app_context():
            return [run for id in events for run in work.durable.runs.of_event(id)]

    def run_of(self, event: str) -> Run:
        """Return the one run of *event*, with its steps."""
        (run,) = self.runs_of(event)
        with self.app.app_context():
            return work.durable.runs.get(run.id)

    def resume(self, run: str) -> None:
        with self.app.app_context():
            work.durable.runs.resume(run)

    def are(self, status: str, *events: str, timeout: float = TIMEOUT) -> None:
        """Wait until each of *events* has one run in this state."""

        def look() -> bool:
            found = [run.status.value for run in self.runs_of(*events)]
            return found == [status] * len(events)

        try:
            wait_until(look, f"{len(events)} runs {status}", timeout)
        except TimeoutError as error:
            states = Counter(f"{r.status} {r.reason}" for r in self.runs_of(*events))
            raise AssertionError(f"{error}; they are {dict(states)}") from None

    def count(self, status: str) -> int:
        with self.app.app_context():
            return work.durable.runs.count(status)

    def counts(self, status: str, number: int, timeout: float = TIMEOUT) -> None:
        """Wait until *number* runs are in a state."""
        try:
            wait_until(lambda: self.count(status) == number, status, timeout)
        except TimeoutError as error:
            found = {each.value: self.count(each) for each in RunStatus}
            raise AssertionError(f"{error}; {found}; {self.queues()}") from None

    def queues(self) -> list[QueueCounts]:
        """Return the numbers of messages in the queues."""
        broker = work.durable.state_of(self.app).broker
        return [broker.transport.counts(queue) for queue in (EVENT_QUEUE, "default")]

    def are_empty(self) -> None:
        """Wait until no message is left in any queue, in hand or dead."""
        nothing = QueueCounts(0, 0, 0, 0)
        wait_until(lambda: self.queues() == [nothing, nothing], "empty queues", TIMEOUT)

    def skip(self, seconds: float) -> None:
        """Bring every time on the server nearer."""
        key = f"{self._tag}:timers"
        with redis.Redis.from_url(self.valkey.url, decode_responses=True) as client:
            pipeline = client.pipeline(transaction=False)
            for timer in t.cast("list[str]", client.zrange(key, 0, -1)):
                pipeline.zincrby(key, -seconds * 1000, timer)
            pipeline.execute()

    # -- What was done ------------------------------------------------------------

    def trace(self, moment: str | None = None) -> list[dict[str, t.Any]]:
        """Return the side effects so far, or those of one moment, in order."""
        path = self.folder / "trace"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if moment in (None, line["moment"])]

    def has_begun(self, count: int, pid: int | None = None) -> None:
        """Wait until *count* bodies have begun, in any process or in this one."""

        def look() -> bool:
            begun = [x for x in self.trace("begin") if pid in (None, x["pid"])]
            return len(begun) >= count

        wait_until(look, f"{count} bodies", TIMEOUT)

    def no_committed_step_ran_again(self) -> None:
        # A late owner may reach the end of a body that it began before it was late.
        begun = [line for line in self.trace() if line["moment"] != "end"]
        again = [line for line in begun if line["committed"]]
        assert not again, again

    def each_step_ran_once(self) -> None:
        self.no_committed_step_ran_again()
        counts = Counter((x["run"], x["step"], x["moment"]) for x in self.trace())
        repeated = {key: count for key, count in counts.items() if count > 1}
        assert not repeated, repeated
