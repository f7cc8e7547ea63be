"""Durations of AppSignal, by a server that keeps the rules of both its APIs."""

from __future__ import annotations

import logging
import re
import typing as t
from datetime import datetime
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

TOKEN = "per5onal+token/1"
SITE = "69447d2f1caf1b2e8cb38c68"

#: By action and hour: mean in milliseconds, how many, and 95th percentile.
Hours = dict[str, list[tuple[t.Any, t.Any, t.Any]]]


class AppSignal(FakeServer):
    """One site, whose only measurement is that of background jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.hours: Hours = {}

    def answer(self, request: Request) -> Reply:
        url = urlsplit(request.path)
        if url.path == "/graphql":
            return self._graphql(parse_qs(url.query).get("token"), request.body)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Reply(401, {"error": "Unauthorized"})
        if (request.method, url.path) != ("POST", "/api/v2/metrics/timeseries"):
            return Reply(404, {"error": "Not found"})
        return self._timeseries(request.body)

    def _timeseries(self, body: t.Any) -> Reply:
        if body["site_id"] != SITE:
            return Reply(
                422, {"error": "no_site", "message": "No such site", "details": {}}
            )
        for limit in ("from", "to"):
            datetime.strptime(body[limit], "%Y-%m-%dT%H:%M:%SZ")
        fields = {s["field"]: (s["aggregation"], s["name"]) for s in body["select"]}
        assert fields == {
            "mean": ("avg", "transaction_duration"),
            "count": ("sum", "transaction_duration"),
            "p95": ("avg", "transaction_duration"),
        }
        for selector in body["select"]:
            assert selector["tags"] == {"namespace": "background", "action": "*"}
            assert selector["draw_null_as_zero"] is False
        series = [
            {
                "id": f"{action}-{field}",
                "name": "transaction_duration",
                "tags": {"action": action, "namespace": "background"},
                "field": field.upper(),
                "min": 0,
                "max": 0,
                "data": [
                    {"timestamp": f"2026-11-25T{n:02}:00:00Z", "value": hour[place]}
                    for n, hour in enumerate(hours)
                ],
            }
            for action, hours in self.hours.items()
            for place, field in enumerate(("mean", "count", "p95"))
        ]
        return Reply(200, {**{k: body[k] for k in ("from", "to")}, "series": series})

    def _graphql(self, tokens: list[str] | None, body: t.Any) -> Reply:
        if tokens != [TOKEN]:
            return Reply(401, {"error": f"{tokens} is not a valid token"})
        query = body["query"]
        assert query.count("{") == query.count("}")
        if f'app(id: "{SITE}")' not in query:
            return _refused("App not found")
        if not re.search(r"timeframe: R(24H|7D),", query):
            return _refused("Argument 'timeframe' has an invalid value")
        assert '{key: "action", value: "*"}' in query
        assert "{field: MEAN, aggregate: AVG}" in query
        assert "{field: COUNT, aggregate: SUM}" in query
        rows = [
            {
                "id": action,
                "name": "transaction_duration",
                "tags": [{"key": "action", "value": action}],
                "fields": [
                    {"key": key, "value": value}
                    for key, value in zip(
                        ("MEAN", "COUNT", "P95"), hours[0], strict=True
                    )
                ],
            }
            for action, hours in self.hours.items()
        ]
        return Reply(200, {"data": {"app": {"metrics": {"list": {"rows": rows}}}}})


def _refused(message: str) -> Reply:
    """Refuse as GraphQL does: with a success."""
    return Reply(200, {"data": None, "errors": [{"message": f"{message} ({TOKEN})"}]})


@pytest.fixture
def appsignal(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[AppSignal]:
    monkeypatch.setenv("APPSIGNAL_API_TOKEN", TOKEN)
    with serving(AppSignal()) as server:
        yield server


@pytest.fixture(params=["appsignal", "appsignal_graphql"])
def make(
    request: pytest.FixtureRequest, appsignal: AppSignal
) -> t.Callable[..., DurationSource]:
    def make(**options: t.Any) -> DurationSource:
        given = {"site": SITE, "url": appsignal.url, **options}
        return make_source({"source": request.param, **given})

    return make


def test_milliseconds_of_actions_are_seconds_of_functions(
    appsignal: AppSignal, make: t.Callable[..., DurationSource]
) -> None:
    appsignal.hours = {"resize": [(312.4, 7500, 700.0)], "Mailer#perform": [(95, 4, 0)]}
    source = make(names={"send-mail": "Mailer#perform"})
    found = source.read(["resize", "send-mail", "unheard-of"])
    assert found.keys() == {"resize", "send-mail"}
    assert found["resize"].mean == pytest.approx(0.3124)
    assert (found["resize"].samples, found["resize"].p95) == (7500, 0.7)
    assert (found["send-mail"].mean, found["send-mail"].p95) == (0.095, None)
    assert len(appsignal.requests) == 1


@pytest.mark.parametrize("hour", [(None, None, None), (0, 0, 0), (12.5, 0, None)])
def test_an_action_that_did_not_run_is_absent(
    appsignal: AppSignal, make: t.Callable[..., DurationSource], hour: t.Any
) -> None:
    appsignal.hours = {"resize": [hour]}
    assert make().read(["resize"]) == {}


def test_busy_hours_count_more_than_quiet_ones(appsignal: AppSignal) -> None:
    appsignal.hours = {
        "resize": [(10_000, 1, 12_000), (None, None, None), (100, 99, 200)]
    }
    source = make_source({"source": "appsignal", "site": SITE, "url": appsignal.url})
    found = source.read(["resize"])["resize"]
    assert found.mean == pytest.approx((10_000 + 99 * 100) / 100 / 1000)
    assert found.samples == 100
    [request] = appsignal.requests
    limits = [datetime.fromisoformat(request.body[key]) for key in ("from", "to")]
    assert (limits[1] - limits[0]).total_seconds() == pytest.approx(86400, abs=1)
    assert request.body["limit"] is None


def test_a_site_that_is_not_there_is_an_error_without_the_token(
    make: t.Callable[..., DurationSource],
) -> None:
    with pytest.raises(
        PlatformError, match=r"AppSignal refuses.*(No such|not found)"
    ) as e:
        make(site="other").read(["resize"])
    assert TOKEN not in str(e.value)


def test_a_wrong_token_is_an_error_without_it(
    appsignal: AppSignal, make: t.Callable[..., DurationSource]
) -> None:
    with pytest.raises(PlatformError, match="refuses \\(401\\)") as caught:
        make(token="wr0ng").read(["resize"])
    assert caught.value.code == "platform.auth"
    assert "wr0ng" not in str(caught.value)
    assert len(appsignal.requests) == 1


def test_the_token_is_in_no_log(
    appsignal: AppSignal,
    make: t.Callable[..., DurationSource],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    appsignal.failures = [None, Reply(200, {"data": None})]
    source = make()
    for _ in range(2):
        with pytest.raises(PlatformError):
            source.read(["resize"])
    assert "POST /" in caplog.text
    for written in (TOKEN, "per5onal"):
        assert written not in f"{caplog.text} {source!r} {source.describe()}"


def test_too_many_calls_say_when_to_ask_again(
    appsignal: AppSignal, make: t.Callable[..., DurationSource]
) -> None:
    appsignal.failures = [Reply(429, {"error": "Slow down"}, {"Retry-After": "120"})]
    with pytest.raises(PlatformError, match="Slow down") as caught:
        make().read(["resize"])
    assert (caught.value.code, caught.value.retry_after) == (
        "platform.rate_limited",
        120,
    )


@pytest.mark.parametrize("body", [[], {}, {"series": [{}]}, {"data": {"app": None}}])
def test_an_answer_of_another_form_is_an_error(
    appsignal: AppSignal, make: t.Callable[..., DurationSource], body: t.Any
) -> None:
    appsignal.failures = [Reply(200, body)]
    with pytest.raises(PlatformError, match="unknown format"):
        make().read(["resize"])


def test_a_window_is_one_that_there_is(make: t.Callable[..., DurationSource]) -> None:
    for wrong in ("soon", "5m"):
        with pytest.raises(ConfigurationError, match="window of AppSignal"):
            make(window=wrong)
    make(window="7d").read(["resize"])


def test_graphql_has_few_windows(appsignal: AppSignal) -> None:
    options = {"source": "appsignal_graphql", "site": SITE, "url": appsignal.url}
    with pytest.raises(ConfigurationError, match="no window of 3h"):
        make_source({**options, "window": "3h"})


def test_without_a_token_its_variable_is_named(
    make: t.Callable[..., DurationSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("APPSIGNAL_API_TOKEN")
    with pytest.raises(ConfigurationError, match="APPSIGNAL_API_TOKEN"):
        make()
