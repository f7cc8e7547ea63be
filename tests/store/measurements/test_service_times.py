"""Service times of deliveries: what is kept of them, and what is read back."""

from __future__ import annotations

import random
import statistics
import time
import typing as t

import pytest

from benchmarks.workers import application
from benchmarks.workers import worker_here
from flask_durable import Event
from flask_durable import NonRetriable
from flask_durable import Step
from flask_durable.store.keys import Keys
from flask_durable.store.measurements.efforts import Efforts
from flask_durable.store.measurements.histogram import Histogram
from flask_durable.store.measurements.hourly import HourlyHistograms
from flask_durable.store.measurements.hourly import KEPT
from flask_durable.store.measurements.service_times import HALF_LIFE
from flask_durable.store.measurements.service_times import ServiceTimes
from flask_durable.store.server import StateServer

from ...support.harness import Harness
from ...support.servers import ValkeyServer
from ...support.servers import wait_until

#: In the middle of an hour.
NOW = 1_795_293_000.0


def histogram_of(times: t.Iterable[float]) -> Histogram:
    histogram = Histogram()
    for seconds in times:
        histogram.add(seconds)
    return histogram


@pytest.fixture
def server(url: str) -> StateServer:
    server = StateServer(url)
    server.client.flushdb()
    return server


@pytest.fixture
def service_times(server: StateServer, monkeypatch: pytest.MonkeyPatch) -> ServiceTimes:
    monkeypatch.setattr(time, "time", lambda: NOW)
    return make_times(server)


def make_times(server: StateServer) -> ServiceTimes:
    keys = Keys("test", 4)
    return ServiceTimes(HourlyHistograms(server, keys), Efforts(server, keys, "small"))


def note(
    service_times: ServiceTimes,
    monkeypatch: pytest.MonkeyPatch,
    hours_ago: float,
    times: t.Iterable[float],
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW - hours_ago * 3600)
    for seconds in times:
        service_times.took("resize", "done", seconds, 0.0)
    service_times.histograms.flush()
    monkeypatch.setattr(time, "time", lambda: NOW)


def test_mean_and_variance_are_exact_and_percentiles_are_close() -> None:
    numbers = random.Random(1)
    times = [numbers.lognormvariate(0, 1.3) for _ in range(20_000)]

    histogram = histogram_of(times)

    assert histogram.mean == pytest.approx(statistics.fmean(times))
    assert histogram.variance == pytest.approx(statistics.pvariance(times))
    for share in (0.5, 0.95, 0.99):
        exact = sorted(times)[int(share * len(times)) - 1]
        assert histogram.quantile(share) == pytest.approx(exact, rel=0.026)


def test_two_halves_that_are_merged_are_the_whole() -> None:
    whole = histogram_of([0.0, 0.1, 2.0, 30.0])
    merged = histogram_of([0.0, 30.0])
    merged.merge(histogram_of([0.1, 2.0]))

    assert merged.fields() == whole.fields()


def test_what_two_processes_write_is_read_as_one(
    server: StateServer, service_times: ServiceTimes
) -> None:
    other = make_times(server)
    for seconds in range(1, 21):
        service_times.took("resize", "done", seconds, 0.0)
        other.took("resize", "done", seconds + 20, 0.0)
    service_times.histograms.flush()
    other.histograms.flush()

    read = service_times.read(["resize", "unknown"])

    whole = histogram_of(range(1, 41))
    assert {**read["resize"].fields()} == pytest.approx(whole.fields())
    assert list(read) == ["resize"]


def test_what_was_written_is_not_written_again(service_times: ServiceTimes) -> None:
    service_times.took("resize", "done", 1.0, 0.0)
    service_times.histograms.flush()
    service_times.histograms.flush()

    assert service_times.read(["resize"])["resize"].samples == 1


def test_every_key_expires(server: StateServer, service_times: ServiceTimes) -> None:
    service_times.took("resize", "done", 1.0, 0.0)
    service_times.took("resize", "failed", 1.0, 0.0)
    service_times.histograms.flush()

    keys = server.client.keys()
    assert len(keys) == 2
    assert all(KEPT - 60 < server.client.ttl(key) <= KEPT for key in keys)


def test_the_last_hour_is_enough_if_it_has_thirty_samples(
    service_times: ServiceTimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(service_times, monkeypatch, 5, [100.0] * 1000)
    note(service_times, monkeypatch, 0, [1.0] * 30)

    assert service_times.read(["resize"])["resize"].mean == pytest.approx(1.0)


def test_half_of_the_hour_before_belongs_to_the_last_sixty_minutes(
    service_times: ServiceTimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(service_times, monkeypatch, 1, [4.0] * 60)
    note(service_times, monkeypatch, 0, [1.0] * 30)

    read = service_times.read(["resize"])["resize"]
    assert (read.samples, read.mean) == (60, pytest.approx(2.5))


def test_of_a_day_older_hours_count_less(
    service_times: ServiceTimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(service_times, monkeypatch, HALF_LIFE, [4.0] * 20)
    note(service_times, monkeypatch, 0, [1.0] * 20)

    read = service_times.read(["resize"])["resize"]
    assert (read.samples, read.mean) == (pytest.approx(30), pytest.approx(2.0))


def test_a_day_later_nothing_is_known(
    service_times: ServiceTimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(service_times, monkeypatch, 25, [4.0] * 20)

    assert service_times.read(["resize"]) == {}


def test_failures_count_only_where_nothing_succeeded(
    service_times: ServiceTimes,
) -> None:
    service_times.took("resize", "done", 8.0, 0.0)
    for function in ("resize", "broken"):
        service_times.took(function, "failed", 0.1, 0.0)
    service_times.histograms.flush()

    read = service_times.read(["resize", "broken"])

    assert read["resize"].mean == pytest.approx(8.0)
    assert read["broken"].mean == pytest.approx(0.1)


def counted(harness: Harness, function: str, ending: str) -> float:
    """Return how many deliveries the harness's worker has written."""
    harness.state.service_times.histograms.flush()
    client = harness.state.server.client
    prefix = f"{harness.state.store.keys.tag_of_function(function)}:times"
    keys = client.scan_iter(f"{prefix}:{ending}:{function}:*")
    return sum(float(client.hget(key, "n") or 0) for key in keys)


def test_each_delivery_that_does_something_is_counted_once(harness: Harness) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("one", time.monotonic)
        step.sleep("nap", 60)
        step.run("two", time.monotonic)

    harness.send("a/b", {})
    harness.settle()
    assert counted(harness, work.id, "done") == 1
    harness.advance(61)

    assert counted(harness, work.id, "done") == 2
    assert counted(harness, work.id, "failed") == 0


def test_a_delivery_that_only_replays_until_the_next_sleep_is_not_counted(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.sleep("first", 60)
        step.sleep("second", 60)

    harness.send("a/b", {})
    harness.settle()
    harness.advance(61)

    assert counted(harness, work.id, "done") == 1


def test_a_step_that_raises_and_a_run_that_fails_are_failures(
    harness: Harness,
) -> None:
    errors: list[Exception] = [ValueError("again"), NonRetriable("never")]

    def attempt() -> None:
        raise errors.pop(0)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("one", attempt)

    harness.send("a/b", {})
    harness.settle()
    assert counted(harness, work.id, "failed") == 1
    harness.advance(3600)

    assert counted(harness, work.id, "failed") == 2
    assert counted(harness, work.id, "done") == 0


def test_a_worker_writes_what_it_measured_while_it_runs(
    valkey: ValkeyServer, namespace: str
) -> None:
    with application(valkey.url, namespace) as state, worker_here(state):
        state.event_sender.send([state.message("bench/noop", {})])

        wait_until(lambda: state.service_times.read(["noop"]), timeout=20)
