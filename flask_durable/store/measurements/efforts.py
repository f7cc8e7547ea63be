"""The computing time of deliveries, and their duration by the size of the worker.

There is a hash for each function and day, beside its histograms and written like them
(:mod:`.hourly`), for the same reasons::

    <tag>:times:effort:<function>:<day>
        n:<size>  deliveries that went as far as they could
        s:<size>  seconds for which they held their threads
        m:<size>  the same seconds, of deliveries whose computing time is known
        c:<size>  seconds for which those computed

Days are those of the worker's clock, in UTC.
"""

from __future__ import annotations

import os
import time
import typing as t
from collections import deque
from dataclasses import dataclass

from ..keys import Keys
from ..server import StateServer
from .hourly import KEPT
from .hourly import MOST

#: Days that are read: this one, and the one before.
DAYS = 2


@dataclass
class Effort:
    """The times of a function's deliveries on workers of one size.

    :param samples: The number of deliveries.
    :param seconds: Seconds for which they held their threads.
    :param measured: The same seconds, of deliveries whose computing time is known.
    :param computing: Seconds for which those computed.
    """

    samples: float = 0.0
    seconds: float = 0.0
    measured: float = 0.0
    computing: float = 0.0

    def add(
        self, samples: float, seconds: float, measured: float, computing: float
    ) -> None:
        """Add measured times."""
        self.samples += samples
        self.seconds += seconds
        self.measured += measured
        self.computing += computing


class Efforts:
    """Notes efforts in one process, and reads those of all.

    :param server: The state server.
    :param keys: The key names of the namespace.
    :param size: The name of this worker's size.
    """

    def __init__(self, server: StateServer, keys: Keys, size: str) -> None:
        self._server = server
        self._keys = keys
        self._size = size
        #: Keys and seconds; the oldest are dropped if no thread writes them.
        self._noted: deque[tuple[str, float, float | None]] = deque(maxlen=MOST)

    def took(self, function: str, seconds: float, computing: float | None) -> None:
        """Note that a delivery of *function* ends now.

        Run threads take no lock for it: they would wait for one another.

        :param seconds: Seconds for which it held its thread.
        :param computing: Seconds for which it computed, if that is known.
        """
        key = self._key(function, _day_of(time.time()))
        self._noted.append((key, seconds, computing))

    def flush(self) -> None:
        """Write the noted times, in one pipeline. What cannot be written is dropped.

        :raises redis.RedisError: The server did not take it.
        """
        noted: dict[str, Effort] = {}
        for _ in range(len(self._noted)):
            key, seconds, computing = self._noted.popleft()
            measured = 0.0 if computing is None else seconds
            effort = noted.setdefault(key, Effort())
            effort.add(1, seconds, measured, computing or 0.0)
        if not noted:
            return
        pipeline = self._server.client.pipeline(transaction=False)
        for key, effort in noted.items():
            pipeline.hincrby(key, f"n:{self._size}", int(effort.samples))
            pipeline.hincrbyfloat(key, f"s:{self._size}", effort.seconds)
            pipeline.hincrbyfloat(key, f"m:{self._size}", effort.measured)
            pipeline.hincrbyfloat(key, f"c:{self._size}", effort.computing)
            pipeline.expire(key, KEPT)
        pipeline.execute()

    def read(
        self, functions: t.Collection[str], *, now: float | None = None
    ) -> dict[str, dict[str, Effort]]:
        """Return the efforts since yesterday by function, and by size of the worker.

        :param now: Seconds since 1970, if it is to be another time than the present.
        :raises redis.RedisError: The server did not answer.
        """
        latest = _day_of(time.time() if now is None else now)
        pipeline = self._server.client.pipeline(transaction=False)
        for function in functions:
            for back in range(DAYS):
                pipeline.hgetall(self._key(function, latest - back))
        replies = iter(pipeline.execute() if functions else [])
        found: dict[str, dict[str, Effort]] = {}
        for function in functions:
            sizes = found[function] = {}
            for _ in range(DAYS):
                _merge(sizes, next(replies))
        return found

    def _key(self, function: str, day: int) -> str:
        return f"{self._keys.tag_of_function(function)}:times:effort:{function}:{day}"


def _merge(sizes: dict[str, Effort], fields: t.Mapping[str, str]) -> None:
    """Add the stored fields of a day."""
    for name in fields:
        if name.startswith("n:"):
            size = name[2:]
            numbers = (float(fields.get(f"{field}:{size}", 0)) for field in "nsmc")
            sizes.setdefault(size, Effort()).add(*numbers)


def _day_of(now: float) -> int:
    """Return the day since 1970 of *now*, in seconds."""
    return int(now // 86400)


def default_size() -> str:
    """Return the default name of this machine's size: the processors it may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    count = count or os.cpu_count() or 1
    return "1 CPU" if count == 1 else f"{count} CPUs"
