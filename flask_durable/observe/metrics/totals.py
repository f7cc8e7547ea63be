"""The counts and durations of this process, until they are added to the store.

Run threads and requests note values, and wait for nothing. A second after the first
note a thread adds up the values and writes the sums, in one call. So neither a web
process, nor one that AWS Lambda stops, nor a worker needs a thread that always runs. A
process that is killed loses that second.
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

from ...common.processes import forget_after_fork
from ...common.safe_logging import get_logger
from ...redis.errors import log_failure
from ...store.measurements.metric_totals import Total
from .sink import Kind
from .sink import Sink

#: Seconds from the first note until all are written.
WRITE_PAUSE = 1.0

#: Most notes that are kept before they are added up.
MOST_NOTES = 10_000

#: Upper ends of the ranges that durations are counted in, seconds. Above the last one
#: is one more range.
BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0),
)

#: Adds sums to those in the store.
Write = t.Callable[[t.Mapping[Total, float]], None]

_Labels = tuple[tuple[str, str], ...]
_Key = tuple[str, Kind, _Labels]

logger = get_logger(__name__)


class TotalSeries:
    """Takes values of one metric with its labels.

    :param append: A callable that takes one value.
    """

    def __init__(self, append: t.Callable[[float], None]) -> None:
        self.append = append


class Totals(Sink):
    """Takes counters and durations, and writes sums.

    :param write: A callable that adds sums to those of all processes.
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

    def series(self, name: str, kind: Kind, /, **tags: str) -> TotalSeries:
        """Return the series of a metric with these tags.

        The caller appends to it, and calls :meth:`tick` afterwards.
        """
        key = (name, kind, tuple(tags.items()))
        return TotalSeries(lambda value: self._note(key, value))

    def tick(self) -> None:
        """Have the noted values written in a moment."""
        if self._timer is None:
            self._start_timer()

    def sent(self) -> None:
        """Do nothing: :meth:`tick` was called."""

    def flush(self) -> None:
        """Write the sums; those that cannot be written are kept for the next time."""
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
        """Start afresh after a fork: the noted values are the parent's to write."""
        self._noted = deque()
        self._sums = defaultdict(float)
        self._writing = threading.Lock()
        self._timer = None

    def _note(self, key: _Key, value: float) -> None:
        """Take a value. Several threads call it, without a lock."""
        self._noted.append((key, value))
        if len(self._noted) >= MOST_NOTES and self._writing.acquire(blocking=False):
            try:
                self._gather()
            finally:
                self._writing.release()

    def _start_timer(self) -> None:
        # Two threads may each start one: the second finds nothing to write.
        timer = threading.Timer(WRITE_PAUSE, self.flush)
        timer.daemon = True
        self._timer = timer
        # A timer cannot be started when the interpreter ends: the flush at exit writes.
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
