"""The development stack: server, web app and worker as one context manager."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import types
import typing as t
from pathlib import Path

import click
from flask import current_app
from flask import Flask
from flask import has_app_context
from flask.cli import ScriptInfo

from ...app.state import DEVELOPMENT_MARK
from ...common.ids import pid_in
from ...errors import ConfigurationError
from ...errors import UnavailableError
from ...redis.embedded import data_directory
from ...redis.embedded import EmbeddedServer
from ...redis.embedded import free_port
from ..parameters import log_arguments
from ..problems import durable_of
from ..problems import is_unreachable
from . import local_sqs
from .children import Child
from .keeper import Keeper
from .ports import accepts
from .ports import answers
from .ports import check_port
from .ports import is_loopback

if t.TYPE_CHECKING:
    from ...config.settings import Settings
    from ...extension import Durable
    from ...observe.formats import LogFormat

#: Seconds that a stopping worker has to reach its next step boundary.
_DRAIN_TIMEOUT = 10

#: Seconds between two checks for the stack being ready or having to stop.
_POLL_INTERVAL = 0.1


class DevStack:
    """The embedded server, the web app and a worker, for development and tests.

    ::

        with DevStack("example_app", port=0) as stack:
            stack.wait_ready(timeout=60)
            print(stack.url)

    Processes that die are started again. Leaving the block stops all of them: first
    the worker, which hands its runs back, and the web app, last the server. On Linux
    they also end when this process is killed, and elsewhere within a second.

    The embedded server begins empty, in a temporary folder that is removed at the end.
    No stack sees the data of an earlier one, or that of ``flask durable dev``. In the
    block :attr:`app` uses the server too.

    When the app has no ``DURABLE_EXTERNAL_URL``, it is that of the web app.

    When the app has a ``DURABLE_REDIS_URL``, that server is used and none is started.
    Its data stays: give tests a ``DURABLE_NAMESPACE`` of their own.

    :param app_import: The value for ``flask --app``. Default: that of the running
        ``flask`` command, otherwise the app that ``flask`` finds.
    :param host: The address that the web app listens on. The endpoint for events is
        open without a key on loopback only.
    :param port: The port of the web app; 0: a free one.
    :param queue: ``"redis"``: as the app is configured, by default the same server.
        ``"sqs"``: a local SQS endpoint, in memory.
    :param reload: True to restart web app and worker when the source changes.
    :param quiet: True to write their output to files in the folder ``durable`` of the
        instance folder, ``web.log`` and ``worker.log``.
    :param processes: Processes of the worker.
    :param threads: Threads of each process.
    :param log_format: The form of the worker's log, if not the app's own.
    :param keep_data: True to use the embedded server of ``flask durable dev``. It keeps
        its data in the instance folder, and may run already.
    """

    def __init__(
        self,
        app_import: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 5000,
        queue: t.Literal["redis", "sqs"] = "redis",
        reload: bool = False,
        quiet: bool = False,
        processes: int = 1,
        threads: int = 8,
        log_format: LogFormat | None = None,
        keep_data: bool = False,
    ) -> None:
        self.app_import = app_import or _running_app_import()
        self.services = host
        self.port = port
        self.queue = queue
        self.reload = reload
        self.quiet = quiet
        self.processes = processes
        self.threads = threads
        self.log_format = log_format
        self.keep_data = keep_data
        #: The app, as this process has loaded it; set on entering.
        self.app: Flask
        #: The embedded server, ``None`` when the app is configured with another.
        self.server: EmbeddedServer | None = None
        #: The address of the local SQS endpoint, if there is one.
        self.sqs_endpoint: str | None = None
        self._keeper: Keeper
        #: Undoes the effects of entering, the last one first.
        self._undo = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The address of the web app, without a slash at the end."""
        host = self._reachable_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def redis_url(self) -> str:
        """The URL of the state server."""
        if self.server is not None and self.server.url is not None:
            return self.server.url
        return t.cast(str, self.settings.redis_url)

    @property
    def is_local(self) -> bool:
        """True if the web app listens on loopback only."""
        return is_loopback(self.services)

    @property
    def durable(self) -> Durable:
        """The app's extension object."""
        return durable_of(self.app)

    @property
    def settings(self) -> Settings:
        """The app's settings."""
        return self.durable.state_of(self.app).settings

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running ones of ``web``, ``worker`` and ``server``."""
        return self._keeper.pids

    def __enter__(self) -> t.Self:
        """Start everything.

        :raises ConfigurationError: The app does not use Flask-Durable, or a needed
            package is not installed.
        :raises UnavailableError: The port is taken, or a server does not start.
        """
        self.app = _load_app(self.app_import)
        with contextlib.ExitStack() as undo:
            self._prepare(undo)
            self._keeper = Keeper(
                self.server,
                self._make_children,
                restart_on_change=("worker",) if self.reload else (),
            )
            self._keeper.start()
            undo.callback(self._keeper.stop)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._undo.close()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the web app answers and a worker is alive.

        :param timeout: Seconds to wait.
        :raises TimeoutError: The web app or the worker was not ready in time.
        :raises UnavailableError: A process keeps dying.
        """
        deadline = time.monotonic() + timeout
        needed = {"web app": self._web_answers, "worker": self._worker_lives}
        for name, ready in needed.items():
            while not ready():
                if self._keeper.stopping.wait(_POLL_INTERVAL):
                    raise self._keeper.error or UnavailableError("The stack stopped.")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"The {name} is not ready after {timeout:g} s.")

    def wait(self) -> None:
        """Wait for Ctrl-C, ``SIGTERM`` or ``SIGHUP``; call it from the main thread.

        :raises UnavailableError: A process keeps dying.
        """
        with until_interrupted():
            # In short pieces: a signal just before a wait without limit would never be
            # handled.
            while not self._keeper.stopping.wait(_POLL_INTERVAL):
                pass
        if self._keeper.error is not None:
            raise self._keeper.error

    @property
    def _reachable_host(self) -> str:
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return everywhere.get(self.services, self.services)

    def _prepare(self, undo: contextlib.ExitStack) -> None:
        if sys.platform == "win32":
            raise ConfigurationError(
                "The development stack does not run on Windows itself.",
                hint="Use WSL, or set DURABLE_REDIS_URL and start `flask run` and "
                "`flask durable worker`.",
            )
        if self.queue == "sqs":
            self._prepare_sqs()
        if self.settings.redis_url is None:
            self.server = EmbeddedServer(self._choose_directory(undo))
        if self.port == 0:
            self.port = free_port()
        else:
            check_port(self.services, self.port)

    def _prepare_sqs(self) -> None:
        local_sqs.check_installed()
        if self.settings.queue_url is not None:
            raise ConfigurationError(
                "The local SQS endpoint contradicts the app's DURABLE_QUEUE_URL.",
                hint="Remove one of them.",
            )
        self.sqs_endpoint = f"http://127.0.0.1:{free_port()}"

    def _choose_directory(self, undo: contextlib.ExitStack) -> Path:
        """Return the folder with the data of the embedded server."""
        if self.keep_data:
            return data_directory(self.app.instance_path)
        made = tempfile.TemporaryDirectory(
            prefix="flask-durable-", ignore_cleanup_errors=True
        )
        directory = Path(undo.enter_context(made))
        state = self.durable.state_of(self.app)
        undo.callback(state.look_for_server_in, state.data)
        state.look_for_server_in(directory)
        return directory

    def _make_children(self) -> list[Child]:
        environment = self._environment()
        flask = [sys.executable, "-m", "flask"]
        if self.app_import:
            flask += ["--app", self.app_import]
        children = [
            Child(
                "web",
                [*flask, *self._web_arguments()],
                environment,
                log=self._log("web"),
            ),
            Child(
                "worker",
                [*flask, *self._worker_arguments()],
                environment,
                grace=_DRAIN_TIMEOUT + 2,
                log=self._log("worker"),
            ),
        ]
        if self.sqs_endpoint is not None:
            children.insert(0, self._sqs_child(self.sqs_endpoint, environment))
        return children

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self.server is not None:
            environment["FLASK_DURABLE_REDIS_URL"] = self.redis_url
        if self.settings.external_url is None and not self.app.config["SERVER_NAME"]:
            environment["FLASK_DURABLE_EXTERNAL_URL"] = self.url
        if self.is_local:
            # The endpoint for events may be open without a key.
            environment[DEVELOPMENT_MARK] = "1"
        if self.sqs_endpoint is not None:
            return local_sqs.environment(environment, self.sqs_endpoint)
        return environment

    def _sqs_child(self, endpoint: str, environment: dict[str, str]) -> Child:
        port = int(endpoint.rpartition(":")[2])
        return Child(
            "sqs",
            [sys.executable, "-m", local_sqs.__name__, str(port)],
            environment,
            log=self._log("sqs"),
            is_server=True,
            ready=lambda: accepts("127.0.0.1", port),
        )

    def _web_arguments(self) -> list[str]:
        reload = "--reload" if self.reload else "--no-reload"
        return ["run", "--host", self.services, "--port", str(self.port), reload]

    def _worker_arguments(self) -> list[str]:
        return [
            "durable",
            "worker",
            f"--processes={self.processes}",
            f"--threads={self.threads}",
            f"--drain-timeout={_DRAIN_TIMEOUT}s",
            *log_arguments(self.log_format),
        ]

    def _log(self, name: str) -> Path | None:
        if not self.quiet:
            return None
        directory = data_directory(self.app.instance_path)
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{name}.log"

    def _web_answers(self) -> bool:
        prefix = self.settings.url_prefix
        if prefix is None:
            return accepts(self._reachable_host, self.port)
        path = f"{prefix.rstrip('/')}/healthz"
        return answers(self._reachable_host, self.port, path)

    def _worker_lives(self) -> bool:
        # The beat of a worker that was killed is believed for some seconds.
        group = self.pids.get("worker")
        if group is None:
            return False
        try:
            workers = self.durable.state_of(self.app).directory.workers()
            # A unit has the name of the process itself, or of its supervisor, which
            # gives each of its processes a group of its own.
            return any(
                _is_in_group(pid_in(worker["unit"]), group) for worker in workers
            )
        except Exception as error:
            if is_unreachable(error):  # the server may be starting again
                return False
            raise


def _is_in_group(pid: int | None, group: int) -> bool:
    try:
        return pid is not None and os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def _running_app_import() -> str | None:
    context = click.get_current_context(silent=True)
    info = context.find_object(ScriptInfo) if context else None
    return info.app_import_path if info else None


def _load_app(app_import: str | None) -> Flask:
    if has_app_context():
        return t.cast(Flask, t.cast(t.Any, current_app)._get_current_object())
    return ScriptInfo(app_import_path=app_import).load_app()


@contextlib.contextmanager
def until_interrupted() -> t.Iterator[None]:
    """Leave the body at Ctrl-C, ``SIGTERM`` or ``SIGHUP``, or at its end."""
    with contextlib.suppress(KeyboardInterrupt), _signals_interrupt():
        yield


@contextlib.contextmanager
def _signals_interrupt() -> t.Iterator[None]:
    """Give ``SIGTERM`` and ``SIGHUP`` the effect of Ctrl-C."""

    def interrupt(signum: int, frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
