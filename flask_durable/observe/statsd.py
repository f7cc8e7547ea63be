"""What statsd is told, by name: counters, timings in milliseconds, and gauges.

What run threads tell is noted, and made lines and packets of at the end of a send, by
a worker's thread each second, and elsewhere by whoever comes late: a step costs no
packet of its own, and a counter one line however often it was counted. A process that
is killed takes along what it had gathered.

A collector may move, and UDP does not tell: while something is sent, its name is looked
up again each minute, by a thread, so that nothing waits for it.
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

from ..errors import ConfigurationError
from ..safe_logging import get_logger
from .forks import forget_after_fork
from .sink import Sink

#: How tags are written: in the name, or as DogStatsD or InfluxDB's Telegraf read them.
TagStyle = t.Literal["dogstatsd", "influx"]

#: Bytes of a packet, which Ethernet takes whole.
PACKET = 1432
#: Seconds between two sends of a worker's thread, and after which another one sends.
LONGEST = 1.0
LATE = 2.0
#: Seconds after which a host is looked up again, whether it resolved or not.
LOOK_UP = 60.0

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

#: As statsd names them: a counter, a duration in milliseconds, a gauge.
Kind = t.Literal["c", "ms", "g"]

logger = get_logger(__name__)


class Series:
    """The values of one metric with its tags that were not sent yet.

    :param kind: What they are.
    :param before: What stands before the colon of a line.
    :param behind: What stands behind the kind.
    """

    def __init__(self, kind: Kind, before: str, behind: str) -> None:
        self._kind = kind
        self._before = f"{before}:"
        self._behind = f"|{kind}{behind}"
        self._values: list[float] = []
        #: Takes a value. Of several threads, without a lock: each would wait for the
        #: one that has it, and that one for the interpreter.
        self.append = self._values.append

    def take(self) -> list[str]:
        """Return lines of what was appended: a counter's sum, a gauge's last value."""
        count = len(self._values)
        if not count:
            return []
        values = self._values[:count]
        # Others only append meanwhile: what they did is not among the first.
        del self._values[:count]
        before, behind = self._before, self._behind
        if self._kind == "ms":
            return [f"{before}{value:.3f}{behind}" for value in values]
        if self._kind == "c":
            values = [sum(values)] if values else []
        return [f"{before}{value:.12g}{behind}" for value in values[-1:]]


class Statsd(Sink):
    """Sends metrics of one process. Nothing is looked up before the first one.

    :param url: ``statsd://host:port``.
    :param prefix: What every name begins with.
    :param tags: How tags are written; by default they are further parts of the name.
    """

    def __init__(self, url: str, prefix: str, tags: TagStyle | None) -> None:
        self._url = url
        self._prefix = prefix
        self._style = tags
        self._series: dict[tuple[t.Any, ...], Series] = {}
        self._made: t.Any = None
        #: Where the host was last; empty while it never resolved.
        self._address = ""
        self.forget()
        forget_after_fork(self)

    def series(self, name: str, kind: Kind, **tags: str) -> Series:
        """Return where values of a metric with these tags are put; there are not many.

        Whoever has a series appends to it, and calls :meth:`tick` afterwards.
        """
        key = (name, kind, *tags.items())
        series = self._series.get(key)
        if series is None:
            made = Series(kind, *self._frame(name, tags))
            # Another thread may have come first, and have appended to its own.
            series = self._series.setdefault(key, made)
        return series

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge to a number that is not negative."""
        self.series(name, "g", **tags).append(value)
        self.tick()

    def tick(self) -> None:
        """Send what was gathered, if nobody has for too long."""
        if time.monotonic() - self._flushed > LATE:
            self.flush()

    def flush(self) -> None:
        """Send what was gathered."""
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
        """Send what was gathered: a web process has no thread that does."""
        self.flush()

    def close(self) -> None:
        """Send what was gathered, and close the socket; a later line opens one."""
        self.flush()
        with self._lock:
            client, self._made = self._made, None
            self._look_up_at = 0.0
        if client is not None:
            client.close()

    def _frame(self, name: str, tags: dict[str, str]) -> tuple[str, str]:
        """Return what stands before a value, and behind it and its kind."""
        full = f"{self._prefix}.{name}" if self._prefix else name
        written = [(key, _safe(text)) for key, text in tags.items()]
        if self._style is None:
            return ".".join([full, *(text for _, text in written)]), ""
        if self._style == "influx":
            return ",".join([full, *(f"{k}={text}" for k, text in written)]), ""
        more = ",".join(f"{key}:{text}" for key, text in written)
        return full, f"|#{more}" if more else ""

    def forget(self) -> None:
        """Begin anew after a fork: what was gathered is the parent's to send.

        The lock too: a thread that is not here may hold it.
        """
        self._lock = threading.Lock()
        self._flushed = time.monotonic()
        self._made = None
        self._look_up_at = 0.0
        # They stay the same objects: somebody has their methods.
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
        # It cannot be started when the interpreter ends.
        with contextlib.suppress(RuntimeError):
            thread.start()

    def _follow(self) -> None:
        """Send to where the host is now; as before, if that cannot be told."""
        try:
            address = _address_of(self._url)
            if address == self._address:
                return
            made = _make_client(self._url, address)
        except (OSError, UnicodeError):
            return
        # The lock: nobody sends by the one that is closed.
        with self._lock:
            if self._made is not None or not self._address:
                self._made, made, self._address = made, self._made, address
        # The old one, if there was any; or this, if there is none since close().
        if made is not None:
            made.close()


def _address_of(url: str) -> str:
    """Return the address of the host of *url*: of several kinds, that of IPv4.

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
