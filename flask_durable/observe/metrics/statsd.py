"""The statsd client: counters, timings in milliseconds, and gauges.

Run threads only note values. Lines and packets are made of them at the end of a send,
by a worker's thread each second, and elsewhere by the next caller that comes late. So a
step costs no packet of its own, and a counter one line however often it was counted. A
process that is killed loses the values it had collected.

A collector may move, and UDP does not report that. So its name is looked up again each
minute while values are sent, by a thread, so that nothing waits for it.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import socket
import threading
import time
import typing as t
from urllib.parse import urlsplit

from ...common.processes import forget_after_fork
from ...common.safe_logging import get_logger
from ...errors import ConfigurationError
from .sink import Sink

#: The style of tags: in the name, or as DogStatsD or InfluxDB's Telegraf read them.
TagStyle = t.Literal["dogstatsd", "influx"]

#: Most bytes of a packet, which Ethernet takes whole.
PACKET = 1432
#: Seconds between two sends of a worker's thread, and until any other thread sends.
LONGEST = 1.0
LATE = 2.0
#: Seconds after which a host is looked up again, whether it resolved or not.
LOOK_UP = 60.0

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

#: The kinds in statsd's letters: a counter, a duration in milliseconds, a gauge.
StatsdKind = t.Literal["c", "ms", "g"]

logger = get_logger(__name__)


class StatsdSeries:
    """The values of one metric with its tags that were not sent yet.

    :param kind: The kind of the values.
    :param before: The text before the colon of a line.
    :param behind: The text behind the kind.
    """

    def __init__(self, kind: StatsdKind, before: str, behind: str) -> None:
        self._kind = kind
        self._before = f"{before}:"
        self._behind = f"|{kind}{behind}"
        self._values: list[float] = []
        #: Takes a value. Several threads call it, without a lock: each would wait for
        #: the one that has the lock, and that one for the interpreter.
        self.append = self._values.append

    def take(self) -> list[str]:
        """Return lines of the new values: a counter's sum, a gauge's last value."""
        count = len(self._values)
        if not count:
            return []
        values = self._values[:count]
        # Other threads only append in the meantime: their values are not the first.
        del self._values[:count]
        before, behind = self._before, self._behind
        if self._kind == "ms":
            return [f"{before}{value:.3f}{behind}" for value in values]
        if self._kind == "c":
            values = [sum(values)] if values else []
        return [f"{before}{value:.12g}{behind}" for value in values[-1:]]


class Statsd(Sink):
    """Sends metrics of one process. The host is looked up at the first send.

    :param url: The collector's address, ``statsd://host:port``.
    :param prefix: The beginning of every name.
    :param tags: The style of tags; by default they are further parts of the name.
    """

    def __init__(self, url: str, prefix: str, tags: TagStyle | None) -> None:
        self._url = url
        self._prefix = prefix
        self._style = tags
        self._series: dict[tuple[t.Any, ...], StatsdSeries] = {}
        self._made: t.Any = None
        #: The last known address of the host; empty while it never resolved.
        self._address = ""
        self.forget()
        forget_after_fork(self)

    def series(self, name: str, kind: StatsdKind, /, **tags: str) -> StatsdSeries:
        """Return the series of a metric with these tags; there are not many.

        The caller appends to it, and calls :meth:`tick` afterwards.
        """
        key = (name, kind, *tags.items())
        series = self._series.get(key)
        if series is None:
            made = StatsdSeries(kind, *self._frame(name, tags))
            # Another thread may have come first, and have appended to its own series.
            series = self._series.setdefault(key, made)
        return series

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge to a number that is not negative."""
        self.series(name, "g", **tags).append(value)
        self.tick()

    def tick(self) -> None:
        """Send the collected values if the last send is too long ago."""
        if time.monotonic() - self._flushed > LATE:
            self.flush()

    def flush(self) -> None:
        """Send the collected values."""
        with self._lock:
            self._flushed = time.monotonic()
            lines = [
                line for each in list(self._series.values()) for line in each.take()
            ]
            if lines and (client := self._client()) is not None:
                pipeline = client.pipeline()
                for line in lines:
                    pipeline._after(line)
                pipeline.send()

    def sent(self) -> None:
        """Send the collected values: a web process has no thread that does."""
        self.flush()

    def close(self) -> None:
        """Send the collected values, and close the socket; a later line opens one."""
        self.flush()
        with self._lock:
            client, self._made = self._made, None
            self._look_up_at = 0.0
        if client is not None:
            client.close()

    def _frame(self, name: str, tags: dict[str, str]) -> tuple[str, str]:
        """Return the text before a value, and the text behind it and its kind."""
        full = f"{self._prefix}.{name}" if self._prefix else name
        written = [(key, _safe(text)) for key, text in tags.items()]
        if self._style is None:
            return ".".join([full, *(text for _, text in written)]), ""
        if self._style == "influx":
            return ",".join([full, *(f"{k}={text}" for k, text in written)]), ""
        more = ",".join(f"{key}:{text}" for key, text in written)
        return full, f"|#{more}" if more else ""

    def forget(self) -> None:
        """Start afresh after a fork: the collected values are the parent's to send.

        The lock is replaced too: a thread that does not exist here may hold it.
        """
        self._lock = threading.Lock()
        self._flushed = time.monotonic()
        self._made = None
        self._look_up_at = 0.0
        # They stay the same objects: callers keep their methods.
        for series in self._series.values():
            series.take()

    def _client(self) -> t.Any:
        """Return the client, or ``None`` while the host does not resolve."""
        if time.monotonic() < self._look_up_at:
            return self._made
        first = not self._look_up_at
        self._look_up_at = time.monotonic() + LOOK_UP
        if not first:
            self._start_looking()
            return self._made
        try:
            self._address = _address_of(self._url)
            self._made = _make_client(self._url, self._address)
        except (OSError, UnicodeError) as error:
            logger.warning(
                "No metrics are sent to statsd: %s",
                error,
                extra={"action": "statsd_unreachable"},
            )
        return self._made

    def _start_looking(self) -> None:
        thread = threading.Thread(target=self._follow, daemon=True)
        # A thread cannot be started when the interpreter ends.
        with contextlib.suppress(RuntimeError):
            thread.start()

    def _follow(self) -> None:
        """Send to the host's present address; to the old one if the lookup fails."""
        try:
            address = _address_of(self._url)
            if address == self._address:
                return
            made = _make_client(self._url, address)
        except (OSError, UnicodeError):
            return
        # The lock: no thread sends by the client that is closed.
        with self._lock:
            if self._made is not None or not self._address:
                self._made, made, self._address = made, self._made, address
        # The old one, if there was any; or this one, if there is none since close().
        if made is not None:
            made.close()


def _address_of(url: str) -> str:
    """Return the address of the host of *url*, preferably that of IPv4.

    :raises OSError: The host does not resolve.
    """
    place = urlsplit(url)
    found = socket.getaddrinfo(place.hostname, place.port, type=socket.SOCK_DGRAM)
    # "localhost" is often both, and collectors listen on IPv4.
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    return str(found[0][4][0])


def _make_client(url: str, address: str) -> t.Any:
    statsd = import_statsd()
    port = urlsplit(url).port or 8125
    ipv6 = ":" in address
    return statsd.StatsClient(address, port, maxudpsize=PACKET, ipv6=ipv6)


def import_statsd() -> t.Any:
    """Return the package.

    :raises ConfigurationError: The package is not installed.
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
