"""A UDP socket in statsd's place that keeps all packets."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import typing as t
from dataclasses import dataclass

_LINE = re.compile(
    r"(?:durable\.)?(?P<name>[^:|#]+):(?P<value>[^|]+)\|(?P<kind>c|ms|g)(?:\|#(.*))?"
)
KINDS = {"c": "counter", "ms": "timing", "g": "gauge"}


@dataclass(frozen=True)
class Line:
    """One metric without the prefix, its tags as DogStatsD writes them."""

    name: str
    kind: str
    value: float
    tags: t.Mapping[str, str]


class Packets:
    """The packets that came to a port."""

    def __init__(self, port_socket: socket.socket) -> None:
        self._socket = port_socket
        self.packets: list[str] = []
        self.url = f"statsd://127.0.0.1:{port_socket.getsockname()[1]}"
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(65_536):
                self.packets.append(data.decode("ascii"))

    @property
    def lines(self) -> list[Line]:
        found = []
        for text in "\n".join(self.packets).split("\n") if self.packets else ():
            match = _LINE.fullmatch(text)
            assert match is not None, text
            name, value, kind, tags = match.groups()
            pairs = dict(tag.split(":") for tag in (tags or "").split(",") if tag)
            found.append(Line(name, KINDS[kind], float(value), pairs))
        return found

    def total(self, name: str, **tags: str) -> float:
        """Return the sum of a counter."""
        return sum(
            line.value
            for line in self.lines
            if line.name == name and tags.items() <= line.tags.items()
        )


@contextlib.contextmanager
def receiving() -> t.Iterator[Packets]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port_socket:
        port_socket.bind(("127.0.0.1", 0))
        yield Packets(port_socket)
