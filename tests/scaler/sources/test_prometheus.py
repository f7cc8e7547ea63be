"""Durations of Prometheus, by a server that answers as its documentation says."""

from __future__ import annotations

import base64
import threading
import typing as t
from urllib.parse import parse_qs

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.sources import make_source
from flask_durable.scaler.sources import SourceChain
from flask_durable.scaler.sources.base import DurationSource

from ...support.servers import wait_until
from ..http_server import FakeServer
from ..http_server import Reply
from ..http_server import Request
from ..http_server import serving

TOKEN = "glc_5ecret"
METRIC = "dramatiq_message_duration_milliseconds"


class Prometheus(FakeServer):
    """Answers each query with what a test says; values are text, as there."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, str] = {}
        self.buckets: dict[tuple[str, str], str] = {}

    def answer(self, request: Request) -> Reply:
        if request.path != "/api/v1/query" or request.method != "POST":
            return Reply(404, b"404 page not found")
        query = parse_qs(request.body)["query"][0]
        if "_bucket" in query:
            return vector(
                [
                    ({"actor_name": n, "le": le}, v)
                    for (n, le), v in self.buckets.items()
                ]
            )
        return vector([({"actor_name": n}, v) for n, v in self.sums.items()])

    @property
    def queries(self) -> list[str]:
        return [parse_qs(request.body)["query"][0] for request in self.requests]


def vector(series: list[tuple[dict[str, str], str]]) -> Reply:
    result = [
        {"metric": metric, "value": [1435781451.781, value]} for metric, value in series
    ]
    data = {"resultType": "vector", "result": result}
    return Reply(200, {"status": "success", "data": data})


@pytest.fixture
def prometheus() -> t.Iterator[Prometheus]:
    with serving(Prometheus()) as server:
        yield server


def source(server: Prometheus, **options: t.Any) -> DurationSource:
    return make_source({"source": "prometheus", "url": server.url, **options})


def test_means_are_exact_and_spreads_are_those_of_the_buckets(
    prometheus: Prometheus,
) -> None:
    prometheus.sums = {"resize": "31240.0"}
    prometheus.buckets = {
        ("resize", "100"): "20",
        ("resize", "1000"): "100",
        ("resize", "+Inf"): "100",
    }
    found = source(prometheus).read(["resize"])["resize"]
    assert found.mean == pytest.approx(0.3124)
    assert found.samples == 100
    assert found.p95 == pytest.approx(0.1 + 0.9 * 75 / 80)
    assert 0.05 < found.variance < 0.15


def test_a_function_is_known_there_by_another_name(prometheus: Prometheus) -> None:
    prometheus.sums = {"resize": "1000", "Mailer": "6000"}
    prometheus.buckets = {("resize", "+Inf"): "1", ("Mailer", "+Inf"): "2"}
    names = {"send-mail": "Mailer"}
    found = source(prometheus, names=names).read(["resize", "send-mail", "unheard-of"])
    assert {key: time.mean for key, time in found.items()} == {
        "resize": 1.0,
        "send-mail": 3.0,
    }
    assert found["resize"].p95 is None


@pytest.mark.parametrize("count", ["NaN", "0", "+Inf"])
def test_a_function_that_did_not_run_is_absent(
    prometheus: Prometheus, count: str
) -> None:
    prometheus.sums = {"resize": "0" if count == "0" else "NaN", "mail": "5"}
    prometheus.buckets = {("resize", "+Inf"): count, ("mail", "+Inf"): count}
    assert source(prometheus).read(["resize", "mail"]) == {}


def test_two_grouped_queries_are_all_for_any_number_of_functions(
    prometheus: Prometheus,
) -> None:
    functions = [f"function-{n}" for n in range(200)]
    source(prometheus, match='namespace="prod"', window="6h").read(functions)
    assert prometheus.queries == [
        f'sum by (actor_name) (increase({METRIC}_sum{{namespace="prod"}}[6h]))',
        f'sum by (actor_name, le) (increase({METRIC}_bucket{{namespace="prod"}}[6h]))',
    ]


def test_a_histogram_of_ones_own_is_named(prometheus: Prometheus) -> None:
    options = {"metric": "job_seconds", "label": "job", "unit": "s"}
    found = source(prometheus, **options)
    assert found.read(["resize"]) == {}
    assert prometheus.queries[0] == "sum by (job) (increase(job_seconds_sum[24h]))"
    assert found.describe() == "prometheus:job_seconds"


@pytest.mark.parametrize("status", [400, 422, 503])
def test_a_query_that_is_refused_says_why(prometheus: Prometheus, status: int) -> None:
    body = {
        "status": "error",
        "errorType": "bad_data",
        "error": "parse error at char 3",
    }
    prometheus.failures = [Reply(status, body)]
    with pytest.raises(PlatformError, match=rf"Prometheus.*{status}.*parse error"):
        source(prometheus).read(["resize"])
    assert len(prometheus.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"status": "success"},
        {"status": "success", "data": {"result": [{"metric": {}}]}},
        {"status": "success", "data": None},
    ],
)
def test_an_answer_of_another_form_is_an_error(
    prometheus: Prometheus, body: t.Any
) -> None:
    prometheus.failures = [Reply(200, body)]
    with pytest.raises(PlatformError, match="unknown format"):
        source(prometheus).read(["resize"])


def test_a_token_is_sent_and_never_shown(
    prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_TOKEN", TOKEN)
    bearer = source(prometheus)
    bearer.read([])
    source(prometheus, user="1234").read([])
    sent = [request.headers["Authorization"] for request in prometheus.requests[::2]]
    pair = base64.b64encode(f"1234:{TOKEN}".encode()).decode()
    assert sent == [f"Bearer {TOKEN}", f"Basic {pair}"]
    assert TOKEN not in f"{bearer!r} {bearer.describe()}"
    with pytest.raises(ConfigurationError) as caught:
        source(prometheus, token=f"{TOKEN}\nX: y")
    assert TOKEN not in str(caught.value)


def test_a_server_that_is_down_is_an_error_of_one_call() -> None:
    with serving(Prometheus()) as server:
        gone = source(server)
    with pytest.raises(PlatformError, match="does not answer") as caught:
        gone.read(["resize"])
    assert caught.value.code == "platform.unavailable"


def test_a_slow_answer_is_used_the_next_time() -> None:
    answering = threading.Event()

    class Slow(Prometheus):
        def answer(self, request: Request) -> Reply:
            assert answering.wait(30)
            return super().answer(request)

    with serving(Slow()) as server:
        server.sums = {"resize": "3000"}
        server.buckets = {("resize", "+Inf"): "1"}
        chain = SourceChain([source(server)], budget=0.05)
        assert chain.read(["resize"]) == {}
        answering.set()
        wait_until(lambda: chain.read(["resize"]))
        assert chain.read(["resize"])["resize"].mean == 3.0
        assert len(server.requests) == 2, "a slow server is asked once more"
