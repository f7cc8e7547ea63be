"""Durations from a histogram in Prometheus, or in a server with the same API."""

from __future__ import annotations

import typing as t
from urllib.parse import urlencode

from ...clients.http import authorization
from ...clients.http import HTTPAPI
from ..decision.observation import ServiceTime
from .answers import of_functions
from .answers import understanding
from .chain import BUDGET
from .estimates import number
from .estimates import Unit
from .estimates import UNITS
from .estimates import variance_of
from .histogram import buckets
from .histogram import percentile
from .histogram import variance

_FORM = "application/x-www-form-urlencoded"


class PrometheusSource:
    """A histogram with a label for the function.

    The default one is exported by Dramatiq's own middleware, for each actor.

    :param url: The URL of Prometheus, without ``/api/v1``.
    :param names: Values of the label, by function. A function that is not here goes by
        its id.
    :param metric: The histogram, without ``_sum`` and ``_bucket``.
    :param label: The label that tells functions apart.
    :param unit: The unit of the histogram.
    :param match: Further matchers of the series, such as ``namespace="prod"``.
    :param window: The time to look back, in Prometheus' notation.
    :param user: The user whose password is *token*, for Basic authentication.
    :param token: A token; ``PROMETHEUS_TOKEN`` by default. Without one, none is sent.
    """

    def __init__(
        self,
        *,
        url: str,
        names: t.Mapping[str, str] | None = None,
        metric: str = "dramatiq_message_duration_milliseconds",
        label: str = "actor_name",
        unit: Unit = "ms",
        match: str = "",
        window: str = "24h",
        user: str | None = None,
        token: str | None = None,
    ) -> None:
        self._names = dict(names or {})
        self._label = label
        self._unit: Unit = unit
        self._name = f"prometheus:{metric}"
        self._sums = _increase(f"{metric}_sum", match, window, [label])
        self._buckets = _increase(f"{metric}_bucket", match, window, [label, "le"])
        headers = authorization("Prometheus", user, token, "PROMETHEUS_TOKEN")
        self._api = HTTPAPI(
            "Prometheus", url, lambda: headers, timeout=BUDGET, repetitions=0
        )

    def describe(self) -> str:
        """Return the source in one line."""
        return self._name

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return the mean, the variance and the 95th percentile of each function.

        :raises PlatformError: Prometheus refuses or does not answer.
        """
        with understanding("Prometheus"):
            totals = self._query(self._sums, self._label)
            sums = {name: value for (name,), value in totals}
            counts: dict[str, dict[float, float]] = {}
            for (name, le), count in self._query(self._buckets, self._label, "le"):
                counts.setdefault(name, {})[float(le)] = count
        times = {
            name: self._service_time(total, counts.get(name, {}))
            for name, total in sums.items()
        }
        return of_functions(functions, self._names, times)

    def _service_time(
        self, total: float, cumulative: t.Mapping[float, float]
    ) -> ServiceTime | None:
        parts = buckets(cumulative)
        samples = sum(count for _, _, count in parts)
        if not (total > 0 and samples > 0):
            return None
        scale = UNITS[self._unit]
        p95 = percentile(parts, 0.95)
        spread = variance(parts)
        mean = total / samples / scale
        return ServiceTime(
            mean,
            variance_of(mean, None) if spread is None else spread / scale**2,
            samples,
            None if p95 is None else p95 / scale,
        )

    def _query(self, query: str, *labels: str) -> t.Iterator[tuple[list[str], float]]:
        """Yield the labels and the value of each series that has a value."""
        form = urlencode({"query": query}).encode()
        answer = self._api.call("POST", "/api/v1/query", form, _FORM)
        for series in answer["data"]["result"]:
            value = number(series["value"][1])
            keys = [series["metric"].get(label) for label in labels]
            if value is not None and None not in keys:
                yield keys, value


def _increase(series: str, match: str, window: str, labels: list[str]) -> str:
    selector = f"{series}{{{match}}}" if match else series
    return f"sum by ({', '.join(labels)}) (increase({selector}[{window}]))"
