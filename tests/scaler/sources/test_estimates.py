"""Numbers of a source, and those that are none."""

from __future__ import annotations

import math
import typing as t

import pytest

from flask_durable.scaler.decision.observation import ServiceTime
from flask_durable.scaler.sources.estimates import merged
from flask_durable.scaler.sources.estimates import number
from flask_durable.scaler.sources.estimates import Part
from flask_durable.scaler.sources.estimates import summarized
from flask_durable.scaler.sources.estimates import variance_of
from flask_durable.scaler.sources.histogram import buckets
from flask_durable.scaler.sources.histogram import percentile
from flask_durable.scaler.sources.histogram import variance


@pytest.mark.parametrize(
    "value", [None, "NaN", "+Inf", "", "x", True, [], float("nan")]
)
def test_what_is_no_finite_number_is_none(value: t.Any) -> None:
    assert number(value) is None


def test_milliseconds_become_seconds() -> None:
    found = summarized("312.5", 7500, 400, "ms")
    assert found is not None
    assert (found.mean, found.samples, found.p95) == (0.3125, 7500, 0.4)


@pytest.mark.parametrize(
    ("mean", "samples"), [(None, 5), (0, 5), (-1, 5), (3, 0), (3, None), ("NaN", 5)]
)
def test_no_mean_or_no_samples_is_nothing_and_not_zero(
    mean: t.Any, samples: t.Any
) -> None:
    assert summarized(mean, samples, 1, "s") is None


def test_the_variance_is_that_of_log_normal_durations() -> None:
    # The mean and the 95th percentile of exp(N(0, 0.5²)).
    mean, p95 = math.exp(0.125), math.exp(0.5 * 1.6448536269514722)
    assert variance_of(mean, p95) == pytest.approx(mean**2 * math.expm1(0.25))
    assert variance_of(2.0, 2.0) == 0
    assert variance_of(2.0, 1.0) == 0


def test_without_a_percentile_that_fits_durations_are_exponential() -> None:
    assert variance_of(3.0, None) == 9
    assert variance_of(3.0, 300.0) == 9


def test_hours_are_merged_by_how_much_was_done_in_them() -> None:
    quiet, busy = Part(10_000, 1, 12_000), Part(100, 99, 200)
    found = merged([quiet, busy, Part(None, 7), Part("NaN", 7), Part(5, None)], "ms")
    assert found is not None
    assert found.mean == pytest.approx((10_000 + 99 * 100) / 100 / 1000)
    assert found.samples == 100
    assert found.p95 == pytest.approx((12_000 + 99 * 200) / 100 / 1000)


def test_a_percentile_that_is_missing_does_not_count_as_zero() -> None:
    found = merged([Part(1, 10, None), Part(1, 10, 3)], "s")
    assert found == ServiceTime(1, variance_of(1, 3), 20, 3)
    assert merged([Part(1, 10)], "s") == ServiceTime(1, 1, 10, None)
    assert merged([], "s") is None


def test_buckets_say_where_the_95th_percentile_is() -> None:
    parts = buckets({math.inf: 100.0, 10.0: 100.0, 1.0: 90.0})
    assert parts == [(0.0, 1.0, 90.0), (1.0, 10.0, 10.0), (10.0, math.inf, 0.0)]
    assert percentile(parts, 0.95) == pytest.approx(5.5)
    assert percentile(parts, 0.9) == pytest.approx(1.0)


def test_a_percentile_beyond_the_last_bound_is_unknown() -> None:
    assert percentile(buckets({1.0: 90.0, math.inf: 100.0}), 0.95) is None
    assert percentile([], 0.95) is None


def test_durations_lie_evenly_in_their_buckets() -> None:
    assert variance(buckets({6.0: 10.0})) == pytest.approx(3.0)
    # Half of them at 1 at least, the other half evenly below.
    beyond = buckets({1.0: 1.0, math.inf: 2.0})
    assert variance(beyond) == pytest.approx((1 / 3 + 1) / 2 - 0.75**2)
    assert variance([]) is None


def test_estimated_counts_that_decrease_are_no_negative_ones() -> None:
    parts = buckets({1.0: 10.5, 2.0: 10.25, math.inf: 11.0})
    assert [count for _, _, count in parts] == [10.5, 0.0, 0.5]
