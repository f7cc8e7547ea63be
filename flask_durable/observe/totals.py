"""What this process counts and times, until it is added to what all others did.

Run threads and requests note it, and wait for nothing. A second after the first note a
thread adds up what there is and writes it, in one call: neither a web process, nor one
that AWS Lambda stops, nor a worker needs a thread that is always there. A process that
is killed takes along that second.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import typing as t
import weakref
from bisect import bisect_left
from collections import defaultdict
from collections import deque

from ..safe_logging import get_logger
from ..store.metric_totals import Total
from ..store.run_store import log_failure
from .forks import forget_after_fork
from .sink import Kind
from .sink import Sink

#: Seconds from the first note until all are written.
PAUSE = 1.0

#: Notes that are kept before they are added up.
MOST = 10_000

#: Upper ends of the ranges that durations are counted in, seconds. Above the last one
#: is one more range.
BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0),
)

#: Where sums are written.
Write = t.Callable[[t.Mapping[Total, float]], None]

_Labels = tuple[tuple[str, str], ...]
_Key = tuple[str, Kind, _Labels]

logger = get_logger(__name__)


class Series:
    """Takes values of one metric with its labels.

    :param append: Takes one.
    """

    def __init__(self, append: t.Callable[[float], None]) -> None:
        self.append = append


class Totals(Sink):
    """Takes counters and durations, and writes sums.

    :param write: Adds sums to those of all processes.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._noted: deque[tuple[_Key, float]]
        self._sums: defaultdict[Total, float]
        self._writing: threading.Lock
        self._timer: threading.Timer | None
        self.forget()
        forget_after_fork(self)
        _alive.add(self)

    def series(self, name: str, kind: Kind, **tags: str) -> Series:
        """Return where values of a metric with these tags are put.

        Whoever has a series appends to it, and calls :meth:`tick` afterwards.
        """
        key = (name, kind, tuple(tags.items()))
        return Series(lambda value: self._note(key, value))

    def tick(self) -> None:
        """See to it that what was noted is written in a moment."""
        if self._timer is None:
            self._start_timer()

    def sent(self) -> None:
        """Do nothing: :meth:`tick` was called."""

    def flush(self) -> None:
        """Write what was noted; what cannot be written is kept for the next time."""
        with self._writing:
            self._timer = None
            sums = self._gather()
            if not sums:
                return
            try:
                self._write(sums)
            except Exception as error:
                log_failure(logger, "write metrics", error)
            else:
                self._sums = defaultdict(float)

    def forget(self) -> None:
        """Begin anew after a fork: what was noted is the parent's to write."""
        self._noted = deque()
        self._sums = defaultdict(float)
        self._writing = threading.Lock()
        self._timer = None

    def _note(self, key: _Key, value: float) -> None:
        """Take a value. Of several threads, without a lock."""
        self._noted.append((key, value))
        if len(self._noted) >= MOST and self._writing.acquire(blocking=False):
            try:
                self._gather()
            finally:
                self._writing.release()

    def _start_timer(self) -> None:
        # Two threads may each start one: the second finds nothing to write.
        timer = threading.Timer(PAUSE, self.flush)
        timer.daemon = True
        self._timer = timer
        # It cannot be started when the interpreter ends: what runs then writes it.
        with contextlib.suppress(RuntimeError):
            timer.start()

    def _gather(self) -> t.Mapping[Total, float]:
        for _ in range(len(self._noted)):
            (name, kind, labels), value = self._noted.popleft()
            if kind == "c":
                self._sums[Total(name, labels)] += value
                continue
            seconds = value / 1000
            part = str(bisect_left(BOUNDS, seconds))
            self._sums[Total(name, labels, part)] += 1
            self._sums[Total(name, labels, "sum")] += seconds
        return self._sums


_alive: weakref.WeakSet[Totals] = weakref.WeakSet()


def _flush_all() -> None:
    for totals in list(_alive):
        totals.flush()


atexit.register(_flush_all)
