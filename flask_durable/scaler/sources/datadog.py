"""Durations from a metric of Datadog."""

from __future__ import annotations

import time
import typing as t
from urllib.parse import urlencode

from ...clients.http import HTTPAPI
from ...clients.http import token_of
from ...errors import PlatformError
from ..decision.observation import ServiceTime
from .answers import of_functions
from .answers import Stretches
from .answers import understanding
from .answers import window_of
from .chain import BUDGET
from .estimates import number
from .estimates import Unit
from .estimates import UNITS

#: The queries for each kind of metric, by the number of an hour that they return.
_QUERIES = {
    "distribution": {
        "mean": "avg:{metric}{{{scope}}} by {{{label}}}.rollup(avg, 3600)",
        "samples": "count:{metric}{{{scope}}} by {{{label}}}"
        ".as_count().rollup(sum, 3600)",
        "p95": "p95:{metric}{{{scope}}} by {{{label}}}.rollup(avg, 3600)",
    },
    "histogram": {
        "mean": "avg:{metric}.avg{{{scope}}} by {{{label}}}.rollup(avg, 3600)",
        "samples": "sum:{metric}.count{{{scope}}} by {{{label}}}"
        ".as_count().rollup(sum, 3600)",
        "p95": "avg:{metric}.95percentile{{{scope}}} by {{{label}}}.rollup(avg, 3600)",
    },
}

#: Seconds of Datadog's units.
_SECONDS = {
    **{"nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3},
    **{"second": 1.0, "minute": 60.0, "hour": 3600.0},
}


class DatadogSource:
    """A metric with a tag for the function, hour by hour.

    :param names: Values of that tag, by function. A function that is not here goes by
        its id.
    :param metric: The name of the metric.
    :param kind: A distribution, or one of DogStatsD's histograms and timers.
    :param label: The tag that tells functions apart.
    :param scope: Further tags that are required, in Datadog's notation.
    :param p95: True to ask for the 95th percentile too.
    :param unit: The unit of the metric, if it is not the one that Datadog tells.
    :param window: The time to look back.
    :param site: The Datadog site.
    :param api_key: An API key; ``DD_API_KEY`` by default.
    :param application_key: An application key; ``DD_APP_KEY`` by default.
    :param url: The URL of another server than the site's.
    :raises ConfigurationError: A key is missing, or *window* is not a duration.
    """

    def __init__(
        self,
        *,
        names: t.Mapping[str, str] | None = None,
        metric: str = "flask_durable.duration",
        kind: t.Literal["distribution", "histogram"] = "distribution",
        label: str = "function",
        scope: str = "*",
        p95: bool = False,
        unit: Unit | None = None,
        window: str = "24h",
        site: str = "datadoghq.com",
        api_key: str | None = None,
        application_key: str | None = None,
        url: str | None = None,
    ) -> None:
        self._names = dict(names or {})
        self._metric = metric
        self._label = label
        self._unit = unit
        self._window = window_of("Datadog", window)
        self._queries = {
            number: query.format(metric=metric, scope=scope, label=label)
            for number, query in _QUERIES[kind].items()
            if p95 or number != "p95"
        }
        application = ("Datadog", application_key, "DD_APP_KEY", "application_key")
        headers = {
            "DD-API-KEY": token_of("Datadog", api_key, "DD_API_KEY", "api_key"),
            "DD-APPLICATION-KEY": token_of(*application),
        }
        self._api = HTTPAPI(
            "Datadog",
            url or f"https://api.{site}",
            lambda: headers,
            timeout=BUDGET,
            repetitions=0,
            retry_header="X-RateLimit-Reset",
        )

    def describe(self) -> str:
        """Return the source in one line."""
        return f"datadog:{self._metric}"

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return the mean of each function, and the 95th percentile if it is wanted.

        :raises PlatformError: Datadog refuses or does not answer, or does not tell the
            metric's unit.
        """
        now = int(time.time())
        stretches = Stretches()
        for kind, query in self._queries.items():
            window = {"from": now - int(self._window), "to": now}
            path = f"/api/v1/query?{urlencode({**window, 'query': query})}"
            answer = self._api.call("GET", path)
            with understanding("Datadog"):
                if answer["status"] != "ok":
                    raise PlatformError(f"Datadog refuses: {answer.get('error')}")
                for series in answer["series"]:
                    self._take(series, kind, stretches)
        return of_functions(functions, self._names, stretches.merged("s"))

    def _take(
        self, series: t.Mapping[str, t.Any], kind: str, stretches: Stretches
    ) -> None:
        tags = dict(tag.partition(":")[::2] for tag in series["scope"].split(","))
        if self._label not in tags:
            return
        scale = 1.0 if kind == "samples" else self._scale(series)
        for moment, value in series["pointlist"]:
            known = number(value)
            if known is not None:
                stretches.add(tags[self._label], moment, kind, known * scale)

    def _scale(self, series: t.Mapping[str, t.Any]) -> float:
        """Return the seconds of one unit of the metric."""
        if self._unit is not None:
            return 1 / UNITS[self._unit]
        [unit, *_] = series.get("unit") or [None]
        name = unit["name"] if unit else None
        if name not in _SECONDS:
            raise PlatformError(
                f"Datadog says that the unit of {self._metric} is {name or 'none'}.",
                hint="Set the option unit, or the metric's unit in Datadog.",
            )
        return _SECONDS[name]
