"""Durations from timers in Graphite, such as those of statsd."""

from __future__ import annotations

import re
import typing as t
from urllib.parse import urlencode

from ...clients.http import authorization
from ...clients.http import HTTPAPI
from ...errors import ConfigurationError
from ..decision.observation import ServiceTime
from .answers import of_functions
from .answers import understanding
from .answers import window_of
from .chain import BUDGET
from .estimates import number
from .estimates import Unit
from .estimates import UNITS
from .estimates import variance_of

#: The series that statsd writes for each timer in each interval. They are added up.
_SUMS = ("sum", "count", "sum_squares")

#: The characters of a name that statsd leaves as they are.
_NAME = r"([-\w:#]+)"


class GraphiteSource:
    """Timers, each with its sum, number and sum of squares.

    :param url: The URL of Graphite, without ``/render``.
    :param names: Names of timers, by function. A function that is not here goes by its
        id.
    :param metric: The path of the timers, with ``*`` in the place of the function.
    :param unit: The unit of the timers.
    :param window: The time to look back.
    :param user: The user whose password is *token*, for Basic authentication.
    :param token: A token; ``GRAPHITE_TOKEN`` by default. Without one, none is sent.
    :raises ConfigurationError: The *metric* does not have exactly one ``*``, or
        *window* is not a duration.
    """

    def __init__(
        self,
        *,
        url: str,
        names: t.Mapping[str, str] | None = None,
        metric: str = "stats.timers.durable.*",
        unit: Unit = "ms",
        window: str = "24h",
        user: str | None = None,
        token: str | None = None,
    ) -> None:
        before, star, after = metric.partition("*")
        if not star or "*" in after:
            raise ConfigurationError(
                "The metric of Graphite must have exactly one * for the function."
            )
        self._names = dict(names or {})
        self._metric = metric
        self._unit: Unit = unit
        self._series = re.compile(
            rf"{re.escape(before)}{_NAME}{re.escape(after)}\.({'|'.join(_SUMS)})\b"
        )
        hours = round(window_of("Graphite", window) / 3600)
        targets = [
            ("target", f'summarize({metric}.{kind},"{hours}h","sum",true)')
            for kind in _SUMS
        ]
        query = [("format", "json"), ("from", f"-{hours}h"), *targets]
        self._path = f"/render?{urlencode(query)}"
        headers = authorization("Graphite", user, token, "GRAPHITE_TOKEN")
        self._api = HTTPAPI(
            "Graphite", url, lambda: headers, timeout=BUDGET, repetitions=0
        )

    def describe(self) -> str:
        """Return the source in one line."""
        return f"graphite:{self._metric}"

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return mean and variance of each function, in one call.

        :raises PlatformError: Graphite refuses or does not answer.
        """
        answer = self._api.call("GET", self._path)
        sums: dict[str, dict[str, float]] = {}
        with understanding("Graphite"):
            for series in answer or ():
                found = self._series.search(series["target"])
                # The value comes first. A gap is null, not zero.
                values = [number(value) for value, _ in series["datapoints"]]
                known = [value for value in values if value is not None]
                if found and known:
                    sums.setdefault(found[1], {})[found[2]] = sum(known)
        times = {name: self._service_time(kinds) for name, kinds in sums.items()}
        return of_functions(functions, self._names, times)

    def _service_time(self, sums: t.Mapping[str, float]) -> ServiceTime | None:
        total, count = sums.get("sum", 0.0), sums.get("count", 0.0)
        if not (total > 0 and count > 0):
            return None
        scale = UNITS[self._unit]
        mean = total / count / scale
        squares = sums.get("sum_squares")
        if squares is None:
            return ServiceTime(mean, variance_of(mean, None), count)
        variance = squares / count / scale**2 - mean**2
        return ServiceTime(mean, max(variance, 0.0), count)
