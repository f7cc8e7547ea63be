"""How long deliveries of each function hold a run thread, by the hour.

A process adds up what its run threads did, and writes it every few seconds from a
thread that is awake anyway: no run and no step waits for it. The sums only grow, by
commands that commute, so processes need no script and no order among them. What a
process that dies has not written is lost, and what is sent again after a lost reply
counts twice: a few of many samples either way.

There is a hash for each function, hour and way to end, in a partition that follows from
the function's id. Hours are those of the worker's clock.
"""

from __future__ import annotations

import threading
import time
import typing as t

from .histogram import Histogram
from .keys import Keys
from .server import StateServer

#: Seconds for which an hour is kept.
KEPT = 8 * 24 * 3600

#: Samples from which on the last hour says enough.
ENOUGH = 30

#: Hours that are asked where it does not, and those after which one counts half.
HOURS = 24
HALF_LIFE = 6

#: How a delivery ended: it went as far as it could, or something raised.
Ending = t.Literal["done", "failed"]


class ServiceTimes:
    """Notes service times in one process, and reads those of all.

    :param server: The state server.
    :param keys: The names of its keys.
    """

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._lock = threading.Lock()
        self._noted: dict[str, Histogram] = {}

    def took(self, function: str, ending: Ending, seconds: float) -> None:
        """Note that a delivery of *function* held its thread for *seconds*."""
        key = self._key(function, ending, _hour(time.time()))
        with self._lock:
            self._noted.setdefault(key, Histogram()).add(seconds)

    def flush(self) -> None:
        """Write what was noted, in one pipeline. What cannot be written is dropped.

        :raises redis.RedisError: The server did not take it.
        """
        with self._lock:
            noted, self._noted = self._noted, {}
        if not noted:
            return
        pipeline = self._server.client.pipeline(transaction=False)
        for key, histogram in noted.items():
            for field, value in histogram.fields().items():
                if field in ("s", "s2"):
                    pipeline.hincrbyfloat(key, field, value)
                else:
                    pipeline.hincrby(key, field, int(value))
            pipeline.expire(key, KEPT)
        pipeline.execute()

    def read(
        self, functions: t.Collection[str], *, now: float | None = None
    ) -> dict[str, Histogram]:
        """Return the recent service times of *functions*; one without any is absent.

        They are those of the last hour if these are enough, else those of the last day,
        of which older ones count less. Deliveries that failed count only where none
        succeeded: an outage must not make a function look quick.

        :param now: Seconds since 1970, if it is to be another time than the present.
        :raises redis.RedisError: The server did not answer.
        """
        now = time.time() if now is None else now
        found: dict[str, Histogram] = {}
        for ending in t.get_args(Ending):
            missing = [function for function in functions if function not in found]
            found |= self._read(missing, ending, now)
        return found

    def _read(
        self, functions: t.Sequence[str], ending: Ending, now: float
    ) -> dict[str, Histogram]:
        times = self._merged(functions, ending, now, _last_hour(now))
        few = [each for each in functions if times[each].samples < ENOUGH]
        times |= self._merged(few, ending, now, _last_day())
        return {each: times[each] for each in functions if times[each].samples}

    def _merged(
        self,
        functions: t.Sequence[str],
        ending: Ending,
        now: float,
        weights: t.Sequence[float],
    ) -> dict[str, Histogram]:
        """Return the sum over the hours back from *now*, each with its weight."""
        pipeline = self._server.client.pipeline(transaction=False)
        for function in functions:
            for back in range(len(weights)):
                pipeline.hgetall(self._key(function, ending, _hour(now) - back))
        replies = iter(pipeline.execute() if functions else [])
        merged = {function: Histogram() for function in functions}
        for histogram in merged.values():
            for weight in weights:
                histogram.merge(Histogram.of(next(replies)), weight)
        return merged

    def _key(self, function: str, ending: Ending, hour: int) -> str:
        tag = self._keys.tag_of_function(function)
        return f"{tag}:service:{function}:{ending}:{hour}"


def _hour(now: float) -> int:
    return int(now // 3600)


def _last_hour(now: float) -> list[float]:
    """Return weights with which this hour and the one before are sixty minutes."""
    return [1.0, 1 - now % 3600 / 3600]


def _last_day() -> list[float]:
    return [0.5 ** (back / HALF_LIFE) for back in range(HOURS)]
