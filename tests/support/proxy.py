"""A TCP proxy in front of a server, which cuts connections at chosen moments."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
import typing as t

#: Seconds after which an unused connection is closed.
IDLE = 60.0


class Moment(enum.Enum):
    """The moment at which the connection of a request is cut."""

    #: The server never hears of the request.
    BEFORE_REQUEST = "before the request"
    #: The server has acted, and its reply is lost.
    BEFORE_REPLY = "before the reply"
    #: The same, but the connection stays open, and silent.
    HOLD_REPLY = "reply held back"


class Proxy:
    """Forwards connections to a loopback port.

    :param upstream: The server's port.
    :param mark: Bytes that only the requests to be cut contain.
    """

    def __init__(self, upstream: int, mark: bytes) -> None:
        self._upstream = upstream
        self.mark = mark
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._cuts: list[Moment | None] = []
        self._open: set[socket.socket] = set()
        self._forgotten: set[socket.socket] = set()
        self._closed = False
        #: True to refuse connections, and true to leave them without an answer.
        self.down = False
        self.silent = False
        #: The number of marked requests, and of those that were cut.
        self.requests = 0
        self.cut = 0
        #: True once a request came that was left without an answer.
        self.swallowed = False
        #: The number of forgotten connections on which a request came.
        self.fell_for = 0
        #: Set when a reply is held back.
        self.holds = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next(self, *moments: Moment | None) -> None:
        """Cut the next requests, one a moment; ``None`` lets one pass."""
        with self._lock:
            self._cuts += moments

    def forget_cuts(self) -> None:
        """Cut no more requests."""
        with self._lock:
            self._cuts.clear()

    def lead_to(self, port: int) -> None:
        """Lead new connections to another server; existing ones stay."""
        self._upstream = port

    def take_down(self) -> None:
        """Refuse connections from now on, and close the existing ones."""
        self.down = True
        self._close_all()

    def forget(self) -> None:
        """Leave the existing connections without an answer, not new ones."""
        with self._lock:
            self._forgotten |= self._open

    def bring_up(self) -> None:
        """Forward everything again."""
        self.down = self.silent = False
        self._close_all()

    def close(self) -> None:
        """Close everything."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_all()

    def _close_all(self) -> None:
        with self._lock:
            sockets, self._open = self._open, set()
        for each in sockets:
            _close(each)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.down:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:  # there is no server there at the moment
                _close(client)
                continue
            with self._lock:
                self._open |= {client, server}
            connection = _Connection(self, client, server)
            for pump in (connection.requests, connection.replies):
                threading.Thread(target=pump, daemon=True).start()

    def _next_cut(self, data: bytes) -> Moment | None:
        if self.mark not in data:
            return None
        with self._lock:
            self.requests += 1
            moment = self._cuts.pop(0) if self._cuts else None
            self.cut += moment is not None
            return moment


class _Connection:
    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._moment: Moment | None = None
        self._fell_for = False

    def requests(self) -> None:
        with self._until_closed():
            for data in self._read(self._client):
                moment = self._proxy._next_cut(data)
                if moment is Moment.BEFORE_REQUEST:
                    break
                self._moment = self._moment or moment
                self._server.sendall(data)

    def replies(self) -> None:
        with self._until_closed():
            for data in self._read(self._server):
                if self._moment is Moment.BEFORE_REPLY:
                    break
                if self._moment is Moment.HOLD_REPLY:
                    self._proxy.holds.set()
                    continue
                self._client.sendall(data)

    def _read(self, source: socket.socket) -> t.Iterator[bytes]:
        source.settimeout(IDLE)
        while data := source.recv(65536):
            if source in self._proxy._forgotten:
                self._proxy.fell_for += not self._fell_for
                self._fell_for = self._proxy.swallowed = True
            elif self._proxy.silent:
                self._proxy.swallowed = True
            else:
                yield data

    @contextlib.contextmanager
    def _until_closed(self) -> t.Iterator[None]:
        """Close both ends when one is closed, or the block is left."""
        try:
            with contextlib.suppress(OSError):
                yield
        finally:
            for each in (self._client, self._server):
                _close(each)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextlib.contextmanager
def proxy(upstream: int, mark: bytes) -> t.Iterator[Proxy]:
    """Run a proxy in front of the loopback port *upstream*."""
    made = Proxy(upstream, mark)
    try:
        yield made
    finally:
        made.close()


#: Bytes that only requests to send events contain, by the kind of the queue.
MARKS = {"redis": b"XADD", "sqs": b"SendMessageBatch"}


def queue_url(kind: str, port: int) -> str:
    """Return the ``DURABLE_QUEUE_URL`` of a queue behind *port*."""
    if kind == "redis":
        return f"redis://127.0.0.1:{port}/0"
    return f"sqs://?region=us-east-1&endpoint=http://127.0.0.1:{port}"
