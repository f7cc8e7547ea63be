"""Inngest's official SDKs in processes of their own, and a proxy that fails them."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import typing as t
import urllib.error
import urllib.request

import pytest

#: The version that is installed with npm, once, when it is first needed.
JAVASCRIPT = "inngest@4.24.0"

#: The folder of the installed SDK: next to the tests, and not part of the project.
CACHE = pathlib.Path(__file__).parents[2] / ".cache"

#: Seconds that an SDK may take for its tries, and npm for its downloads.
SEND_TIMEOUT = 60
INSTALL_TIMEOUT = 100

_PYTHON = """
import inngest, json, sys
client = inngest.Inngest(app_id="test")
events = [inngest.Event(**event) for event in json.loads(sys.argv[1])]
try:
    print(json.dumps({"ids": client.send_sync(events)}))
except Exception as error:
    ids = getattr(error, "ids", None)
    print(json.dumps({"ids": ids, "error": f"{type(error).__name__}: {error}"}))
"""

_JAVASCRIPT = """
import { Inngest } from "inngest";
const client = new Inngest({ id: "test" });
try {
  const { ids } = await client.send(JSON.parse(process.argv[1]));
  console.log(JSON.stringify({ ids }));
} catch (error) {
  console.log(JSON.stringify({ ids: null, error: String(error) }));
}
"""


class SDK:
    """One of the SDKs.

    :param command: The command line before the events as JSON.
    :param folder: The folder that it is installed in.
    """

    def __init__(self, command: list[str], folder: pathlib.Path) -> None:
        self._command = command
        self._folder = folder

    def send(
        self, events: list[dict[str, t.Any]], url: str, key: str = "", **env: str
    ) -> dict[str, t.Any]:
        """Send *events* like an app that is configured by its environment.

        :returns: The ``ids`` that the SDK returned, or the ``error`` that it raised.
        """
        given = {"INNGEST_BASE_URL": url, **({"INNGEST_EVENT_KEY": key} if key else {})}
        done = subprocess.run(
            [*self._command, json.dumps(events)],
            env={**os.environ, **given, **env},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=SEND_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return t.cast("dict[str, t.Any]", json.loads(done.stdout.splitlines()[-1]))


def python_sdk(folder: pathlib.Path) -> SDK:
    """Return the SDK for Python."""
    return SDK([sys.executable, "-c", _PYTHON], folder)


def javascript_sdk() -> SDK:
    """Return the SDK for JavaScript, which is installed when it is not there.

    If Node is missing or npm finds nothing, the test is skipped; on CI it fails.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        _unavailable("node and npm are not installed")
    folder = CACHE / JAVASCRIPT
    if not folder.exists():
        _install(npm, folder)
    return SDK([node, "--input-type=module", "-e", _JAVASCRIPT, "--"], folder)


def _install(npm: str, folder: pathlib.Path) -> None:
    # Installed aside first: an interrupted installation must not look complete.
    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            [*command, "--prefix", str(aside), JAVASCRIPT],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
        if done.returncode:
            _unavailable(f"npm could not install {JAVASCRIPT}: {done.stderr[-300:]}")
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unavailable(reason: str) -> t.NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


#: Handles a request in the proxy: it gets the request and the way to the server, and
#: answers or not.
Fault = t.Callable[["_Handler"], None]


class Proxy:
    """Stands between an SDK and the web app; fails the first requests as it is told.

    :param target: The web app's address.
    :param faults: The faults of the first, second, … request; later ones pass.
    """

    def __init__(self, target: str, faults: t.Sequence[Fault] = ()) -> None:
        self.target = target
        self.faults = list(faults)
        #: The status of each answer of the web app that came through here.
        self.statuses: list[int] = []
        self.requests = 0
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.proxy = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        self.body = self.rfile.read(int(self.headers["content-length"]))
        proxy.requests += 1
        fault = proxy.faults.pop(0) if proxy.faults else passes
        fault(self)

    def forward(self) -> tuple[int, bytes]:
        """Give the request to the web app; return its answer."""
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        request = urllib.request.Request(
            proxy.target + self.path, self.body, dict(self.headers), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=SEND_TIMEOUT) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        proxy.statuses.append(status)
        return status, body

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def cut(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)

    def log_message(self, *args: t.Any) -> None:
        """Log nothing."""


def passes(request: _Handler) -> None:
    """Give the request to the web app, and its answer to the SDK."""
    request.answer(*request.forward())


def breaks(request: _Handler) -> None:
    """Answer 500; the web app never hears of the request."""
    request.answer(500, b'{"error":"broken"}')


def breaks_after(request: _Handler) -> None:
    """Answer 500 although the web app accepted the events."""
    request.forward()
    breaks(request)


def cuts(request: _Handler) -> None:
    """Cut the connection; the web app never hears of the request."""
    request.cut()


def cuts_after(request: _Handler) -> None:
    """Cut the connection after the web app accepted the events."""
    request.forward()
    request.cut()
