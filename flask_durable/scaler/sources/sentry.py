"""Durations of spans that Sentry has kept."""

from __future__ import annotations

import json
import typing as t
from urllib.parse import quote
from urllib.parse import urlencode

from ...clients.http import HTTPAPI
from ...clients.http import token_of
from ...errors import PlatformError
from ..decision.observation import ServiceTime
from .answers import of_functions
from .answers import understanding
from .answers import window_of
from .chain import BUDGET
from .estimates import summarized
from .estimates import Unit

_MEAN, _SAMPLES, _P95 = "avg(span.duration)", "count()", "p95(span.duration)"

#: Functions in one call: its answer has at most this many rows.
_FUNCTIONS = 100

_UNITS: t.Mapping[str | None, Unit] = {
    **{None: "ms", "millisecond": "ms", "second": "s"},
    **{"microsecond": "us", "nanosecond": "ns"},
}


class SentrySource:
    """Durations of spans, grouped by one of their fields.

    :param organization: The slug or the id of the organization.
    :param names: Values of the field, by function. A function that is not here goes by
        its id.
    :param region: The region in which the organization is kept.
    :param project: The id of the project whose spans count; all by default.
    :param environment: The environment whose spans count; all by default.
    :param query: The spans that count, in Sentry's search syntax.
    :param label: The field that tells functions apart.
    :param window: The time to look back.
    :param token: A token that may read; ``SENTRY_AUTH_TOKEN`` by default.
    :param url: The URL of another server than the region's.
    :raises ConfigurationError: The token is missing, or *window* is not a duration.
    """

    def __init__(
        self,
        *,
        organization: str,
        names: t.Mapping[str, str] | None = None,
        region: str = "us",
        project: int | None = None,
        environment: str | None = None,
        query: str = "span.op:queue.task.dramatiq",
        label: str = "transaction",
        window: str = "24h",
        token: str | None = None,
        url: str | None = None,
    ) -> None:
        self._names = dict(names or {})
        self._label = label
        self._query = query
        self._name = f"sentry:{organization}"
        self._path = f"/api/0/organizations/{quote(organization, safe='')}/events/"
        hours = round(window_of("Sentry", window) / 3600)
        self._parameters = {
            "dataset": "spans",
            "field": [label, _MEAN, _P95, _SAMPLES],
            "statsPeriod": f"{hours}h",
            "per_page": _FUNCTIONS,
            **({} if project is None else {"project": project}),
            **({} if environment is None else {"environment": environment}),
        }
        secret = token_of("Sentry", token, "SENTRY_AUTH_TOKEN")
        headers = {"Authorization": f"Bearer {secret}"}
        self._api = HTTPAPI(
            "Sentry",
            url or f"https://{region}.sentry.io",
            lambda: headers,
            timeout=BUDGET,
            repetitions=0,
        )

    def describe(self) -> str:
        """Return the source in one line."""
        return self._name

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return mean and 95th percentile of each function.

        :raises PlatformError: Sentry refuses or does not answer.
        """
        names = sorted({self._names.get(each, each) for each in functions})
        times: dict[str, ServiceTime | None] = {}
        for first in range(0, len(names), _FUNCTIONS):
            times.update(self._ask(names[first : first + _FUNCTIONS]))
        return of_functions(functions, self._names, times)

    def _ask(self, names: t.Sequence[str]) -> dict[str, ServiceTime | None]:
        wanted = ",".join(json.dumps(name, ensure_ascii=False) for name in names)
        query = f"{self._query} {self._label}:[{wanted}]".strip()
        parameters = urlencode({**self._parameters, "query": query}, doseq=True)
        answer = self._api.call("GET", f"{self._path}?{parameters}")
        with understanding("Sentry"):
            units = answer["meta"].get("units") or {}
            return {
                row[self._label]: summarized(
                    row[_MEAN], row[_SAMPLES], row.get(_P95), _unit(units)
                )
                for row in answer["data"]
            }


def _unit(units: t.Mapping[str, str | None]) -> Unit:
    """Return the unit of the durations, which all of them share."""
    name = units.get(_MEAN)
    if name not in _UNITS:
        raise PlatformError(f"Sentry tells durations in an unknown unit, {name}.")
    return _UNITS[name]
