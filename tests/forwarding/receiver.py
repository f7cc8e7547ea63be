"""A real HTTP server that keeps its requests, and answers as it is told."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import threading
import typing as t
from email.message import Message

import pytest

KEY = "evk_secret-in-the-path"


@dataclasses.dataclass
class Delivery:
    """One request that came."""

    path: str
    headers: Message
    body: bytes

    @property
    def json(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads(self.body))


Handler = http.server.BaseHTTPRequestHandler
Answer = t.Callable[[Handler], None]


def status(number: int, headers: t.Mapping[str, str] | None = None) -> Answer:
    """Return an answer with a status, which repeats the key in its body."""

    def answer(handler: Handler) -> None:
        body = f"what was sent to {handler.path} is answered {number}".encode()
        handler.send_response(number, f"Reason {KEY}")
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def nothing(handler: Handler) -> None:
    """Close the connection without an answer."""


def nonsense(handler: Handler) -> None:
    handler.wfile.write(f"{KEY} is no HTTP\r\n\r\n".encode())


def half(handler: Handler) -> None:
    """Break off in the middle of an answer of success."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


def half_a_chunk(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{")


def silence(handler: Handler) -> None:
    """Give no answer until the client gives up."""
    handler.rfile.read(1)


def trickle(handler: Handler) -> None:
    """Answer for ever, in parts that each come in time."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"X: y\r\n" if _pause() else b"")


def _pause() -> bool:
    threading.Event().wait(0.1)
    return True


def endless(handler: Handler) -> None:
    """Answer success with a body without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"x" * 65_536)


class Receiver:
    """The server. It answers 200 if it has no other answer."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.answers: list[Answer] = []
        receiver = self

        class ReceiverHandler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                receiver.deliveries.append(Delivery(self.path, self.headers, body))
                answer = receiver.answers.pop(0) if receiver.answers else status(200)
                answer(self)

            do_GET = do_POST

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), ReceiverHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/e/{KEY}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()


@pytest.fixture
def receiver() -> t.Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()
