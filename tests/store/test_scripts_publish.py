"""``functions_publish`` and ``barrier``: what belongs to a namespace as a whole."""

from __future__ import annotations

from .kit import Kit

HOUR = 3600


def publish(kit: Kit, **functions: str) -> int:
    args: list[str | int] = [HOUR * 1000]
    for id, description in functions.items():
        args += [id, description]
    return int(kit.server.call("functions_publish", kit.keys.root, *args))


def known(kit: Kit) -> dict[str, str]:
    return kit.client.hgetall(f"{kit.keys.root}:functions")  # type: ignore[return-value]


def test_the_version_changes_with_every_change_and_with_nothing_else(kit: Kit) -> None:
    first = publish(kit, a="1")
    assert publish(kit, a="1") == first
    second = publish(kit, a="1", b="1")
    assert second != first
    assert publish(kit, b="1") == second
    assert publish(kit) == second
    third = publish(kit, a="2")
    assert third not in (first, second)
    assert known(kit) == {"a": "2", "b": "1"}


def test_an_empty_directory_has_a_version(kit: Kit) -> None:
    assert publish(kit) == 0


def test_a_function_that_nobody_published_for_an_hour_is_forgotten(kit: Kit) -> None:
    first = publish(kit, old="1", kept="1")
    kit.advance(HOUR / 2)
    assert publish(kit, kept="1") == first
    kit.advance(HOUR / 2 + 1)

    assert publish(kit, kept="1") != first

    assert known(kit) == {"kept": "1"}
    assert kit.members("functions:seen") == ["kept"]


def test_a_description_is_kept_as_it_is(kit: Kit) -> None:
    text = '{"a": "\u2603 %s\\n"}\n'
    publish(kit, a=text)
    assert known(kit) == {"a": text}


def test_many_functions_that_were_forgotten_go_in_steps(kit: Kit) -> None:
    kit.server.repeats = False
    publish(kit, **{f"f{number}": "1" for number in range(150)})
    kit.advance(HOUR + 1)

    publish(kit, a="1")
    assert len(known(kit)) == 51
    publish(kit, a="1")
    assert known(kit) == {"a": "1"}


def test_a_barrier_writes_one_small_key(kit: Kit) -> None:
    before = kit.now()
    kit.server.repeats = False

    assert before <= int(kit.server.call("barrier", kit.keys.root)) <= kit.now()

    assert list(kit.dump()) == [f"{kit.keys.root}:barrier"]
