"""Durations that AppSignal has measured, from its REST API, version 2."""

from __future__ import annotations

import time
import typing as t
from datetime import datetime
from datetime import UTC

from ...clients.http import HTTPAPI
from ...clients.http import token_of
from ..decision.observation import ServiceTime
from .answers import of_functions
from .answers import Stretches
from .answers import understanding
from .answers import window_of
from .chain import BUDGET
from .estimates import Unit

URL = "https://appsignal.com"

#: The numbers that are read: their field, and the way several of an hour become one.
_FIELDS = {"mean": ("mean", "avg"), "samples": ("count", "sum"), "p95": ("p95", "avg")}
_KIND_OF = {field: kind for kind, (field, _) in _FIELDS.items()}


class AppSignalSource:
    """AppSignal's measurements of actions, such as background jobs, hour by hour.

    :param site: The id of the app, which is in the URL of its pages.
    :param names: AppSignal's names of actions, by function. A function that is not here
        goes by its id.
    :param namespace: The namespace of the actions; ``None`` if the metric has no such
        tag.
    :param metric: The name of a measurement.
    :param label: The tag that tells functions apart.
    :param unit: The unit of the measurement.
    :param window: The time to look back.
    :param token: A personal API token; ``APPSIGNAL_API_TOKEN`` by default.
    :param url: The URL of another server than AppSignal's.
    :raises ConfigurationError: The token is missing, or *window* is not a duration.
    """

    def __init__(
        self,
        *,
        site: str,
        names: t.Mapping[str, str] | None = None,
        namespace: str | None = "background",
        metric: str = "transaction_duration",
        label: str = "action",
        unit: Unit = "ms",
        window: str = "24h",
        token: str | None = None,
        url: str = URL,
    ) -> None:
        self._site = site
        self._names = dict(names or {})
        self._metric = metric
        self._label = label
        self._tags = {label: "*"} | ({"namespace": namespace} if namespace else {})
        self._unit: Unit = unit
        self._window = window_of("AppSignal", window)
        secret = token_of("AppSignal", token, "APPSIGNAL_API_TOKEN")
        headers = {"Authorization": f"Bearer {secret}"}
        self._api = HTTPAPI(
            "AppSignal", url, lambda: headers, timeout=BUDGET, repetitions=0
        )

    def describe(self) -> str:
        """Return the source in one line."""
        return f"appsignal:{self._metric}"

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return mean and 95th percentile of each function, in one call.

        :raises PlatformError: AppSignal refuses or does not answer.
        """
        now = time.time()
        answer = self._api.call(
            "POST",
            "/api/v2/metrics/timeseries",
            {
                "site_id": self._site,
                "from": _written(now - self._window),
                "to": _written(now),
                "resolution": "HOURLY",
                "select": [self._selector(*selected) for selected in _FIELDS.values()],
                "limit": None,
            },
        )
        stretches = Stretches()
        with understanding("AppSignal"):
            for series in answer["series"]:
                name = series["tags"].get(self._label)
                kind = _KIND_OF.get(series["field"].lower())
                if name is None or kind is None:
                    continue
                for point in series["data"]:
                    stretches.add(name, point["timestamp"], kind, point["value"])
        return of_functions(functions, self._names, stretches.merged(self._unit))

    def _selector(self, field: str, aggregation: str) -> dict[str, t.Any]:
        return {
            "name": self._metric,
            "tags": self._tags,
            "field": field,
            "aggregation": aggregation,
            "draw_null_as_zero": False,
        }


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
