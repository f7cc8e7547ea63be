from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st

from flask_durable.common.durations import Duration
from flask_durable.common.durations import format_seconds
from flask_durable.common.durations import MAX_SECONDS
from flask_durable.common.durations import to_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (timedelta(minutes=2), 120.0),
        ("90s", 90.0),
        ("90", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("7d", 604800.0),
        ("2W", 1209600.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        (MAX_SECONDS, MAX_SECONDS),
    ],
)
def test_every_way_to_write_a_duration_gives_seconds(
    value: Duration, seconds: float
) -> None:
    assert to_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        timedelta(seconds=-1),
        float("nan"),
        float("inf"),
        MAX_SECONDS + 1,
        True,
        None,
        [],
        "",
        "soon",
        "10 minutes",
        "1h30",
        "-5s",
        "1e3s",
        "9" * 400,
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        to_seconds(value)  # type: ignore[arg-type]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= to_seconds(text) <= MAX_SECONDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.35, "350ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (60, "1m"),
        (5400, "1h30m"),
        (604800, "7d"),
        (90061, "1d1h"),
    ],
)
def test_seconds_are_shown_briefly(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 10**8))
def test_what_is_shown_is_a_duration_close_to_the_value(seconds: int) -> None:
    shown = to_seconds(format_seconds(seconds))
    assert shown <= seconds
    assert seconds - shown < max(1, seconds / 24)
