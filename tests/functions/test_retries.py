from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_durable.errors import DefinitionError
from flask_durable.functions.retries import Backoff

backoffs = st.builds(
    Backoff,
    st.floats(0, 100),
    factor=st.floats(1, 100),
    maximum=st.floats(100, 10_000),
    jitter=st.booleans(),
)
fractions = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 10_000)


def test_the_default_grows_fourfold_from_two_seconds_to_an_hour() -> None:
    delays = [Backoff(jitter=False).delay(attempt) for attempt in range(1, 9)]
    assert delays == [2, 8, 32, 128, 512, 2048, 3600, 3600]


def test_durations_are_text_seconds_or_timedelta() -> None:
    assert Backoff("1m") == Backoff(60) == Backoff(timedelta(minutes=1))


@given(backoffs, attempts, fractions)
def test_a_delay_is_never_negative_and_never_above_the_maximum(
    backoff: Backoff, attempt: int, fraction: float
) -> None:
    assert 0 <= backoff.delay(attempt, random=lambda: fraction) <= backoff.maximum


@given(backoffs, attempts, fractions)
def test_delays_do_not_shrink_from_attempt_to_attempt(
    backoff: Backoff, attempt: int, fraction: float
) -> None:
    first = backoff.delay(attempt, random=lambda: fraction)
    assert backoff.delay(attempt + 1, random=lambda: fraction) >= first


@given(st.floats(0, 100), attempts, fractions)
def test_jitter_takes_away_at_most_half(
    initial: float, attempt: int, fraction: float
) -> None:
    whole = Backoff(initial, jitter=False).delay(attempt)
    drawn = Backoff(initial).delay(attempt, random=lambda: fraction)
    assert whole / 2 <= drawn <= whole


def test_jitter_spreads_delays_over_the_upper_half() -> None:
    backoff = Backoff("10s", factor=1)
    assert backoff.delay(1, random=lambda: 0.0) == 5
    assert backoff.delay(1, random=lambda: 0.5) == 7.5
    assert len({backoff.delay(1) for _ in range(50)}) > 1


def test_no_delay_stays_no_delay() -> None:
    assert Backoff(0).delay(10_000) == 0


def test_a_backoff_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Backoff().initial = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Backoff("soon"),
        lambda: Backoff(-1),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(factor=float("nan")),
        lambda: Backoff(factor=float("inf")),
        lambda: Backoff(factor="4"),  # type: ignore[arg-type]
        lambda: Backoff(True),
    ],
)
def test_a_malformed_value_is_refused(make: object) -> None:
    with pytest.raises(DefinitionError, match="Backoff"):
        make()  # type: ignore[operator]


def test_a_maximum_below_the_first_delay_names_the_fix() -> None:
    with pytest.raises(DefinitionError, match="longer maximum="):
        Backoff("2h")
