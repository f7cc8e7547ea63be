"""Durations of Graphite, by a server that answers as its render API does."""

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

TOKEN = "glc_5ecret"


class Graphite(FakeServer):
    """Has series by their paths, each with the values of some intervals.

    :ivar wants: The ``Authorization`` without which it refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.series: dict[str, list[t.Any]] = {}
        self.wants: str | None = None

    def answer(self, request: Request) -> Reply:
        url = urlsplit(request.path)
        if self.wants and request.headers.get("Authorization") != self.wants:
            return Reply(401, b"<html>Authorization Required</html>")
        if (request.method, url.path) != ("GET", "/render"):
            return Reply(404, b"<html>Not Found</html>")
        query = parse_qs(url.query)
        assert query["format"] == ["json"]
        found = []
        for target in query["target"]:
            path, how = target.removeprefix("summarize(").split(",", 1)
            before, after = path.split("*")
            for name, values in self.series.items():
                if name.startswith(before) and name.endswith(after):
                    points = [[v, 1475758320 + 10 * n] for n, v in enumerate(values)]
                    shown = f"summarize({name}, {how.replace(',', ', ')}"
                    found.append({"target": shown, "datapoints": points})
        return Reply(200, found)

    def timer(self, path: str, *intervals: list[float]) -> None:
        """Have statsd write the times of some intervals; nothing in an empty one."""
        sums = {"sum": sum, "count": len, "sum_squares": _squares}
        for kind, of in sums.items():
            self.series[f"{path}.{kind}"] = [of(i) if i else None for i in intervals]


def _squares(times: list[float]) -> float:
    return sum(time * time for time in times)


@pytest.fixture
def graphite() -> t.Iterator[Graphite]:
    with serving(Graphite()) as server:
        yield server


def source(server: Graphite, **options: t.Any) -> DurationSource:
    return make_source({"source": "graphite", "url": server.url, **options})


def test_means_are_those_of_all_that_was_timed_and_no_means_of_means(
    graphite: Graphite,
) -> None:
    graphite.timer("stats.timers.durable.resize", [1000.0], [], [100.0] * 9)
    found = source(graphite).read(["resize", "unheard-of"])
    assert found.keys() == {"resize"}
    assert found["resize"].mean == pytest.approx(0.19)
    assert found["resize"].samples == 10
    assert found["resize"].variance == pytest.approx(0.109 - 0.19**2)


def test_one_request_is_made_for_any_number_of_functions(graphite: Graphite) -> None:
    source(graphite, window="2d").read([f"function-{number}" for number in range(200)])
    [request] = graphite.requests
    query = parse_qs(urlsplit(request.path).query)
    assert query["from"] == ["-48h"]
    assert query["target"] == [
        f'summarize(stats.timers.durable.*.{kind},"48h","sum",true)'
        for kind in ("sum", "count", "sum_squares")
    ]


def test_timers_are_where_the_metric_says(graphite: Graphite) -> None:
    graphite.timer("shop.Mailer.took", [3.0, 5.0])
    graphite.timer("shopping.Mailer.took", [300.0])
    found = source(
        graphite, metric="shop.*.took", unit="s", names={"send-mail": "Mailer"}
    )
    assert found.read(["send-mail"])["send-mail"].mean == 4.0
    assert found.describe() == "graphite:shop.*.took"


@pytest.mark.parametrize(
    "values",
    [{"sum": [5.0]}, {"sum": [0], "count": [0]}, {"sum": [5], "count": [None]}],
)
def test_a_timer_of_gaps_is_absent(graphite: Graphite, values: t.Any) -> None:
    for kind, value in values.items():
        graphite.series[f"stats.timers.durable.resize.{kind}"] = value
    assert source(graphite).read(["resize"]) == {}


def test_without_squares_durations_are_exponential(graphite: Graphite) -> None:
    graphite.series["stats.timers.durable.resize.sum"] = [6000]
    graphite.series["stats.timers.durable.resize.count"] = [2]
    [found] = source(graphite).read(["resize"]).values()
    assert (found.mean, found.variance) == (3.0, 9.0)


def test_a_token_is_sent_and_never_shown(
    graphite: Graphite, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphite.wants = f"Bearer {TOKEN}"
    with pytest.raises(PlatformError, match="refuses \\(401\\)") as caught:
        source(graphite).read(["resize"])
    assert caught.value.code == "platform.auth"
    monkeypatch.setenv("GRAPHITE_TOKEN", TOKEN)
    made = source(graphite)
    assert made.read(["resize"]) == {}
    assert TOKEN not in f"{made!r} {made.describe()}"


@pytest.mark.parametrize("body", [{"target": []}, [{}], [{"target": "x"}], [7]])
def test_an_answer_of_another_form_is_an_error(graphite: Graphite, body: t.Any) -> None:
    graphite.failures = [Reply(200, body)]
    with pytest.raises(PlatformError, match="unknown format"):
        source(graphite).read(["resize"])


def test_a_page_of_html_is_an_error(graphite: Graphite) -> None:
    graphite.failures = [Reply(200, b"<html>Sign in</html>")]
    with pytest.raises(PlatformError, match="did not answer in JSON"):
        source(graphite).read(["resize"])


def test_the_metric_has_one_star(graphite: Graphite) -> None:
    for wrong in ("stats.timers", "stats.*.*"):
        with pytest.raises(ConfigurationError, match="one \\*"):
            source(graphite, metric=wrong)
