"""Durations that AppSignal has measured, from its GraphQL API, the older one."""

from __future__ import annotations

import json
import typing as t

from ...clients.http import hidden
from ...clients.http import HTTPAPI
from ...clients.http import in_url
from ...clients.http import token_of
from ...errors import ConfigurationError
from ...errors import PlatformError
from ..decision.observation import ServiceTime
from .answers import of_functions
from .answers import understanding
from .answers import window_of
from .appsignal import URL
from .chain import BUDGET
from .estimates import summarized
from .estimates import Unit

#: AppSignal's names of the times that it looks back.
_TIMEFRAMES = {
    **{hours * 3600.0: f"R{hours}H" for hours in (1, 4, 8, 12, 24, 48)},
    **{days * 86400.0: f"R{days}D" for days in (7, 30)},
}

#: The most actions in one answer.
_LIMIT = 1000

_FIELDS = (("MEAN", "AVG"), ("COUNT", "SUM"), ("P95", "AVG"))


class AppSignalGraphQLSource:
    """AppSignal's measurements of actions, such as background jobs.

    Its mean is one of means of shorter times. Each of these counts the same, whatever
    its number of samples. :class:`.appsignal.AppSignalSource` weighs them.

    :param site: The id of the app, which is in the URL of its pages.
    :param names: AppSignal's names of actions, by function. A function that is not here
        goes by its id.
    :param namespace: The namespace of the actions; ``None`` if the metric has no such
        tag.
    :param metric: The name of a measurement.
    :param label: The tag that tells functions apart.
    :param unit: The unit of the measurement.
    :param window: The time to look back: 1, 4, 8, 12, 24 or 48 hours, 7 or 30 days.
    :param token: A personal API token; ``APPSIGNAL_API_TOKEN`` by default.
    :param url: The URL of another server than AppSignal's.
    :raises ConfigurationError: The token is missing, or *window* is another time.
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
        self._names = dict(names or {})
        self._label = label
        self._unit: Unit = unit
        self._name = f"appsignal_graphql:{metric}"
        tags = {label: "*"} | ({"namespace": namespace} if namespace else {})
        self._query = _query(site, _timeframe(window), metric, tags)
        secret = token_of("AppSignal", token, "APPSIGNAL_API_TOKEN")
        # The only place for the token that this API accepts.
        self._path = f"/graphql?token={in_url(secret)}"
        self._api = HTTPAPI("AppSignal", url, dict, timeout=BUDGET, repetitions=0)

    def describe(self) -> str:
        """Return the source in one line."""
        return self._name

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return mean and 95th percentile of each function, in one call.

        :raises PlatformError: AppSignal refuses or does not answer.
        """
        answer = self._api.call("POST", self._path, {"query": self._query})
        times: dict[str, ServiceTime | None] = {}
        with understanding("AppSignal"):
            if answer.get("errors"):
                text = hidden(str(answer["errors"][0].get("message")))
                raise PlatformError(f"AppSignal refuses: {text[:200]}")
            for row in answer["data"]["app"]["metrics"]["list"]["rows"]:
                tags = {tag["key"]: tag["value"] for tag in row["tags"]}
                values = {f["key"].upper(): f["value"] for f in row["fields"]}
                if self._label in tags:
                    times[tags[self._label]] = summarized(
                        values.get("MEAN"),
                        values.get("COUNT"),
                        values.get("P95"),
                        self._unit,
                    )
        return of_functions(functions, self._names, times)


def _timeframe(window: str) -> str:
    seconds = window_of("AppSignal", window)
    if seconds not in _TIMEFRAMES:
        raise ConfigurationError(
            f"AppSignal has no window of {window}.",
            hint="There are 1, 4, 8, 12, 24 and 48 hours, 7 and 30 days.",
        )
    return _TIMEFRAMES[seconds]


def _query(site: str, timeframe: str, metric: str, tags: t.Mapping[str, str]) -> str:
    """Return the query. Its texts are written as in JSON."""
    fields = " ".join(f"{{field: {name}, aggregate: {how}}}" for name, how in _FIELDS)
    wanted = " ".join(
        f"{{key: {json.dumps(key)}, value: {json.dumps(value)}}}"
        for key, value in tags.items()
    )
    of = f"{{name: {json.dumps(metric)}, fields: [{fields}], tags: [{wanted}]}}"
    found = "rows { id name tags { key value } fields { key value } }"
    chosen = f"timeframe: {timeframe}, limit: {_LIMIT}, query: [{of}]"
    return (
        f"query {{ app(id: {json.dumps(site)}) "
        f"{{ metrics {{ list({chosen}) {{ {found} }} }} }} }}"
    )
