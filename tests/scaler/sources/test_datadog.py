"""Durations of Datadog, by a server that keeps the rules of its query API."""

from __future__ import annotations

import typing as t
from urllib.parse import parse_qs
from urllib.parse import urlsplit

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.sources import make_source
from flask_durable.scaler.sources.base import DurationSource

from ..http_server import FakeServer
from ..http_server import Reply
from ..http_server import Request
from ..http_server import serving

API_KEY, APPLICATION_KEY = "api-5ecret", "application-5ecret"
SECOND = [{"family": "time", "name": "second", "scale_factor": 1.0}, None]


class Datadog(FakeServer):
    """Answers each query with what a test says.

    :ivar series: By how a query begins: scope, and the values of some hours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.series: dict[str, dict[str, list[t.Any]]] = {}
        self.unit: t.Any = SECOND

    def answer(self, request: Request) -> Reply:
        url = urlsplit(request.path)
        keys = (
            request.headers.get("DD-API-KEY"),
            request.headers.get("DD-APPLICATION-KEY"),
        )
        if keys != (API_KEY, APPLICATION_KEY):
            return Reply(403, {"errors": [f"Forbidden: {keys[0]} {keys[1]}"]})
        if (request.method, url.path) != ("GET", "/api/v1/query"):
            return Reply(404, {"errors": ["Not found"]})
        query = parse_qs(url.query)
        assert int(query["to"][0]) - int(query["from"][0]) == 86400
        found = self.series.get(query["query"][0].partition("{")[0], {})
        series = [
            {
                "scope": scope,
                "unit": None if "count" in query["query"][0] else self.unit,
                "pointlist": [
                    [1575317847000.0 + 3.6e6 * n, v] for n, v in enumerate(values)
                ],
            }
            for scope, values in found.items()
        ]
        return Reply(200, {"status": "ok", "series": series})

    @property
    def queries(self) -> list[str]:
        return [parse_qs(urlsplit(r.path).query)["query"][0] for r in self.requests]


@pytest.fixture
def datadog(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Datadog]:
    monkeypatch.setenv("DD_API_KEY", API_KEY)
    monkeypatch.setenv("DD_APP_KEY", APPLICATION_KEY)
    with serving(Datadog()) as server:
        yield server


def source(server: Datadog, **options: t.Any) -> DurationSource:
    return make_source({"source": "datadog", "url": server.url, **options})


def test_hours_are_weighed_by_their_numbers(datadog: Datadog) -> None:
    datadog.series = {
        "avg:flask_durable.duration": {"function:resize,env:prod": [10.0, None, 0.1]},
        "count:flask_durable.duration": {"function:resize,env:prod": [1, None, 99]},
    }
    found = source(datadog).read(["resize", "unheard-of"])
    assert found.keys() == {"resize"}
    assert found["resize"].mean == pytest.approx((10 + 99 * 0.1) / 100)
    assert (found["resize"].samples, found["resize"].p95) == (100, None)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("second", 2.0), ("millisecond", 0.002), ("nanosecond", 2e-9), ("minute", 120.0)],
)
def test_units_are_those_that_datadog_tells(
    datadog: Datadog, name: str, seconds: float
) -> None:
    datadog.unit = [{"name": name, "scale_factor": 17}, None]
    datadog.series = {
        "avg:jobs": {"function:resize": [2.0]},
        "count:jobs": {"function:resize": [5]},
    }
    [found] = source(datadog, metric="jobs").read(["resize"]).values()
    assert (found.mean, found.samples) == (pytest.approx(seconds), 5)


@pytest.mark.parametrize("unit", [None, [None, None], [{"name": "byte"}, None]])
def test_a_metric_without_a_unit_of_time_needs_the_option(
    datadog: Datadog, unit: t.Any
) -> None:
    datadog.unit = unit
    datadog.series = {
        "avg:jobs": {"function:resize": [250.0]},
        "count:jobs": {"function:resize": [5]},
    }
    with pytest.raises(PlatformError, match=r"the unit of jobs is (none|byte)"):
        source(datadog, metric="jobs").read(["resize"])
    [found] = source(datadog, metric="jobs", unit="ms").read(["resize"]).values()
    assert found.mean == 0.25


def test_histograms_of_dogstatsd_are_several_metrics(datadog: Datadog) -> None:
    datadog.series = {
        "avg:jobs.avg": {"job:mailer": [1.0]},
        "sum:jobs.count": {"job:mailer": [4]},
        "avg:jobs.95percentile": {"job:mailer": [3.0]},
    }
    options = {"metric": "jobs", "kind": "histogram", "label": "job", "p95": True}
    made = source(datadog, **options, scope="env:prod", names={"send-mail": "mailer"})
    [found] = made.read(["send-mail"]).values()
    assert (found.mean, found.samples, found.p95) == (1.0, 4, 3.0)
    assert datadog.queries == [
        "avg:jobs.avg{env:prod} by {job}.rollup(avg, 3600)",
        "sum:jobs.count{env:prod} by {job}.as_count().rollup(sum, 3600)",
        "avg:jobs.95percentile{env:prod} by {job}.rollup(avg, 3600)",
    ]


def test_what_is_asked_of_a_distribution(datadog: Datadog) -> None:
    source(datadog, p95=True).read(["resize"])
    metric = "flask_durable.duration{*} by {function}"
    assert datadog.queries == [
        f"avg:{metric}.rollup(avg, 3600)",
        f"count:{metric}.as_count().rollup(sum, 3600)",
        f"p95:{metric}.rollup(avg, 3600)",
    ]


@pytest.mark.parametrize("counts", [[None], [0], []])
def test_a_function_that_did_not_run_is_absent(
    datadog: Datadog, counts: list[t.Any]
) -> None:
    datadog.series = {
        "avg:jobs": {"function:resize": [None if counts != [0] else 0.0]},
        "count:jobs": {"function:resize": counts},
    }
    assert source(datadog, metric="jobs").read(["resize"]) == {}


def test_keys_are_sent_and_never_shown(datadog: Datadog) -> None:
    made = source(datadog)
    assert "5ecret" not in f"{made!r} {made.describe()}"
    with pytest.raises(PlatformError, match="Forbidden") as caught:
        source(datadog, api_key="wr0ng-5ecret").read(["resize"])
    assert caught.value.code == "platform.auth"
    assert "5ecret" not in str(caught.value)


def test_too_many_calls_say_when_to_ask_again(datadog: Datadog) -> None:
    headers = {"X-RateLimit-Limit": "600", "X-RateLimit-Reset": "1800"}
    datadog.failures = [Reply(429, {"errors": ["Rate limit exceeded"]}, headers)]
    with pytest.raises(PlatformError, match="Rate limit exceeded") as caught:
        source(datadog).read(["resize"])
    assert caught.value.retry_after == 1800
    assert len(datadog.requests) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"status": "error", "error": "Invalid query"}, "Invalid query"),
        ({}, "unknown format"),
        ({"status": "ok", "series": [{"pointlist": []}]}, "unknown format"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    datadog: Datadog, body: t.Any, text: str
) -> None:
    datadog.failures = [Reply(200, body)]
    with pytest.raises(PlatformError, match=text):
        source(datadog).read(["resize"])


def test_without_a_key_its_variable_is_named(
    datadog: Datadog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DD_APP_KEY")
    with pytest.raises(ConfigurationError, match=r"DD_APP_KEY.*application_key"):
        source(datadog)
