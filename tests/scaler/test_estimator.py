"""Service times of functions: own measurements, then sources, then the others."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest

from flask_durable.cli import durable_cli
from flask_durable.errors import ConfigurationError
from flask_durable.scaler.decision.observation import ServiceTime
from flask_durable.scaler.estimator import Estimator
from flask_durable.scaler.estimator import shrunk
from flask_durable.scaler.estimator import sources_of
from flask_durable.scaler.pool_state import PoolState
from flask_durable.scaler.sources import SourceChain
from flask_durable.store.measurements.efforts import Effort
from flask_durable.store.measurements.histogram import Histogram

from ..store.kit import Kit
from ..support.harness import Harness
from ..support.servers import ValkeyServer
from .http_server import FakeServer
from .http_server import Reply
from .http_server import Request
from .http_server import serving


class Measured:
    """The workers' measurements: how often which time, by function."""

    def __init__(self, **times: tuple[int, float]) -> None:
        self.times = times
        self.efforts: dict[str, dict[str, Effort]] = {}

    def read(self, functions: t.Collection[str]) -> dict[str, Histogram]:
        found = {}
        for function in self.times.keys() & set(functions):
            count, seconds = self.times[function]
            found[function] = Histogram()
            for _ in range(count):
                found[function].add(seconds)
        return found

    def read_efforts(
        self, functions: t.Collection[str]
    ) -> dict[str, dict[str, Effort]]:
        return {function: self.efforts.get(function, {}) for function in functions}


class Source:
    def __init__(self, **times: ServiceTime) -> None:
        self.times = times
        self.asked: list[set[str]] = []

    def describe(self) -> str:
        return "elsewhere"

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        self.asked.append(set(functions))
        return self.times


def test_how_much_is_computing_and_what_it_takes_by_size_is_known() -> None:
    measured = Measured(encode=(20, 60.0), other=(20, 1.0))
    measured.efforts["encode"] = {
        "2 CPUs": Effort(10, 800.0, 100.0, 95.0),
        "8 CPUs": Effort(10, 400.0, 0.0, 0.0),
    }
    found = Estimator(measured, SourceChain([])).read(["encode", "other"])
    assert found["encode"].computing == pytest.approx(0.95)
    assert found["encode"].sizes == {"2 CPUs": 80.0, "8 CPUs": 40.0}
    assert (found["other"].computing, found["other"].sizes) == (None, {})


# -- Whose estimate counts -----------------------------------------------------------


def test_sources_are_asked_about_what_the_workers_did_not_measure_enough() -> None:
    source = Source(
        often=ServiceTime(9, samples=9000),
        seldom=ServiceTime(9, samples=9000),
        never=ServiceTime(9, samples=9000),
    )
    measured = Measured(often=(10, 1.0), seldom=(9, 1.0), alone=(1, 1.0))
    estimator = Estimator(measured, SourceChain([source]))

    found = estimator.read(["often", "seldom", "never", "alone", "unheard-of"])

    assert source.asked == [{"seldom", "never", "alone", "unheard-of"}]
    assert {name: known.source for name, known in found.items()} == {
        "often": "workers",
        "seldom": "elsewhere",
        "never": "elsewhere",
        "alone": "workers",
    }
    assert found["often"].samples == 10


def test_what_the_workers_measure_enough_is_asked_of_nobody() -> None:
    source = Source(work=ServiceTime(9, samples=9000))
    found = Estimator(Measured(work=(30, 2.0)), SourceChain([source])).read(["work"])
    assert found["work"] == ServiceTime(2.0, 0.0, 30, found["work"].p95, "workers")
    assert found["work"].p95 == pytest.approx(2.0, rel=0.03)
    assert source.asked == []


# -- Few samples ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "mean"),
    # (n 60 + 10 m) / (n + 10), where m is the mean of all deliveries.
    [
        (1, (60 + 10 * 0.3060) / 11),
        (10, (600 + 10 * 0.3597) / 20),
        (90, (5400 + 10 * 0.8324) / 100),
        (10_000, 60 - 0.04),
    ],
)
def test_a_mean_of_few_samples_is_drawn_to_that_of_the_queue(
    samples: int, mean: float
) -> None:
    times = {"often": ServiceTime(0.3, samples=9990), "k": ServiceTime(60, 0, samples)}
    found = shrunk(times)
    assert found["k"].mean == pytest.approx(mean, rel=2e-3)
    assert found["k"].samples == samples


def test_estimates_of_all_kinds_are_drawn_to_the_mean_of_the_queue() -> None:
    source = Source(elsewhere=ServiceTime(5, 0, 10))
    measured = Measured(often=(980, 1.0), seldom=(10, 5.0))
    functions = ["often", "seldom", "elsewhere"]
    found = Estimator(measured, SourceChain([source])).read(functions)
    # The mean of 1000 deliveries is 1.08 s if 20 of them take 5 s.
    for name in ("seldom", "elsewhere"):
        assert found[name].mean == pytest.approx((10 * 5 + 10 * 1.08) / 20)


def test_ten_samples_and_the_queue_meet_half_way() -> None:
    """Of ten at 4 s and thirty at 0 s, the queue's mean is 1 s."""
    found = shrunk({"k": ServiceTime(4, 0, 10), "often": ServiceTime(0, 0, 30)})
    assert found["k"].mean == pytest.approx((10 * 4 + 10 * 1) / 20)
    assert found["often"].mean == pytest.approx((30 * 0 + 10 * 1) / 40)
    # The variance of ten times 4 and ten deliveries of the queue, which vary by 3.
    assert found["k"].variance == pytest.approx(3 / 2 + (4 - 1) ** 2 / 4)


def test_a_function_that_is_alone_stays_as_it_is() -> None:
    times = {"k": ServiceTime(60, 5.0, 2, 70.0)}
    [found] = shrunk(times).values()
    assert dataclasses.astuple(found)[:5] == pytest.approx((60, 5.0, 2, 70.0, ""))
    assert shrunk({}) == {}
    guesses = {"k": ServiceTime(60), "l": ServiceTime(1)}
    assert shrunk(guesses) == guesses


# -- What is kept of sources, and under which name -----------------------------------


class Prometheus(FakeServer):
    """Knows one job: 50 deliveries of 3 seconds."""

    def answer(self, request: Request) -> Reply:
        bucket = "_bucket" in request.body
        metric = {"actor_name": "job", **({"le": "+Inf"} if bucket else {})}
        value = [1435781451.781, "50" if bucket else "150000"]
        result = [{"metric": metric, "value": value}]
        data = {"resultType": "vector", "result": result}
        return Reply(200, {"status": "success", "data": data})


@pytest.fixture
def prometheus() -> t.Iterator[Prometheus]:
    with serving(Prometheus()) as server:
        yield server


def test_what_sources_said_is_on_the_state_server_until_their_options_change(
    kit: Kit, prometheus: Prometheus
) -> None:
    def read(**options: t.Any) -> float:
        given = {"source": "prometheus", "url": prometheus.url, **options}
        pool_state = PoolState(kit.server, kit.keys, "media")
        return sources_of([given], pool_state).read(["job"])["job"].mean

    assert [read(), read(token="s3cret"), read(token="0ther")] == [3.0] * 3
    assert len(prometheus.requests) == 2
    assert read(unit="s") == 3000.0
    assert len(prometheus.requests) == 4
    keys = t.cast("list[str]", kit.client.keys())
    assert len(keys) == 2
    for key in keys:
        assert ":scale:media:told:" in key
        assert 24 * 3600 < kit.client.ttl(key) <= 25 * 3600
        assert "s3cret" not in str(kit.client.get(key))


def test_a_source_that_is_wrong_is_refused_before_anything_is_asked(kit: Kit) -> None:
    with pytest.raises(ConfigurationError, match="no source 'prometeus'"):
        sources_of([{"source": "prometeus"}], PoolState(kit.server, kit.keys, "media"))


# -- By the command ------------------------------------------------------------------


@pytest.fixture
def harness(
    valkey: ValkeyServer, namespace: str, prometheus: Prometheus
) -> t.Iterator[Harness]:
    """An app with one run of ``job`` and one of ``fresh`` that wait."""
    source = {"source": "prometheus", "url": prometheus.url, "token": "s3cret"}
    pool = {
        "desired_wait": "5s",
        "sources": [source],
        "platform": {"platform": "command", "read": "echo 0", "apply": "true {n}"},
    }
    made = Harness(valkey.url, namespace, in_place=0, DURABLE_SCALE={"default": pool})
    for name in ("job", "fresh"):
        made.durable.function(id=name, on="job/asked")(lambda event, step: None)
    made.send("job/asked", {})
    made.route()
    yield made
    made.close()


@pytest.fixture
def app(harness: Harness) -> t.Callable[..., str]:
    """Run ``flask durable scale``, and return what it prints."""

    def call(*arguments: str) -> str:
        command = ["scale", "--queue=default", "--dry-run", *arguments]
        done = harness.app.test_cli_runner().invoke(durable_cli, command)
        assert done.exit_code in (0, 5), done.output
        assert "s3cret" not in done.output
        return t.cast(str, done.output)

    return call


def test_the_command_says_whose_estimate_it_took(app: t.Callable[..., str]) -> None:
    text = app("--explain")
    assert (
        "job: 1 waiting, 3 s each (prometheus:dramatiq_message_duration_milliseconds, "
        "50 measured)"
    ) in text
    assert "fresh: 1 waiting, 3 s each (the others' mean)" in text

    times = json.loads(app("--json"))["service_times"]
    assert times["job"]["source"].startswith("prometheus")
    assert times["fresh"]["source"] == "the others' mean"
    assert times["fresh"]["samples"] == 0


def test_own_measurements_come_first(
    app: t.Callable[..., str], harness: Harness
) -> None:
    for _ in range(50):
        harness.state.service_times.took("job", "done", 0.5, 0.1)
    harness.state.histograms.flush()
    text = app("--explain")
    assert "job: 1 waiting, 0.5 s each (workers, 50 measured)" in text


def test_without_anything_it_is_a_guess(
    app: t.Callable[..., str], prometheus: Prometheus
) -> None:
    prometheus.failures = [Reply(503, {"status": "error", "error": "sleepy"})]
    assert "job: 1 waiting, 10 s each (the guess)" in app("--explain")


def test_a_pool_with_tokens_does_not_show_them(
    app: t.Callable[..., str], harness: Harness
) -> None:
    assert "s3cret" not in repr(harness.state.settings.scale)
