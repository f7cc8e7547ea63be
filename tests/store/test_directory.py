"""The directory: the union of what all processes can run, and who is alive."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.redis.exchange import execute
from flask_durable.store.directory import Directory
from flask_durable.store.directory import names_of
from flask_durable.store.directory import VERSION_LEFT
from flask_durable.store.directory import WORKER_GONE
from flask_durable.store.keys import Keys

from ..support.servers import wait_until
from .kit import Kit

HOUR = 3600


@pytest.fixture
def directory(kit: Kit) -> Directory:
    return Directory(kit.server, kit.keys)


def other(kit: Kit, **given: t.Any) -> Directory:
    """Return the directory as another process has it."""
    options = {"namespace": "n", "partitions": 1, **given}
    return Directory(kit.server, Keys(**options))


def spec(id: str, version: str = "1") -> dict[str, dict[str, t.Any]]:
    return {id: {"id": id, "version": version, "triggers": ["a/*"], "where": False}}


# -- Functions ------------------------------------------------------------------------


def test_a_process_reads_the_union_of_what_all_published(
    kit: Kit, directory: Directory
) -> None:
    directory.publish(spec("old") | spec("both"))
    other(kit).publish(spec("both") | spec("new"))

    functions = directory.current().functions

    assert set(functions) == {"old", "both", "new"}
    assert functions["new"] == spec("new")["new"]


def test_what_is_remembered_stays_one_object_while_it_is_the_same(
    directory: Directory,
) -> None:
    directory.publish(spec("a"))
    first = directory.current()

    assert directory.current() is first
    assert directory.remembered is first


def test_a_version_lost_in_a_failover_is_not_given_again(
    kit: Kit, directory: Directory
) -> None:
    key = f"{kit.keys.root}:functions"
    directory.publish(spec("a"))
    before = kit.client.get(f"{key}:version")
    directory.publish(spec("b"))
    lost = directory.current()
    kit.client.hdel(key, *names_of(spec("b")))
    kit.client.set(f"{key}:version", str(before))

    wait_until(lambda: kit.now() > lost.version)
    directory.publish(spec("c"))

    assert directory.current().version != lost.version


def test_a_change_is_seen_by_its_version(kit: Kit, directory: Directory) -> None:
    directory.publish(spec("a"))
    first = directory.current()
    other(kit).publish(spec("b"))
    version = execute(kit.client, *directory.version_command)

    second = directory.current()

    assert int(version) == second.version != first.version
    assert set(second.functions) == {"a", "b"}
    assert directory.remembered is second


def test_publishing_the_same_again_is_no_change(kit: Kit, directory: Directory) -> None:
    directory.publish(spec("a") | spec("b"))
    first = directory.current()
    directory.publish({"a": dict(reversed(spec("a")["a"].items()))})

    assert directory.current().version == first.version


def version(number: int, *triggers: str, where: bool = False) -> dict[str, t.Any]:
    common = {"id": "a", "queue": f"q{number}", "crons": [number]}
    return {"a": {**common, "triggers": list(triggers), "where": where}}


@pytest.mark.parametrize("first", [1, 2])
def test_all_versions_say_what_starts_a_function_and_the_newest_one_the_rest(
    kit: Kit, directory: Directory, first: int
) -> None:
    versions = {1: version(1, "a/b", where=True), 2: version(2, "a/c", "a/b")}
    directory.publish(versions[first])
    kit.advance(1)
    other(kit).publish(versions[3 - first])

    published = directory.current()

    function = published.functions["a"]
    assert set(function["triggers"]) == {"a/b", "a/c"}
    assert function["crons"] == [3 - first]
    assert function["where"]
    assert published.queues == {"q1", "q2"}
    assert [v["crons"][0] for v in published.versions["a"]] == [3 - first, first]


def test_a_version_whose_last_process_left_is_soon_forgotten(
    kit: Kit, directory: Directory
) -> None:
    old, new = version(1, "a/b"), version(2, "a/c")
    for each in (old, new):
        directory.publish(each)
        kit.advance(1)
    directory.beat("w1", {}, names_of(old))
    directory.beat("w2", {}, names_of(new))
    directory.leave("w2", names_of(new))

    kit.advance(VERSION_LEFT / 1000 - 1)
    directory.beat("w1", {}, names_of(old))
    directory.forget_stale()
    assert directory.current().functions["a"]["crons"] == [2]
    kit.advance(2)
    directory.forget_stale()

    assert directory.current().functions["a"] == old["a"]


def test_a_version_that_another_process_has_stays_when_one_leaves(
    kit: Kit, directory: Directory
) -> None:
    old, new = version(1, "a/b"), version(2, "a/c")
    directory.publish(old)
    directory.publish(new)
    directory.leave("w2", names_of(new))
    directory.beat("w3", {}, names_of(new))
    kit.advance(VERSION_LEFT / 1000 + 1)
    directory.forget_stale()

    assert directory.current().names.issuperset(names_of(new))


def test_a_function_is_alive_while_a_process_has_it(
    kit: Kit, directory: Directory
) -> None:
    directory.publish(spec("a") | spec("b"))
    assert directory.alive() == {"a", "b"}
    directory.leave("w1", names_of(spec("a")))

    assert directory.alive() == {"b"}
    assert not directory.forget("b")
    assert directory.forget("a")
    assert set(directory.current().functions) == {"b"}


def test_a_version_that_lost_its_age_counts_as_the_oldest(
    kit: Kit, directory: Directory
) -> None:
    directory.publish(version(1, "a/b"))
    kit.advance(1)
    directory.publish(version(2, "a/c"))
    name = names_of(version(2, "a/c"))[0]
    kit.client.zrem(f"{kit.keys.root}:functions:first", name)

    assert other(kit).current().functions["a"]["crons"] == [1]


def test_before_anything_is_published_nothing_is_known(directory: Directory) -> None:
    published = directory.current()

    assert (published.version, published.functions) == (0, {})
    assert directory.current() is published


def test_a_function_lives_as_long_as_a_worker_that_can_run_it(
    kit: Kit, directory: Directory
) -> None:
    directory.publish(spec("alive") | spec("dead"))
    for _ in range(3):
        kit.advance(HOUR * 0.7)
        directory.beat("w1", {"id": "w1"}, names_of(spec("alive")))
    directory.publish(spec("new"))

    assert set(directory.current().functions) == {"alive", "new"}


def test_a_beat_does_not_publish(kit: Kit, directory: Directory) -> None:
    directory.beat("w1", {"id": "w1"}, ["unknown 1"])

    assert kit.members("functions:seen") == []
    assert directory.current().functions == {}


# -- Workers --------------------------------------------------------------------------


def pass_time(kit: Kit, seconds: float) -> None:
    key = f"{kit.keys.root}:workers:seen"
    for worker in t.cast("list[str]", kit.client.zrange(key, 0, -1)):
        kit.client.zincrby(key, -seconds, worker)


def test_a_worker_that_beats_is_alive(kit: Kit, directory: Directory) -> None:
    description = {"id": "w1", "queues": ["default"], "threads": 8}
    directory.beat("w1", description, [])
    pass_time(kit, WORKER_GONE - 2)

    assert other(kit).workers() == [description]


def test_a_worker_that_says_nothing_counts_as_gone(
    kit: Kit, directory: Directory
) -> None:
    directory.beat("w1", {"id": "w1"}, [])
    directory.beat("w2", {"id": "w2"}, [])
    pass_time(kit, WORKER_GONE + 1)
    directory.beat("w2", {"id": "w2", "busy": 1}, [])

    assert directory.workers() == [{"id": "w2", "busy": 1}]


def test_a_worker_that_leaves_is_gone_at_once(directory: Directory) -> None:
    directory.beat("w1", {"id": "w1"}, [])
    directory.leave("w1")

    assert directory.workers() == []


def test_no_worker_is_known_at_first(directory: Directory) -> None:
    assert directory.workers() == []


def test_what_is_left_of_dead_workers_is_removed(
    kit: Kit, directory: Directory
) -> None:
    for number in range(5):
        directory.beat(f"w{number}", {"id": number}, [])
    pass_time(kit, 11 * WORKER_GONE)
    directory.beat("alive", {"id": "alive"}, [])

    assert kit.client.hkeys(f"{kit.keys.root}:workers") == ["alive"]
    assert kit.members("workers:seen") == ["alive"]


# -- The namespace --------------------------------------------------------------------


def test_a_namespace_belongs_to_the_app_that_came_first(
    kit: Kit, directory: Directory
) -> None:
    directory.claim_namespace("shop")
    other(kit).claim_namespace("shop")

    with pytest.raises(ConfigurationError, match="'shop'") as raised:
        other(kit).claim_namespace("blog")
    assert "DURABLE_NAMESPACE" in str(raised.value)
    other(kit, namespace="m").claim_namespace("blog")


def test_a_refused_app_leaves_no_trace(kit: Kit, directory: Directory) -> None:
    directory.claim_namespace("shop")

    with kit.unchanged(), pytest.raises(ConfigurationError):
        other(kit).claim_namespace("blog")


@pytest.mark.parametrize(("first", "second"), [(1, 4), (4, 1)])
def test_the_number_of_partitions_cannot_be_changed(
    kit: Kit, first: int, second: int
) -> None:
    other(kit, partitions=first).claim_namespace("shop")

    with kit.unchanged(), pytest.raises(ConfigurationError, match=f"{first} part"):
        other(kit, partitions=second).claim_namespace("shop")


def test_descriptions_are_stored_as_text_that_compares(
    kit: Kit, directory: Directory
) -> None:
    function = {"z": 1, "b": "ü"}
    directory.publish({"a": function})

    (name,) = names_of({"a": function})
    stored = kit.client.hget(f"{kit.keys.root}:functions", name)

    assert json.loads(str(stored)) == {"b": "ü", "z": 1}
