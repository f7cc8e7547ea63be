"""Durations of Sentry, by a server that keeps the rules of its events API."""

from __future__ import annotations

import json
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

TOKEN = "sntrys_5ecret"


class Sentry(FakeServer):
    """One organization, and the spans of its transactions.

    :ivar spans: Mean, number and 95th percentile by transaction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[str, tuple[t.Any, t.Any, t.Any]] = {}
        self.unit: str | None = "millisecond"

    def answer(self, request: Request) -> Reply:
        url = urlsplit(request.path)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            shown = request.headers.get("Authorization")
            return Reply(401, {"detail": f"Invalid token: {shown}"})
        if (request.method, url.path) != ("GET", "/api/0/organizations/shop/events/"):
            return Reply(404, {"detail": "The requested resource does not exist"})
        query = parse_qs(url.query)
        fields = query["field"]
        assert fields == [
            "transaction",
            "avg(span.duration)",
            "p95(span.duration)",
            "count()",
        ]
        assert query["dataset"] == ["spans"]
        rows = int(query["per_page"][0])
        if rows > 100:
            return Reply(400, {"detail": "Invalid per_page value. Must be 1 to 100."})
        operation, wanted = query["query"][0].split(" transaction:")
        assert operation == "span.op:queue.task.dramatiq"
        data = [
            dict(
                zip(
                    ["transaction", "avg(span.duration)", "count()"],
                    [name, *self.spans[name][:2]],
                    strict=True,
                ),
                **{"p95(span.duration)": self.spans[name][2]},
            )
            for name in json.loads(wanted)
            if name in self.spans
        ]
        units = {"avg(span.duration)": self.unit, "p95(span.duration)": self.unit}
        return Reply(200, {"data": data[:rows], "meta": {"units": units}})


@pytest.fixture
def sentry(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Sentry]:
    monkeypatch.setenv("SENTRY_AUTH_TOKEN", TOKEN)
    with serving(Sentry()) as server:
        yield server


def source(server: Sentry, **options: t.Any) -> DurationSource:
    return make_source(
        {"source": "sentry", "organization": "shop", "url": server.url, **options}
    )


def test_milliseconds_of_transactions_are_seconds_of_functions(sentry: Sentry) -> None:
    sentry.spans = {
        "resize": (312.4, 7500, 700.0),
        'the "mailer", sends': (2000.0, 3, None),
    }
    made = source(sentry, names={"send-mail": 'the "mailer", sends'})
    found = made.read(["resize", "send-mail", "unheard-of"])
    assert found.keys() == {"resize", "send-mail"}
    assert found["resize"].mean == pytest.approx(0.3124)
    assert (found["resize"].samples, found["resize"].p95) == (7500, 0.7)
    assert (found["send-mail"].mean, found["send-mail"].p95) == (2.0, None)


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [(None, 0.25), ("millisecond", 0.25), ("second", 250), ("nanosecond", 2.5e-7)],
)
def test_the_unit_is_the_one_that_sentry_tells(
    sentry: Sentry, unit: str | None, seconds: float
) -> None:
    sentry.unit = unit
    sentry.spans = {"resize": (250, 1, None)}
    [found] = source(sentry).read(["resize"]).values()
    assert found.mean == pytest.approx(seconds)


def test_a_unit_that_is_no_time_is_an_error(sentry: Sentry) -> None:
    sentry.unit = "byte"
    sentry.spans = {"resize": (250, 1, None)}
    with pytest.raises(PlatformError, match="unknown unit, byte"):
        source(sentry).read(["resize"])


@pytest.mark.parametrize("numbers", [(None, 0, None), (0.0, 5, 1.0), (3.0, None, 1.0)])
def test_a_function_without_spans_is_absent(sentry: Sentry, numbers: t.Any) -> None:
    sentry.spans = {"resize": numbers}
    assert source(sentry).read(["resize"]) == {}


def test_more_than_a_hundred_functions_take_several_calls(sentry: Sentry) -> None:
    names = [f"function-{number}" for number in range(250)]
    sentry.spans = dict.fromkeys(names, (1000.0, 1, None))
    assert len(source(sentry).read(names)) == 250
    assert len(sentry.requests) == 3


def test_which_spans_count_is_told(sentry: Sentry) -> None:
    source(sentry, project=45, environment="prod", window="2d").read(["resize"])
    [request] = sentry.requests
    query = parse_qs(urlsplit(request.path).query)
    told = {key: query[key] for key in ("project", "environment", "statsPeriod")}
    assert told == {"project": ["45"], "environment": ["prod"], "statsPeriod": ["48h"]}


def test_nothing_is_asked_about_no_function(sentry: Sentry) -> None:
    assert source(sentry).read([]) == {}
    assert sentry.requests == []


def test_a_token_is_sent_and_never_shown(sentry: Sentry) -> None:
    made = source(sentry)
    assert TOKEN not in f"{made!r} {made.describe()}"
    with pytest.raises(PlatformError, match="Invalid token") as caught:
        source(sentry, token="wr0ng").read(["resize"])
    assert caught.value.code == "platform.auth"
    assert "wr0ng" not in str(caught.value)


def test_an_organization_that_is_not_there_is_an_error(sentry: Sentry) -> None:
    with pytest.raises(PlatformError, match="does not exist") as caught:
        source(sentry, organization="../shop").read(["resize"])
    assert caught.value.code == "platform.not_found"


def test_too_many_calls_say_when_to_ask_again(sentry: Sentry) -> None:
    detail = {"detail": "You are attempting to use this endpoint too frequently."}
    sentry.failures = [Reply(429, detail, {"Retry-After": "90"})]
    with pytest.raises(PlatformError, match="too frequently") as caught:
        source(sentry).read(["resize"])
    assert caught.value.retry_after == 90


@pytest.mark.parametrize("body", [[], {}, {"data": [{}], "meta": {}}, {"meta": None}])
def test_an_answer_of_another_form_is_an_error(sentry: Sentry, body: t.Any) -> None:
    sentry.failures = [Reply(200, body)]
    with pytest.raises(PlatformError, match="unknown format"):
        source(sentry).read(["resize"])


def test_without_a_token_its_variable_is_named(
    sentry: Sentry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENTRY_AUTH_TOKEN")
    with pytest.raises(ConfigurationError, match="SENTRY_AUTH_TOKEN"):
        source(sentry)
