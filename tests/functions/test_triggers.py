from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_durable.errors import DefinitionError
from flask_durable.events.model import EventData
from flask_durable.functions.triggers import matches
from flask_durable.functions.triggers import read_triggers
from flask_durable.functions.triggers import TriggerIndex


class Uploaded(EventData, name="media/uploaded"):
    path: str


class Removed(EventData, name="media/removed"):
    path: str


class Nameless(EventData):
    path: str


words = st.sampled_from(["app", "user", "durable", "created", "a", "user.created"])
names = st.builds(
    lambda parts, separators: "".join(
        part + separator for part, separator in zip(parts, separators, strict=False)
    )[:-1],
    st.lists(words, min_size=1, max_size=4),
    st.lists(st.sampled_from(["/", ".", ":", "-"]), min_size=4, max_size=4),
)


def patterns_of(name: str) -> list[str]:
    cuts = [name[: at + 1] + "*" for at, char in enumerate(name) if char in "/."]
    return [name, "*", *cuts]


@pytest.mark.parametrize("pattern", ["app/user.created", "app/*", "app/user.*", "*"])
def test_an_event_matches_itself_and_the_wildcards_above_it(pattern: str) -> None:
    assert matches(pattern, "app/user.created")


@pytest.mark.parametrize(
    "pattern", ["app/user", "app/user.created.*", "app/us", "ap", "user.*", "app/a.*"]
)
def test_an_event_matches_nothing_else(pattern: str) -> None:
    assert not matches(pattern, "app/user.created")


def test_wildcards_never_match_the_events_of_flask_durable() -> None:
    assert not matches("*", "durable/function.failed")
    assert matches("durable/function.failed", "durable/function.failed")
    index = TriggerIndex.of({"all": ["*"], "failures": ["durable/function.failed"]})
    assert index.match("durable/function.failed") == ["failures"]
    assert index.match("durables/x") == ["all"]


@given(names, st.lists(names, max_size=6), st.data())
def test_the_index_finds_what_matching_each_pattern_finds(
    name: str, others: list[str], data: st.DataObject
) -> None:
    candidates = [p for n in [name, *others] for p in patterns_of(n)]
    chosen = st.lists(st.sampled_from(candidates), unique=True, max_size=4)
    functions = data.draw(st.dictionaries(st.sampled_from("abcdef"), chosen))
    expected = {
        id
        for id, patterns in functions.items()
        if any(matches(pattern, name) for pattern in patterns)
    }
    found = TriggerIndex.of(functions).match(name)
    assert set(found) == expected
    assert len(found) == len(expected)


def test_matching_does_not_look_at_each_function() -> None:
    index = TriggerIndex()
    for number in range(1000):
        index.add(f"other/{number}", f"exact{number}")
        index.add(f"prefix{number}/*", f"wildcard{number}")
    index.add("media/*", "media")
    looked: list[str] = []

    class Counting(dict[str, list[str]]):
        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            looked.append(key)
            return super().get(key, default)

    index._prefixes = Counting(index._prefixes)
    assert index.match("media/uploaded.late") == ["media"]
    assert looked == ["", "media/", "media/uploaded."]


def test_triggers_are_names_classes_and_lists_of_them() -> None:
    assert read_triggers("a/b") == (("a/b",), {}, ())
    assert read_triggers(Uploaded) == (
        ("media/uploaded",),
        {"media/uploaded": Uploaded},
        (),
    )
    assert read_triggers([Uploaded, "audio/*", Removed]) == (
        ("media/uploaded", "audio/*", "media/removed"),
        {"media/uploaded": Uploaded, "media/removed": Removed},
        (),
    )
    assert read_triggers(None) == ((), {}, ())


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ([], "on=None"),
        (["a/b", "a/b"], "twice"),
        (["media/uploaded", Uploaded], "twice"),
        ("media*", 'Wildcards are "media/\\*"'),
        ("media/*/x", "Wildcards"),
        ("*/x", "Wildcards"),
        ("**", "Wildcards"),
        ("", "empty"),
        ("a b", "letters"),
        ("x" * 256, "255"),
        ("durable/*", "durable/function.failed"),
        ("durable/function.*", "matches nothing"),
        (Nameless, "class Nameless\\(EventData, name="),
        (EventData, "no event name"),
        (Uploaded(path="x"), "neither"),
        (7, "neither"),
        ([None], "neither"),
        ([["a/b"]], "neither"),
        (int, "neither"),
    ],
)
def test_other_triggers_are_refused_with_the_fix(on: object, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        read_triggers(on)
