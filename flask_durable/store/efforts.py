"""How much of their time deliveries compute, and how long they take by worker's size.

There is a hash for each function and hour, beside its histograms and written like them
(:mod:`.hourly`), for the same reasons::

    <tag>:times:effort:<function>:<hour>
        n:<size>  deliveries that went as far as they could
        s:<size>  seconds for which they held their threads
        c:<size>  seconds for which they computed
"""

from __future__ import annotations

import os
import threading
import time
import typing as t
from dataclasses import dataclass

from .hourly import hour_of
from .hourly import KEPT
from .keys import Keys
from .server import StateServer

#: Hours that are read.
HOURS = 24


@dataclass
class Effort:
    """What deliveries of a function took on workers of one size.

    :param samples: How many were measured.
    :param seconds: For how long they held their threads.
    :param computing: For how many of these seconds they computed.
    """

    samples: float = 0.0
    seconds: float = 0.0
    computing: float = 0.0

    def add(self, samples: float, seconds: float, computing: float) -> None:
        """Count what was measured."""
        self.samples += samples
        self.seconds += seconds
        self.computing += computing


class Efforts:
    """Notes efforts in one process, and reads those of all.

    :param server: The state server.
    :param keys: The names of its keys.
    :param size: What workers like this one are called.
    """

    def __init__(self, server: StateServer, keys: Keys, size: str) -> None:
        self._server = server
        self._keys = keys
        self._size = size
        self._lock = threading.Lock()
        self._noted: dict[str, Effort] = {}

    def took(self, function: str, seconds: float, computing: float) -> None:
        """Note that a delivery of *function* ends now."""
        key = self._key(function, hour_of(time.time()))
        with self._lock:
            self._noted.setdefault(key, Effort()).add(1, seconds, computing)

    def flush(self) -> None:
        """Write what was noted, in one pipeline. What cannot be written is dropped.

        :raises redis.RedisError: The server did not take it.
        """
        with self._lock:
            noted, self._noted = self._noted, {}
        if not noted:
            return
        pipeline = self._server.client.pipeline(transaction=False)
        for key, effort in noted.items():
            pipeline.hincrby(key, f"n:{self._size}", int(effort.samples))
            pipeline.hincrbyfloat(key, f"s:{self._size}", effort.seconds)
            pipeline.hincrbyfloat(key, f"c:{self._size}", effort.computing)
            pipeline.expire(key, KEPT)
        pipeline.execute()

    def read(
        self, functions: t.Collection[str], *, now: float | None = None
    ) -> dict[str, dict[str, Effort]]:
        """Return the efforts of the last day by function, and by size of the worker.

        :param now: Seconds since 1970, if it is to be another time than the present.
        :raises redis.RedisError: The server did not answer.
        """
        latest = hour_of(time.time() if now is None else now)
        pipeline = self._server.client.pipeline(transaction=False)
        for function in functions:
            for back in range(HOURS):
                pipeline.hgetall(self._key(function, latest - back))
        replies = iter(pipeline.execute() if functions else [])
        found: dict[str, dict[str, Effort]] = {}
        for function in functions:
            sizes = found[function] = {}
            for _ in range(HOURS):
                _merge(sizes, next(replies))
        return found

    def _key(self, function: str, hour: int) -> str:
        return f"{self._keys.tag_of_function(function)}:times:effort:{function}:{hour}"


def _merge(sizes: dict[str, Effort], fields: t.Mapping[str, str]) -> None:
    """Add what is stored of an hour."""
    for name, number in fields.items():
        if name.startswith("n:"):
            size = name[2:]
            seconds = float(fields.get(f"s:{size}", 0))
            computing = float(fields.get(f"c:{size}", 0))
            sizes.setdefault(size, Effort()).add(float(number), seconds, computing)


def default_size() -> str:
    """Return what workers on this machine are called: the processors they may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    count = count or os.cpu_count() or 1
    return "1 CPU" if count == 1 else f"{count} CPUs"
