"""The recent time that deliveries of each function hold a run thread."""

from __future__ import annotations

import time
import typing as t

from .efforts import Effort
from .efforts import Efforts
from .histogram import Histogram
from .hourly import HourlyHistograms

#: The number of samples from which on the last hour is enough.
ENOUGH = 30

#: Hours that are asked if it is not, and those after which a sample counts half.
HOURS = 24
HALF_LIFE = 6

#: The end of a delivery: it went as far as it could, or an error was raised.
Ending = t.Literal["done", "failed"]


class ServiceTimes:
    """Notes service times in one process, and reads those of all.

    :param histograms: The store of the times.
    :param efforts: The store of their computing shares.
    """

    def __init__(self, histograms: HourlyHistograms, efforts: Efforts) -> None:
        self.histograms = histograms
        self.efforts = efforts

    def took(
        self,
        function: str,
        ending: Ending,
        seconds: float,
        computing: float | None = None,
    ) -> None:
        """Note that a delivery of *function* held its thread for *seconds*.

        :param computing: Seconds of computing among them, if that is known.
        """
        self.histograms.add(ending, function, seconds)
        if ending == "done":
            self.efforts.took(function, seconds, computing)

    def read_efforts(
        self, functions: t.Collection[str]
    ) -> dict[str, dict[str, Effort]]:
        """Return the efforts of deliveries since yesterday, by size of the worker.

        :raises redis.RedisError: The server did not answer.
        """
        return self.efforts.read(functions)

    def read(
        self, functions: t.Collection[str], *, now: float | None = None
    ) -> dict[str, Histogram]:
        """Return the recent service times of *functions*; one without any is absent.

        They are those of the last hour if these are enough, otherwise those of the last
        day, where older ones count less. Deliveries that failed count only where none
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
        read = self.histograms.read
        times = read(ending, functions, _last_hour(now), now=now)
        few = [each for each in functions if times[each].samples < ENOUGH]
        times |= read(ending, few, _last_day(), now=now)
        return {each: times[each] for each in functions if times[each].samples}


def _last_hour(now: float) -> list[float]:
    """Return weights that make sixty minutes of this hour and the one before."""
    return [1.0, 1 - now % 3600 / 3600]


def _last_day() -> list[float]:
    return [0.5 ** (back / HALF_LIFE) for back in range(HOURS)]
