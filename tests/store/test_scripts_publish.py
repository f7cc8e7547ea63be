"""``functions_publish``, ``functions_forget`` and ``barrier``: what a namespace has."""

from __future__ import annotations

import json
import typing as t

import pytest

from .kit import Kit

HOUR = 3600
GONE = 180


def publish(kit: Kit, *names: str, **crons: t.Sequence[str]) -> int:
    """Publish versions such as ``"a 1"``.

    :param crons: The expressions of each name's schedules, with ``_`` for the blank.
    """
    args: list[str | int] = [HOUR * 1000, GONE * 1000]
    for name in names:
        schedules = [
            {"expression": expression, "timezone": "UTC"}
            for expression in crons.get(name.replace(" ", "_"), ())
        ]
        args += [name, json.dumps({"crons": schedules})]
    return int(kit.server.call("functions_publish", kit.keys.root, *args))


def known(kit: Kit) -> set[str]:
    return set(t.cast("list[str]", kit.client.hkeys(f"{kit.keys.root}:functions")))


def ages(kit: Kit) -> list[str]:
    """Return the versions, that which came to life first at first."""
    return kit.members("functions:first")


def mark(kit: Kit, version: int, *schedules: str) -> list[str]:
    """Look at schedules; return all that have a mark then."""
    args: list[str | int] = [7 * 24 * HOUR * 1000, version]
    for schedule in schedules:
        args += [schedule, 0]
    kit.server.call("cron_marks", kit.keys.root, *args)
    return sorted(kit.members("schedules"))


def test_the_version_changes_with_every_change_and_with_nothing_else(kit: Kit) -> None:
    first = publish(kit, "a 1")
    assert publish(kit, "a 1") == first
    second = publish(kit, "a 1", "b 1")
    assert second != first
    assert publish(kit, "b 1") == second
    assert publish(kit) == second
    third = publish(kit, "a 2")
    assert third not in (first, second)
    assert known(kit) == {"a 1", "a 2", "b 1"}


def test_an_empty_directory_has_a_version(kit: Kit) -> None:
    assert publish(kit) == 0


def test_a_function_that_nobody_has_for_an_hour_is_forgotten(kit: Kit) -> None:
    first = publish(kit, "old 1", "kept 1")
    kit.advance(HOUR / 2)
    assert publish(kit, "kept 1") == first
    kit.advance(HOUR / 2 + 1)

    assert publish(kit, "kept 1") != first

    assert known(kit) == {"kept 1"}
    assert kit.members("functions:seen") == ages(kit) == ["kept 1"]


def test_a_version_that_nobody_has_goes_sooner_where_another_one_is_alive(
    kit: Kit,
) -> None:
    publish(kit, "a 1", "b 1")
    kit.advance(GONE / 2)
    publish(kit, "a 2")
    kit.advance(GONE / 2 + 1)

    publish(kit, "a 2")

    assert known(kit) == {"a 2", "b 1"}


def test_versions_that_nobody_has_wait_for_one_that_is_alive(kit: Kit) -> None:
    publish(kit, "a 1")
    publish(kit, "a 2")
    kit.advance(2 * GONE)

    publish(kit, "b 1")
    assert known(kit) == {"a 1", "a 2", "b 1"}
    publish(kit, "a 1")
    assert known(kit) == {"a 1", "b 1"}


def test_the_newest_version_is_the_one_that_came_to_life_last(kit: Kit) -> None:
    publish(kit, "a 1")
    kit.advance(1)
    publish(kit, "a 2")
    kit.advance(1)
    publish(kit, "a 1")  # one more process that has the older one
    assert ages(kit) == ["a 1", "a 2"]

    kit.advance(GONE)
    publish(kit, "a 2")
    kit.advance(1)
    publish(kit, "a 1")  # rolled back
    assert ages(kit) == ["a 2", "a 1"]


def test_a_schedule_that_the_newest_version_lacks_loses_its_mark(kit: Kit) -> None:
    version = publish(kit, "a 1", "b 1", a_1=["3", "4"], b_1=["3"])
    assert mark(kit, version, "a 3 UTC", "a 4 UTC", "b 3 UTC") == [
        *("a 3 UTC", "a 4 UTC", "b 3 UTC")
    ]
    kit.advance(1)

    version = publish(kit, "a 2", a_2=["4", "5"])
    assert mark(kit, version) == ["a 4 UTC", "b 3 UTC"]
    assert mark(kit, version, "a 5 UTC") == ["a 4 UTC", "a 5 UTC", "b 3 UTC"]


def test_the_version_that_is_left_does_not_find_marks_of_newer_ones(kit: Kit) -> None:
    publish(kit, "a 1", a_1=["3", "4"])
    kit.advance(1)
    version = publish(kit, "a 2", a_2=["4", "5"])
    mark(kit, version, "a 4 UTC", "a 5 UTC")
    kit.advance(GONE + 1)

    version = publish(kit, "a 1", a_1=["3", "4"])

    assert mark(kit, version) == ["a 4 UTC"]


def test_a_function_that_nobody_has_keeps_its_marks(kit: Kit) -> None:
    mark(kit, publish(kit, "a 1", a_1=["3"]), "a 3 UTC")
    kit.advance(HOUR + 1)

    assert mark(kit, publish(kit, "b 1")) == ["a 3 UTC"]
    assert known(kit) == {"b 1"}


def test_a_mark_of_a_directory_that_changed_since_is_not_written(kit: Kit) -> None:
    before = publish(kit, "a 1", a_1=["3"])
    mark(kit, before, "a 3 UTC")
    kit.advance(1)
    publish(kit, "a 2", a_2=["4"])

    with kit.unchanged():
        assert mark(kit, before, "a 3 UTC") == []


@pytest.mark.parametrize("description", ["no JSON", "[]", "{}", '{"crons": [1, {}]}'])
def test_a_description_that_is_not_understood_is_no_obstacle(
    kit: Kit, description: str
) -> None:
    for version in ("1", "2"):
        args = [HOUR * 1000, GONE * 1000, f"a {version}", description]
        kit.server.call("functions_publish", kit.keys.root, *args)

    assert known(kit) == {"a 1", "a 2"}


def test_many_functions_that_nobody_has_are_forgotten_at_once(kit: Kit) -> None:
    publish(kit, *(f"f{number} 1" for number in range(150)))
    kit.advance(HOUR + 1)

    publish(kit, "a 1")

    assert known(kit) == {"a 1"}


# -- Forgetting on request ------------------------------------------------------------


def forget(kit: Kit, id: str) -> str:
    reply = kit.server.call("functions_forget", kit.keys.root, id, GONE * 1000)
    return str(reply[0])


def test_a_function_that_nobody_has_is_forgotten_with_its_marks(kit: Kit) -> None:
    before = publish(kit, "a 1", "a.b 1", a_1=["3"])
    mark(kit, before, "a 3 UTC", "a.b 3 UTC")
    kit.advance(GONE + 1)

    assert forget(kit, "a") == "gone"

    assert known(kit) == {"a.b 1"}
    assert kit.members("schedules") == ["a.b 3 UTC"]
    assert publish(kit) != before


def test_a_function_that_a_process_has_is_not_forgotten(kit: Kit) -> None:
    publish(kit, "a 1")
    publish(kit, "a 2")
    kit.advance(GONE + 1)
    publish(kit, "b 1")
    kit.client.zadd(f"{kit.keys.root}:functions:seen", {"a 1": kit.now()})

    with kit.unchanged():
        assert forget(kit, "a") == "alive"
        assert forget(kit, "unknown") == "gone"


def test_a_barrier_writes_one_small_key(kit: Kit) -> None:
    before = kit.now()
    kit.server.repeats = False

    assert before <= int(kit.server.call("barrier", kit.keys.root)) <= kit.now()

    assert list(kit.dump()) == [f"{kit.keys.root}:barrier"]
