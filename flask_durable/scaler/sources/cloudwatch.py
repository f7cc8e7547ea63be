"""Durations from a metric of Amazon CloudWatch."""

from __future__ import annotations

import typing as t
from datetime import datetime
from datetime import timedelta
from datetime import UTC

from ...clients.aws import AWSClient
from ...errors import PlatformError
from ..decision.observation import ServiceTime
from .answers import of_functions
from .answers import Stretches
from .answers import understanding
from .answers import window_of
from .chain import BUDGET
from .estimates import Unit

_STATISTICS = {"mean": "Average", "samples": "SampleCount", "p95": "p95"}

#: Seconds that one number covers.
_PERIOD = 3600

#: Functions in one call: it may have 500 queries.
_FUNCTIONS = 500 // len(_STATISTICS)


class CloudWatchSource:
    """A metric with a dimension for the function, hour by hour.

    :param names: Values of that dimension, by function. A function that is not here
        goes by its id.
    :param namespace: The namespace of the metric.
    :param metric: The name of the metric.
    :param label: The dimension that tells functions apart.
    :param dimensions: The metric's other dimensions.
    :param unit: The unit of the metric, which CloudWatch does not convert.
    :param window: The time to look back.
    :param region: The region; ``None``: as boto3 finds it.
    :param endpoint: The URL of another server than Amazon's.
    :raises ConfigurationError: The package boto3 is not installed, or *window* is not a
        duration.
    """

    def __init__(
        self,
        *,
        names: t.Mapping[str, str] | None = None,
        namespace: str = "FlaskDurable",
        metric: str = "Duration",
        label: str = "Function",
        dimensions: t.Mapping[str, str] | None = None,
        unit: Unit = "s",
        window: str = "24h",
        region: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        self._names = dict(names or {})
        self._namespace = namespace
        self._metric = metric
        self._label = label
        self._dimensions = dict(dimensions or {})
        self._unit: Unit = unit
        self._window = window_of("CloudWatch", window)
        self._aws = AWSClient(
            "CloudWatch", "cloudwatch", region, endpoint, tries=1, timeout=BUDGET
        )

    def describe(self) -> str:
        """Return the source in one line."""
        return f"cloudwatch:{self._namespace}/{self._metric}"

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return mean and 95th percentile of each function.

        :raises PlatformError: CloudWatch refuses or does not answer.
        """
        stretches = Stretches()
        names = sorted({self._names.get(each, each) for each in functions})
        for first in range(0, len(names), _FUNCTIONS):
            self._ask(names[first : first + _FUNCTIONS], stretches)
        return of_functions(functions, self._names, stretches.merged(self._unit))

    def _ask(self, names: t.Sequence[str], stretches: Stretches) -> None:
        asked = {
            f"{kind}{number}": (name, kind)
            for number, name in enumerate(names)
            for kind in _STATISTICS
        }
        queries = [self._query(id, *of) for id, of in asked.items()]
        with understanding("CloudWatch"):
            for result in self._results(queries):
                if result["StatusCode"] in ("Forbidden", "InternalError"):
                    raise _refusal(result)
                name, kind = asked[result["Id"]]
                for time, value in zip(
                    result["Timestamps"], result["Values"], strict=True
                ):
                    stretches.add(name, time, kind, value)

    def _results(self, queries: list[dict[str, t.Any]]) -> t.Iterator[t.Any]:
        """Yield the results of all pages; one query may have results on each."""
        now = datetime.now(UTC)
        parameters: dict[str, t.Any] = {
            "StartTime": now - timedelta(seconds=self._window),
            "EndTime": now,
            "ScanBy": "TimestampDescending",
            "MetricDataQueries": queries,
        }
        while True:
            page = self._aws.call("get_metric_data", **parameters)
            yield from page["MetricDataResults"]
            if not page.get("NextToken"):
                return
            parameters["NextToken"] = page["NextToken"]

    def _query(self, id: str, name: str, kind: str) -> dict[str, t.Any]:
        dimensions = {**self._dimensions, self._label: name}
        return {
            "Id": id,
            "MetricStat": {
                "Metric": {
                    "Namespace": self._namespace,
                    "MetricName": self._metric,
                    "Dimensions": [
                        {"Name": key, "Value": value}
                        for key, value in dimensions.items()
                    ],
                },
                "Period": _PERIOD,
                "Stat": _STATISTICS[kind],
            },
            "ReturnData": True,
        }


def _refusal(result: t.Mapping[str, t.Any]) -> PlatformError:
    status = result["StatusCode"]
    texts = [message.get("Value", "") for message in result.get("Messages", ())]
    return PlatformError(
        f"CloudWatch gives no data ({status}): {' '.join(texts) or 'no reason given'}",
        code="platform.auth" if status == "Forbidden" else "platform.unavailable",
    )
