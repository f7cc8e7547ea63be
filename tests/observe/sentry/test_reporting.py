"""The reports to Sentry of a run with each kind of step, in this process."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable import Event
from flask_durable import Step

from ...support.harness import Harness
from .conftest import Kept

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PRIVATE = "PRIVATE-TEXT"

Items = list[dict[str, t.Any]]


@pytest.fixture
def kept(make_client: t.Callable[..., Kept]) -> Kept:
    return make_client(traces_sample_rate=1.0)


def transactions(kept: Kept) -> Items:
    return [item for item in kept.items if item.get("type") == "transaction"]


def issues(kept: Kept) -> Items:
    return [item for item in kept.items if "exception" in item]


def attempts(kept: Kept, name: str) -> Items:
    return [item for item in transactions(kept) if item["transaction"] == name]


def spans(item: dict[str, t.Any]) -> list[tuple[str, str, str]]:
    """Return description, kind of step and outcome of each span of a step."""
    return [
        (
            span["description"],
            span["data"]["durable.step.kind"],
            span["data"]["durable.outcome"],
        )
        for span in item["spans"]
        if span["op"] == "function"
    ]


def test_a_branch_is_in_the_trace_of_its_run_under_a_name_without_its_place(
    harness: Harness, kept: Kept
) -> None:
    def inner(step: Step) -> None:
        step.run("deep", str)

    def chunk(item: str, step: Step) -> None:
        step.run("look", str, item)
        step.parallel("parts", one=inner)

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        items = [event.data["private"] * 2, event.data["private"]]
        step.map("chunks", chunk, items)

    harness.send_and_settle("a/b", {"private": PRIVATE})

    first, last = attempts(kept, "work")
    assert spans(first) == [("chunks", "group", "waiting")]
    (group,) = first["spans"]
    assert group["data"]["durable.step.branches"] == 2
    branches = attempts(kept, "work/chunks[]")
    names = [one["contexts"]["trace"]["data"]["durable.branch"] for one in branches]
    assert sorted(names) == ["chunks[0]"] * 2 + ["chunks[1]"] * 2
    assert spans(branches[0]) == [
        ("chunks[]/look", "run", "completed"),
        ("chunks[]/parts", "group", "waiting"),
    ]
    deep = attempts(kept, "work/chunks[]/parts[]")
    assert [spans(one) for one in deep] == [
        [("chunks[]/parts[]/deep", "run", "completed")]
    ] * 2
    assert deep[0]["contexts"]["durable"]["branch"] == "chunks[0]/parts[one]"
    found = [first, last, *branches, *deep]
    assert len({one["contexts"]["trace"]["trace_id"] for one in found}) == 1
    assert PRIVATE not in kept.text


def test_the_branches_of_a_failed_run_are_one_issue_and_tolerated_ones_none(
    harness: Harness, kept: Kept
) -> None:
    @harness.durable.function(on="a/b", retries=0)
    def work(event: Event[t.Any], step: Step) -> None:
        step.map("tolerated", lambda item: 1 // item, [0, 1], tolerate=1)
        step.map("chunks", lambda item: 1 // item, [1, 0])

    run = harness.send_and_settle("a/b")

    (issue,) = issues(kept)
    (error,) = issue["exception"]["values"]
    assert error["type"] == "ZeroDivisionError"
    assert issue["tags"]["durable.step"] == "chunks"
    assert issue["fingerprint"] == ["flask-durable", "work", "chunks"]
    assert issue["contexts"]["durable"]["run_id"] == run.id
    about = issue["contexts"]["branch"]
    assert about["name"] == "1"
    assert "1 // item" in about["traceback"]
    failed = [
        one["contexts"]["trace"]["data"]["durable.branch"]
        for one in transactions(kept)
        if one["contexts"]["trace"]["status"] == "internal_error"
        and "durable.branch" in one["contexts"]["trace"]["data"]
    ]
    assert failed == ["tolerated[0]", "chunks[1]"]


def test_a_wait_is_a_span_of_the_attempt_in_which_it_begins(
    harness: Harness, kept: Kept
) -> None:
    looks = [None, "there"]

    @harness.durable.function(on=None)
    def callee(event: Event[t.Any], step: Step) -> None: ...

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.wait_for_signal("answer", "approve", timeout=60)
        step.wait_for_event("paid", "a/paid", timeout=60)
        step.poll("ready", lambda: looks.pop(0), every=30, timeout=90)
        step.invoke("call", callee)

    harness.send_and_settle("a/b")
    for _ in range(3):
        harness.advance(61)

    assert [spans(one) for one in attempts(kept, "work")] == [
        [("answer", "signal", "waiting")],
        [("paid", "event", "waiting")],
        [("ready", "poll", "waiting")],
        [("ready", "poll", "completed"), ("call", "invoke", "waiting")],
        [],
    ]
