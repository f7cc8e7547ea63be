"""An HTTP proxy in front of an SQS server, with faults that a test chooses.

The next call of an operation meets its fault: a reply that is lost after the call was
carried out, a server error, an error answer, or single entries of a batch that are
refused. An operation may also hang or fail each time. All other calls pass.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import typing as t
from collections import Counter
from collections import defaultdict
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class LoseReply:
    """The call is carried out, and its reply never arrives."""


@dataclass(frozen=True)
class Answer:
    """The call is not carried out, and gets this answer."""

    code: str
    status: int = 400


@dataclass(frozen=True)
class Refuse:
    """These entries of the batch are refused, the others carried out."""

    numbers: tuple[int, ...]
    code: str = "InternalError"
    sender_fault: bool = False


@dataclass(frozen=True)
class Pretend:
    """The call is not carried out: another server answers it, with status 200."""

    body: bytes


Fault = LoseReply | Answer | Refuse | Pretend


class Proxy:
    """Runs in this process, on a port of its own.

    :param endpoint: The address of the server behind.
    """

    def __init__(self, endpoint: str) -> None:
        self._behind = urlsplit(endpoint).netloc
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._failing: set[str] = set()
        self._hanging: dict[str, threading.Event] = {}
        #: The address of the queue whose calls hang, if not those of all.
        self._hung_queue: dict[str, str] = {}
        self._lock = threading.Lock()
        #: Calls by operation, whatever their fault.
        self.calls: Counter[str] = Counter()
        #: The bodies that were sent, by operation.
        self.requests: dict[str, list[t.Any]] = defaultdict(list)
        #: The highest receive count that was seen of each message, by its id.
        self.receives: dict[str, int] = {}
        self._server = _server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"sqs://?region=us-east-1&endpoint={self.endpoint}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def meets(self, operation: str, *faults: Fault) -> None:
        """Let the next calls of *operation* meet *faults*, one each."""
        self._faults[operation].extend(faults)

    def fails(self, operation: str) -> None:
        """Let every call of *operation* fail, until :meth:`heals`."""
        self._failing.add(operation)

    def hangs(self, operation: str, queue_url: str = "") -> None:
        """Let no call of *operation* be answered, until :meth:`heals`.

        :param queue_url: The queue whose calls are meant, if not those of all.
        """
        self._hung_queue[operation] = queue_url
        self._hanging[operation] = threading.Event()

    def heals(self) -> None:
        """Let all calls pass again."""
        self._failing.clear()
        while self._hanging:
            self._hanging.popitem()[1].set()

    @property
    def left(self) -> int:
        """The number of faults that no call has met yet."""
        return sum(map(len, self._faults.values()))

    def close(self) -> None:
        self.heals()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    def carry_out(
        self, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes] | None:
        """Return status and body of the answer, or nothing."""
        operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
        request = json.loads(body or b"{}")
        self.calls[operation] += 1
        self.requests[operation].append(request)
        if (healed := self._hanging.get(operation)) is not None:
            only = self._hung_queue[operation]
            if not only or request.get("QueueUrl") == only:
                healed.wait(120)
                return None
        fault = self._next_fault(operation)
        if isinstance(fault, Answer):
            said = {"__type": f"com.amazonaws.sqs#{fault.code}", "message": "injected"}
            return fault.status, json.dumps(said).encode()
        if isinstance(fault, Pretend):
            return 200, fault.body
        if isinstance(fault, Refuse):
            return self._refuse(path, headers, request, fault)
        answer = self._forward(path, headers, body)
        if operation == "ReceiveMessage":
            self._note_receives(json.loads(answer[1]))
        return None if isinstance(fault, LoseReply) else answer

    def _next_fault(self, operation: str) -> Fault | None:
        if operation in self._failing:
            return Answer("ServiceUnavailable", 503)
        with self._lock:
            waiting = self._faults[operation]
            return waiting.popleft() if waiting else None

    def _note_receives(self, reply: t.Any) -> None:
        for message in reply.get("Messages", ()):
            count = int(message["Attributes"]["ApproximateReceiveCount"])
            self.receives[message["MessageId"]] = count

    def _refuse(
        self, path: str, headers: dict[str, str], request: t.Any, fault: Refuse
    ) -> tuple[int, bytes]:
        entries = request["Entries"]
        refused = [entries[n] for n in fault.numbers if n < len(entries)]
        request["Entries"] = [entry for entry in entries if entry not in refused]
        status, reply = 200, b"{}"
        if request["Entries"]:
            status, reply = self._forward(path, headers, json.dumps(request).encode())
        said = json.loads(reply)
        said.setdefault("Successful", [])
        said["Failed"] = said.get("Failed", []) + [
            {
                "Id": entry["Id"],
                "Code": fault.code,
                "SenderFault": fault.sender_fault,
                "Message": "injected",
            }
            for entry in refused
        ]
        return status, json.dumps(said).encode()

    def _forward(
        self, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._behind, timeout=30)
        kept = {
            key: value
            for key, value in headers.items()
            if key.lower() not in ("host", "content-length", "connection")
        }
        try:
            connection.request("POST", path, body, kept)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


@contextlib.contextmanager
def sqs_proxy(endpoint: str) -> t.Iterator[Proxy]:
    """Run a proxy in front of the SQS server at *endpoint*."""
    made = Proxy(endpoint)
    try:
        yield made
    finally:
        made.close()


def _server(proxy: Proxy) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                answer = proxy.carry_out(self.path, dict(self.headers), body)
            except ConnectionError:  # the server behind has ended
                answer = None
            if answer is None:
                self.close_connection = True
                return
            status, reply = answer
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *args: t.Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
