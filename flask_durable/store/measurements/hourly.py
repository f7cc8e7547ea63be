"""The measured times of each function, in a histogram for each hour.

A process adds up the times of its run threads, and writes them every few seconds from
a thread that is awake anyway: no run and no step waits for it. The sums only grow, by
commands that commute, so processes need neither a script nor an order. The unwritten
times of a process that dies are lost, and those sent again after a lost reply count
twice: a few of many samples either way.

There is a hash for each measure, function and hour, in a partition that follows from
the function's id. Hours are those of the worker's clock.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import deque

from ..keys import Keys
from ..server import StateServer
from .histogram import Histogram

#: Seconds for which an hour is kept.
KEPT = 8 * 24 * 3600

#: Times that are noted before they are added up.
MOST = 10_000

#: The measures: deliveries that went as far as they could, and those in which an error
#: was raised; runs from creation to end; attempts of steps; and the time that runs
#: were queued before each claim.
Measure = t.Literal["done", "failed", "run", "step", "wait"]


#: Measure, function and hour, see :func:`hour_of`.
Hour = tuple[Measure, str, int]


class HourlyHistograms:
    """Notes the measured times of one process, and reads those of all.

    :param server: The state server.
    :param keys: The key names of the namespace.
    """

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._lock = threading.Lock()
        self._noted: deque[tuple[Measure, str, float, float]] = deque()
        self._sums: dict[Hour, Histogram] = {}

    def add(self, measure: Measure, function: str, seconds: float) -> None:
        """Note a time of *function*, which ends now.

        Run threads take no lock for it: they would wait for one another.
        """
        self._noted.append((measure, function, time.time(), seconds))
        if len(self._noted) >= MOST:
            self._gather()

    def flush(self) -> None:
        """Write the noted times, in one pipeline. What cannot be written is dropped.

        :raises redis.RedisError: The server did not take it.
        """
        noted = self._gather(take=True)
        if not noted:
            return
        pipeline = self._server.client.pipeline(transaction=False)
        for hour, histogram in noted.items():
            key = self._key(*hour)
            for field, value in histogram.fields().items():
                if field in ("s", "s2"):
                    pipeline.hincrbyfloat(key, field, value)
                else:
                    pipeline.hincrby(key, field, int(value))
            pipeline.expire(key, KEPT)
        pipeline.execute()

    def read(
        self,
        measure: Measure,
        functions: t.Collection[str],
        weights: t.Sequence[float],
        *,
        now: float | None = None,
    ) -> dict[str, Histogram]:
        """Return the sum over the hours back from *now* for each of *functions*.

        :param weights: The weights of a sample of this hour, the one before, and so on.
        :param now: Seconds since 1970, if it is to be another time than the present.
        :raises redis.RedisError: The server did not answer.
        """
        latest = hour_of(time.time() if now is None else now)
        pipeline = self._server.client.pipeline(transaction=False)
        for function in functions:
            for back in range(len(weights)):
                pipeline.hgetall(self._key(measure, function, latest - back))
        replies = iter(pipeline.execute() if functions else [])
        merged = {function: Histogram() for function in functions}
        for histogram in merged.values():
            for weight in weights:
                histogram.merge(Histogram.of(next(replies)), weight)
        return merged

    def _gather(self, *, take: bool = False) -> dict[Hour, Histogram]:
        """Add up the noted times; return them, and start from zero with *take*."""
        with self._lock:
            for _ in range(len(self._noted)):
                measure, function, ended, seconds = self._noted.popleft()
                hour = measure, function, hour_of(ended)
                histogram = self._sums.get(hour)
                if histogram is None:
                    histogram = self._sums[hour] = Histogram()
                histogram.add(seconds)
            sums = self._sums
            if take:
                self._sums = {}
        return sums

    def _key(self, measure: Measure, function: str, hour: int) -> str:
        tag = self._keys.tag_of_function(function)
        return f"{tag}:times:{measure}:{function}:{hour}"


def hour_of(now: float) -> int:
    """Return the hour since 1970 of *now*, in seconds."""
    return int(now // 3600)
