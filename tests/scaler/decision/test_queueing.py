"""Formulas against numbers that were computed elsewhere."""

from __future__ import annotations

import pytest

from flask_durable.scaler import ServiceTime
from flask_durable.scaler.decision.queueing import erlang_c
from flask_durable.scaler.decision.queueing import residual
from flask_durable.scaler.decision.queueing import rule_of_thumb
from flask_durable.scaler.decision.queueing import samples_needed
from flask_durable.scaler.decision.queueing import steady_servers


def test_the_rule_of_thumb_gives_75_workers_for_the_article_s_queue() -> None:
    assert rule_of_thumb(7500, 0.3, 30) == pytest.approx(75)


@pytest.mark.parametrize(
    ("servers", "load", "share"), [(1, 0.5, 0.5), (2, 1, 1 / 3), (10, 8, 0.40918)]
)
def test_erlang_c_is_the_share_that_waits(
    servers: int, load: float, share: float
) -> None:
    assert erlang_c(servers, load) == pytest.approx(share, abs=5e-6)


def test_a_load_that_is_too_much_makes_everybody_wait() -> None:
    assert erlang_c(3, 3) == 1.0
    assert erlang_c(0, 0.1) == 1.0


@pytest.mark.parametrize(
    ("wait", "squared_variation", "servers"),
    [
        (30, 0, 5),
        (30, 1, 6),
        (30, 4, 7),
        (60, 0, 5),
        (60, 1, 5),
        (60, 4, 6),
        (300, 0, 4),
        (300, 1, 4),
        (300, 4, 5),
    ],
)
def test_steady_state_needs_more_servers_the_more_service_times_vary(
    wait: float, squared_variation: float, servers: int
) -> None:
    service_time = ServiceTime(60, squared_variation * 3600)
    assert steady_servers(3, service_time, wait, 0.05) == servers


@pytest.mark.parametrize(
    ("variation", "age", "left"),
    [
        (2, 0, 60.0),
        (2, 10, 65.2),
        (2, 60, 108.2),
        (2, 300, 253.1),
        (0.3, 0, 60.0),
        (0.3, 10, 50.0),
        (0.3, 60, 15.9),
        (0.3, 100, 12.6),
    ],
)
def test_what_is_left_of_a_job_grows_with_its_age_where_the_tail_is_heavy(
    variation: float, age: float, left: float
) -> None:
    service_time = ServiceTime(60, (variation * 60) ** 2)
    assert residual(service_time, age) == pytest.approx(left, abs=0.05)


def test_a_job_older_than_any_before_is_expected_to_go_on() -> None:
    assert residual(ServiceTime(1, 0.0001), 3600) == 1
    assert residual(ServiceTime(1, 0), 3600) == 0


@pytest.mark.parametrize(
    ("variation", "samples"), [(0.5, 97), (1, 385), (2, 1537), (3, 3458)]
)
def test_a_mean_needs_the_more_samples_the_more_it_varies(
    variation: float, samples: int
) -> None:
    assert samples_needed(variation, 0.1) == samples
