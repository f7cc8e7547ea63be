"""The options of pools, as settings have them."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.scaler.options import parse_pools

ALWAYS = "mon-sun 00:00-24:00"


def test_a_pool_is_called_as_its_queue_and_is_local_unless_it_says_otherwise() -> None:
    [pool] = parse_pools({"media": {"desired_wait": "30s"}})
    assert (pool.name, pool.queues) == ("media", {"media": 30})
    assert pool.platform == {"platform": "local"}
    assert pool.goal.desired_wait == 30
    assert pool.goal.maximum == 100


def test_all_options_are_understood() -> None:
    [pool] = parse_pools(
        {
            "jobs": {
                "queues": ["media", "default"],
                "desired_wait": 30,
                "completion": "10m",
                "minimum": 1,
                "maximum": 20,
                "window": "5m",
                "margin": 2,
                "headroom": 0.05,
                "slots": 4,
                "boot": "45s",
                "period": "15s",
                "floors": {"mon-fri 08:00-18:00": 2},
                "platform": {"platform": "heroku", "app": "a"},
            }
        }
    )
    assert pool.queues == {"media": 30, "default": 30}
    assert (pool.goal.completion, pool.goal.window) == (600, 300)
    assert (pool.slots, pool.boot, pool.period) == (4, 45, 15)
    assert pool.floors[0].workers == 2
    assert pool.platform["app"] == "a"


def test_queues_of_one_pool_may_have_a_wait_each() -> None:
    [pool] = parse_pools({"jobs": {"queues": {"mail": "10s", "media": "5m"}}})
    assert pool.queues == {"mail": 10, "media": 300}
    assert pool.goal.desired_wait == 10


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ([], "must be a dictionary"),
        ({"jobs": {"queues": {}}}, "queues is empty"),
        ({"jobs": {"queues": {"a": 1}, "desired_wait": 1}}, "leave out desired_wait"),
        ({"media": 30}, "must have a dictionary"),
        ({"media": {}}, "must have a desired_wait"),
        ({"media": {"desired_wait": 1, "maximun": 3}}, "did you mean 'maximum'"),
        ({"media": {"desired_wait": 0}}, "positive"),
        ({"media": {"desired_wait": 1, "minimum": 2, "maximum": 1}}, "range"),
        ({"media": {"desired_wait": 1, "maximum": "3"}}, "whole number"),
        ({"media": {"desired_wait": 1, "platform": {"app": "a"}}}, "'platform'"),
        ({"media": {"desired_wait": 1, "floors": {"never": 1}}}, "written as"),
        ({"media": {"desired_wait": 1, "floors": []}}, "floors is not"),
        (
            {"media": {"desired_wait": 1, "maximum": 1, "floors": {ALWAYS: 2}}},
            "a floor is above",
        ),
        ({"media": {"desired_wait": 1, "period": 0}}, "period is not a positive"),
        ({"media": {"desired_wait": 1, "slots": 0}}, "slots is 0"),
        ({"media": {"desired_wait": 1, "completion": 0}}, "completion is not"),
        ({"media": {"desired_wait": 1, "headroom": 0}}, "headroom is not a share"),
        ({"media": {"desired_wait": 1, "headroom": "nan"}}, "headroom is not a share"),
        ({"media": {"desired_wait": 1, "margin": -1}}, "margin is not"),
        ({"media": {"desired_wait": 1, "margin": "nan"}}, "margin is not"),
    ],
)
def test_what_is_wrong_with_a_pool_is_said(wrong: t.Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_pools(wrong)
