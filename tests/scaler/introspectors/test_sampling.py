"""The sample that stands for a queue too long to be looked at as a whole."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from flask_durable.scaler.introspectors.sampling import Census
from flask_durable.scaler.introspectors.sampling import draw
from flask_durable.scaler.introspectors.sampling import DRAWN
from flask_durable.scaler.introspectors.sampling import Job
from flask_durable.scaler.introspectors.sampling import MOST_EXACT
from flask_durable.scaler.introspectors.sampling import positions
from flask_durable.scaler.introspectors.sampling import shares
from flask_durable.scaler.introspectors.sampling import tally
from flask_durable.scaler.introspectors.sampling import weights

LENGTHS = st.dictionaries(st.text(max_size=3), st.integers(0, 200_000), max_size=5)


@given(LENGTHS, st.integers())
def test_positions_are_in_order_inside_the_queue_and_not_many(
    lengths: dict[str, int], seed: int
) -> None:
    drawn = positions(lengths, random.Random(seed))
    assert drawn.keys() == lengths.keys()
    for queue, places in drawn.items():
        assert places == sorted(set(places))
        assert all(0 <= place < lengths[queue] for place in places)
        assert bool(places) == bool(lengths[queue])
    total = sum(lengths.values())
    looked = sum(map(len, drawn.values()))
    assert looked == total if total <= MOST_EXACT else looked <= DRAWN + len(lengths)


@given(st.integers(0, 10_000), st.integers(1, 500), st.integers())
def test_each_job_that_is_drawn_stands_for_those_around_it(
    length: int, most: int, seed: int
) -> None:
    drawn = draw(length, most, random.Random(seed))
    assert len(drawn) == min(length, most)
    numbers = weights(length, len(drawn))
    assert sum(numbers) == (length if drawn else 0)
    first = 0
    for place, number in zip(drawn, numbers, strict=True):
        assert first <= place < first + number
        first += number


@given(st.integers(0, 10**6), st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_shares_add_up_and_are_next_to_the_exact_ones(
    total: int, ratio: list[int]
) -> None:
    parts = shares(total, ratio)
    assert sum(parts) == total
    for part, weight in zip(parts, ratio, strict=True):
        assert abs(part - total * weight / sum(ratio)) < 1


def test_a_queue_that_is_filled_in_turns_is_not_taken_for_one_function() -> None:
    length = 100_000
    drawn = positions({"q": length}, random.Random(1))["q"]
    # Every hundredth job is of the same function: a fixed stride would see only that.
    looked: list[Job | None] = [Job("ba"[bool(n % 100)]) for n in drawn]
    groups, sample = tally(length, looked, 0.0)
    assert sample is not None
    assert sample.jobs == length
    jobs = Counter[str]()
    for group in groups:
        jobs[group.function] += group.jobs
    assert sum(jobs.values()) == length
    assert 0 <= jobs["b"] < 3_000


def test_a_queue_that_is_looked_at_as_a_whole_is_exact() -> None:
    looked: list[Job | None] = [Job("a", float(n)) for n in range(100)]
    looked += [None, Job("b")]
    groups, sample = tally(102, looked, 1000.0)
    assert sample is None
    assert sum(g.jobs for g in groups if g.function == "a") == 100
    assert max(g.oldest for g in groups) == 1000.0
    assert len([g for g in groups if g.function == "a"]) <= 12
    assert [(g.jobs, g.oldest) for g in groups if g.function == "b"] == [(1, 0.0)]


def test_jobs_that_went_while_some_were_looked_at_are_not_counted() -> None:
    looked: list[Job | None] = [Job("a"), None] * 500
    groups, sample = tally(10_000, looked, 0.0)
    assert sum(group.jobs for group in groups) == 5_000
    assert sample is not None
    assert (sample.jobs, sample.size) == (5_000, 500)


def test_a_function_in_several_queues_is_of_the_first() -> None:
    census = Census(1_000.0, 60.0)
    census.count("urgent", 1, [Job("work")])
    census.count("patient", 2, [Job("work"), Job("other")])
    assert census.queues == {"work": "urgent", "other": "patient"}
    assert sum(group.jobs for group in census.waiting) == 3
