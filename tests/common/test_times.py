from __future__ import annotations

import time
from datetime import datetime
from datetime import timedelta
from datetime import timezone

from flask_durable.common.times import datetime_of
from flask_durable.common.times import milliseconds_of
from flask_durable.common.times import now_milliseconds
from flask_durable.common.times import to_milliseconds


def test_every_millisecond_is_the_same_after_a_round_trip() -> None:
    start = 1_767_225_600_000
    for milliseconds in (*range(3000), *range(start, start + 1000)):
        assert milliseconds_of(datetime_of(milliseconds)) == milliseconds


def test_a_time_of_another_zone_is_the_same_moment_in_utc() -> None:
    there = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert milliseconds_of(there) == 1_767_225_600_000
    assert datetime_of(1_767_225_600_000) == there
    assert datetime_of(0).utcoffset() == timedelta(0)


def test_durations_are_whole_milliseconds() -> None:
    assert [to_milliseconds(seconds) for seconds in (0.0004, 0.29, 2)] == [0, 290, 2000]


def test_the_time_now_is_that_of_the_process() -> None:
    before = time.time()
    assert before * 1000 - 1 <= now_milliseconds() <= time.time() * 1000
