"""An HTTP server on a thread, for fakes that keep a platform's rules."""

from __future__ import annotations

import contextlib
import json
import threading
import typing as t
from dataclasses import dataclass
from dataclasses import field
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: t.Mapping[str, str]
    body: t.Any


@dataclass(frozen=True)
class Reply:
    status: int
    body: t.Any = None
    headers: t.Mapping[str, str] = field(default_factory=dict)


class FakeServer:
    """Answers requests one at a time; subclasses implement :meth:`answer`.

    :ivar requests: The requests that came, in order.
    :ivar failures: The answers to give instead, one for each request until there are no
        more. ``None`` closes the connection.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.failures: list[Reply | None] = []
        self._lock = threading.Lock()
        self.url = ""

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def made(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    def handle(self, request: Request) -> Reply | None:
        with self._lock:
            self.requests.append(request)
            return self.failures.pop(0) if self.failures else self.answer(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body: t.Any = self.rfile.read(length).decode() if length else None
        if body is not None and "json" in self.headers.get("Content-Type", ""):
            body = json.loads(body)
        reply = self.fake.handle(
            Request(self.command, self.path, self.headers, body)  # type: ignore[arg-type]
        )
        self.close_connection = reply is None
        if reply is not None:
            self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        content = reply.body
        if not isinstance(content, bytes):
            content = b"" if content is None else json.dumps(content).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = _serve

    def log_message(self, format: str, *args: t.Any) -> None:
        pass


_Fake = t.TypeVar("_Fake", bound=FakeServer)


@contextlib.contextmanager
def serving(fake: _Fake) -> t.Iterator[_Fake]:
    """Serve *fake* on a free loopback port inside the block."""
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
