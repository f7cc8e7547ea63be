"""What statsd is told, by name: counters, timings in milliseconds, and gauges.

Lines are gathered and sent as packets, by whoever adds the line that fills one or comes
late, at the end of a send, and by a worker each second, so that a step costs no packet
of its own. A process that is killed takes along what it had gathered, which is less
than :data:`MOST` lines.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import threading
import time
import typing as t
from urllib.parse import urlsplit

from ..errors import ConfigurationError

#: How tags are written: in the name, or as DogStatsD or InfluxDB's Telegraf read them.
TagStyle = t.Literal["dogstatsd", "influx"]

#: Bytes of a packet, which Ethernet takes whole.
PACKET = 1432
#: Lines, and seconds, after which what was gathered is sent.
MOST = 20
LONGEST = 1.0
#: Seconds before a host that did not resolve is looked up again.
RETRY = 60.0

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

logger = logging.getLogger(__name__)


class Statsd:
    """Sends metrics of one process. Nothing is looked up before the first one.

    :param url: ``statsd://host:port``.
    :param prefix: What every name begins with.
    :param tags: How tags are written; by default they are further parts of the name.
    """

    def __init__(self, url: str, prefix: str, tags: TagStyle | None) -> None:
        self._url = url
        self._prefix = prefix
        self._style = tags
        self._frames: dict[tuple[t.Any, ...], tuple[str, str]] = {}
        self._lines: list[str] = []
        self._made: t.Any = None
        self._forget()

    def count(self, name: str, number: int = 1, **tags: str) -> None:
        """Add *number* to a counter."""
        if number:
            self._add(name, f"{number}|c", tags)

    def timing(self, name: str, milliseconds: float, **tags: str) -> None:
        """Add a duration."""
        self._add(name, f"{max(milliseconds, 0.0):.3f}|ms", tags)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge to a number that is not negative."""
        self._add(name, f"{value:g}|g", tags)

    def flush(self) -> None:
        """Send what was gathered."""
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            lines, self._lines = self._lines, []
            self._flushed = time.monotonic()
        if lines and (client := self._client()) is not None:
            pipeline = client.pipeline()
            for line in lines:
                pipeline._after(line)
            pipeline.send()

    def close(self) -> None:
        """Send what was gathered, and close the socket; a later line opens one."""
        self.flush()
        client, self._made = self._made, None
        self._retry_at = 0.0
        if client is not None:
            client.close()

    def _add(self, name: str, value: str, tags: dict[str, str]) -> None:
        before, behind = self._frame(name, tags)
        line = f"{before}{value}{behind}"
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            self._lines.append(line)
            late = time.monotonic() - self._flushed > LONGEST
            full = late or len(self._lines) >= MOST
        if full:
            self.flush()

    def _frame(self, name: str, tags: dict[str, str]) -> tuple[str, str]:
        """Return what stands before and behind a value; there are not many."""
        key = (name, *tags.items())
        frame = self._frames.get(key)
        if frame is None:
            frame = self._frames[key] = self._new_frame(name, tags)
        return frame

    def _new_frame(self, name: str, tags: dict[str, str]) -> tuple[str, str]:
        full = f"{self._prefix}.{name}" if self._prefix else name
        written = [(key, _safe(text)) for key, text in tags.items()]
        if self._style is None:
            return ".".join([full, *(text for _, text in written)]) + ":", ""
        if self._style == "influx":
            return ",".join([full, *(f"{k}={text}" for k, text in written)]) + ":", ""
        more = ",".join(f"{key}:{text}" for key, text in written)
        return f"{full}:", f"|#{more}" if more else ""

    def _forget(self) -> None:
        """Begin anew after a fork: what was gathered is the parent's to send.

        The lock too: a thread that is not here may hold it.
        """
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._lines = []
        self._flushed = time.monotonic()
        self._made = None
        self._retry_at = 0.0

    def _client(self) -> t.Any:
        """Return the client, or ``None`` while the host does not resolve."""
        if self._made is None and time.monotonic() >= self._retry_at:
            first = not self._retry_at
            self._retry_at = time.monotonic() + RETRY
            try:
                self._made = _make_client(self._url)
            except (OSError, UnicodeError) as error:
                if first:
                    logger.warning(
                        "No metrics are sent to statsd: %s",
                        error,
                        extra={"action": "statsd_unreachable"},
                    )
        return self._made


def _make_client(url: str) -> t.Any:
    place = urlsplit(url)
    statsd = import_statsd()
    ipv6 = ":" in (place.hostname or "")
    port = place.port or 8125
    return statsd.StatsClient(place.hostname, port, maxudpsize=PACKET, ipv6=ipv6)


def import_statsd() -> t.Any:
    """Return the package.

    :raises ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module("statsd")
    except ImportError:
        raise ConfigurationError(
            "DURABLE_STATSD_URL needs statsd, which is not installed.",
            hint='Run `pip install "flask-durable[statsd]"`.',
        ) from None


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text) or "none"
