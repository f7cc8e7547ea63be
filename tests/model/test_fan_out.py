"""Fan-out: branches of one step, executed by any worker."""

from __future__ import annotations

import functools
import pathlib
import re
import typing as t
from collections import Counter
from datetime import date
from datetime import timedelta

import pytest

from flask_durable import Backoff
from flask_durable import BranchError
from flask_durable import current_run
from flask_durable import Event
from flask_durable import FunctionFinished
from flask_durable import NonRetriable
from flask_durable import Run
from flask_durable import RunStateError
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepUsageError
from flask_durable.app.health import HealthChecks
from flask_durable.engine.steps import branches
from flask_durable.messages import RunMessage
from flask_durable.scaler.introspectors.own import RunSensor
from flask_durable.store import branches as store
from flask_durable.store.branches import read_outcomes
from flask_durable.store.branches import start_branches
from flask_durable.store.branches import store_branches
from flask_durable.store.replies import NotOwner

from ..support.harness import Harness

AnyEvent = Event[t.Any]
Body = t.Callable[[AnyEvent, Step], t.Any]


def parent_that(harness: Harness, body: Body, **options: t.Any) -> None:
    """Declare the function that ``a/b`` starts."""
    harness.durable.function(on="a/b", id="parent", **{"retries": 0, **options})(body)


def test_parallel_returns_the_results_by_name(any_harness: Harness) -> None:
    """2.4: branches are found again by name."""

    def body(event: AnyEvent, step: Step) -> t.Any:
        before = step.run("before", lambda: 1)
        made = step.parallel(
            "media",
            audio=lambda step: step.run("cut", lambda: before + 1),
            cover=lambda step: "cover",
        )
        return [made, step.run("after", lambda: 2)]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.COMPLETED
    assert run.result == [{"audio": 2, "cover": "cover"}, 2]
    assert [step.name for step in run.steps] == ["before", "media", "after"]


def test_map_returns_the_results_in_the_order_of_the_items(
    any_harness: Harness,
) -> None:
    """2.5: a plain callable is one step for each item; results keep the order."""

    def body(event: AnyEvent, step: Step) -> t.Any:
        return step.map("chunks", lambda chunk: chunk * 2, ["a", "b", "c"])

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert (run.status, run.result) == (RunStatus.COMPLETED, ["aa", "bb", "cc"])


def branches_of(harness: Harness, run: Run) -> dict[str, Run]:
    """Return the branches of a run by name."""
    found = harness.runs.list(parent=run.id, limit=1000)
    return {t.cast(str, branch.branch): harness.runs.get(branch.id) for branch in found}


def waiting(harness: Harness, event: str = "a/b") -> Run:
    """Send an event, and return its run once that waits."""
    run = harness.send_and_settle(event)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "branches")
    return run


def again(harness: Harness, run: Run) -> Run:
    """Settle, and return the run as it is then."""
    harness.settle()
    return t.cast(Run, harness.runs.get(run.id))


def dying_after_its_first_page(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the worker that makes branches die between the first two pages of two."""
    died: list[str] = []

    def dying(*args: t.Any) -> t.Any:
        reply = start_branches(*args)
        if not died and args[3].total > 2:
            died.append(args[2])
            raise NotOwner(cancelled=False)  # it writes nothing more
        return reply

    monkeypatch.setattr(branches, "start_branches", dying)
    monkeypatch.setattr(branches, "BRANCHES_PAGE", 2)
    harness.in_place = 0


def lists_of(harness: Harness) -> list[str]:
    """Return the keys of stored lists."""
    client = harness.state.store.server.client
    prefix = harness.state.store.keys.tag_of("x").partition(":")[0]
    return [key for key in client.scan_iter(f"{prefix}*") if ":list:" in key]


# -- 2.4: names ----------------------------------------------------------------------


def test_the_items_are_those_of_the_first_time(any_harness: Harness) -> None:
    """2.4: a later change of the list's source changes nothing."""
    source = ["a", "b"]
    read: list[str] = []

    def items() -> t.Iterator[str]:
        for item in source:
            read.append(item)
            yield item

    def double(item: str, step: Step) -> str:
        step.sleep("night", "1d")
        return item * 2

    parent_that(any_harness, lambda event, step: step.map("x", double, items()))
    run = waiting(any_harness)
    source[:] = ["c"]
    any_harness.advance(2 * 86400)
    assert again(any_harness, run).result == ["aa", "bb"]
    assert read == ["a", "b"]


def test_a_list_that_changes_between_two_pages_changes_nothing(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.4: the places are those of the list that was stored, whatever dies."""
    source = ["a", "b", "c", "d", "e"]
    dying_after_its_first_page(any_harness, monkeypatch)
    parent_that(
        any_harness, lambda event, step: step.map("x", lambda item: item * 2, source)
    )
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    source.insert(0, "new")
    any_harness.expire_leases()
    any_harness.settle()
    assert any_harness.run_of(event).result == ["aa", "bb", "cc", "dd", "ee"]


def test_keys_that_change_between_two_pages_change_nothing(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.4: the same with ``key``, also in a branch: what it returned is stored."""
    source = ["a", "b", "c"]
    dying_after_its_first_page(any_harness, monkeypatch)

    def inner(step: Step) -> t.Any:
        return step.map("x", lambda item: item * 2, source, key=lambda i: f"of-{i}")

    parent_that(any_harness, lambda event, step: step.parallel("m", a=inner))
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    any_harness.execute()
    source[:] = ["z"]
    any_harness.expire_leases()
    any_harness.settle()
    run = any_harness.run_of(event)
    assert run.result == {"a": ["aa", "bb", "cc"]}
    [branch] = any_harness.runs.list(parent=run.id, limit=1)
    names = {name.rpartition("/")[2] for name in branches_of(any_harness, branch)}
    assert names == {"x[of-a]", "x[of-b]", "x[of-c]"}


def test_a_retry_after_a_death_between_two_pages_has_the_new_list(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.4: a run that a person retries has the items that the list has then."""
    source = ["a", "b", "c"]
    dying_after_its_first_page(any_harness, monkeypatch)
    parent_that(
        any_harness,
        lambda event, step: step.map("x", lambda i: i * 2, source, key=lambda i: i),
    )
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    run = any_harness.run_of(event)
    any_harness.runs.cancel(run.id)
    any_harness.sweep()
    source[:] = ["c", "d", "e"]
    any_harness.runs.retry(run.id)
    assert again(any_harness, run).result == ["cc", "dd", "ee"]
    assert lists_of(any_harness) == []


def test_a_death_while_the_list_is_stored_leaves_nothing_of_it(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.4: a list that is not complete has no branches, and is written over."""
    source = ["a", "b", "c"]
    stored: list[int] = []

    def dying(*args: t.Any) -> t.Any:
        reply = store_branches(*args)
        stored.append(args[4])
        if len(stored) == 1:
            raise NotOwner(cancelled=False)
        return reply

    monkeypatch.setattr(branches, "store_branches", dying)
    monkeypatch.setattr(branches, "BRANCHES_PAGE", 2)
    any_harness.in_place = 0
    parent_that(any_harness, lambda event, step: step.map("x", str.upper, source))
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    run = any_harness.run_of(event)
    assert branches_of(any_harness, run) == {}
    source[:] = ["d", "e", "f", "g"]
    any_harness.expire_leases()
    any_harness.settle()
    assert again(any_harness, run).result == ["D", "E", "F", "G"]
    assert stored == [0, 0, 2]
    assert lists_of(any_harness) == []


def test_items_that_have_no_room_are_not_stored(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.9: the bound in bytes holds before anything is stored."""
    monkeypatch.setattr(branches, "BRANCHES_PAGE", 2)
    monkeypatch.setattr(store, "MAX_MEMO_BYTES", 40)
    parent_that(
        harness, lambda event, step: step.map("x", str, ["a" * 10] * 4, tolerate=4)
    )
    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert branches_of(harness, run) == {}
    assert lists_of(harness) == []


def test_a_key_names_the_branch_of_an_item(any_harness: Harness) -> None:
    """2.4: ``key(item)`` is the name of the branch where it is given."""

    def body(event: AnyEvent, step: Step) -> t.Any:
        items = [{"id": 7}, {"id": 3}]
        return step.map("x", lambda item: item["id"], items, key=lambda i: i["id"])

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == [7, 3]
    assert set(branches_of(any_harness, run)) == {"x[7]", "x[3]"}


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (lambda item: "same", "Two items of step 'x' have the key 'same'"),
        (lambda item: None, "None is not the key"),
        (lambda item: "", "'' is not the key"),
        (lambda item: "a\nb", "is not the key"),
    ],
)
def test_a_key_that_names_no_branch_is_refused(
    any_harness: Harness, key: t.Any, what: str
) -> None:
    """2.4: two equal keys are a StepUsageError."""

    def body(event: AnyEvent, step: Step) -> t.Any:
        with pytest.raises(StepUsageError) as caught:
            step.map("x", str, [1, 2], key=key)
        return str(caught.value)

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert what in run.result
    assert branches_of(any_harness, run) == {}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"limit": 0}, "cannot have 0 branches under way"),
        ({"tolerate": -1}, "cannot tolerate -1"),
        ({"items": range(1001)}, "has 1001 branches, and 1000 are the most"),
        ({"items": [object()]}, "Item '0' of step 'x' cannot be stored"),
    ],
)
def test_a_map_that_cannot_be_is_refused(
    harness: Harness, options: dict[str, t.Any], what: str
) -> None:
    """2.9: more than 1,000 branches are a StepUsageError with the way out."""

    def body(event: AnyEvent, step: Step) -> t.Any:
        given = {"items": [1], **options}
        with pytest.raises(StepUsageError) as caught:
            step.map("x", str, given.pop("items"), **given)
        return str(caught.value)

    parent_that(harness, body)
    run = harness.send_and_settle("a/b")
    assert what in run.result


def test_no_branches_are_no_work(any_harness: Harness) -> None:
    """2.5: a map of nothing, and a parallel of nothing, are done at once."""
    parent_that(
        any_harness,
        lambda event, step: [step.map("x", str, []), step.parallel("y")],
    )
    run = any_harness.send_and_settle("a/b")
    assert run.result == [[], {}]
    assert [step.status for step in run.steps] == ["done", "done"]


# -- 2.5: a callable for each item ---------------------------------------------------


def test_a_callable_of_an_item_is_one_step_with_its_own_retries(
    any_harness: Harness,
) -> None:
    """2.5: a plain callable is one step for each item, with the tools' options."""
    calls: list[tuple[int, int]] = []

    def body(event: AnyEvent, step: Step) -> t.Any:
        def flaky(item: int) -> int:
            assert current_run.step is not None
            calls.append((item, current_run.step.attempt))
            if item == 1 and current_run.step.attempt == 1:
                raise OSError("not yet")
            return item * 10

        return step.options(retries=1, backoff=Backoff("1s")).map("x", flaky, [0, 1])

    parent_that(any_harness, body)
    run = waiting(any_harness)
    branch = branches_of(any_harness, run)["x[1]"]
    assert (branch.status, branch.reason) == (RunStatus.SUSPENDED, "retry")
    any_harness.advance(60)
    assert again(any_harness, run).result == [0, 10]
    assert sorted(calls) == [(0, 1), (1, 1), (1, 2)]


def test_items_and_results_come_back_as_their_types(any_harness: Harness) -> None:
    """2.5: annotations say how an item and a result are stored."""

    def next_day(day: date) -> date:
        return day + timedelta(days=1)

    def body(event: AnyEvent, step: Step) -> str:
        return repr(step.map("x", next_day, [date(2026, 1, 1)]))

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == "[datetime.date(2026, 1, 2)]"


def test_a_step_function_brings_its_options(harness: Harness) -> None:
    """2.5: ``@durable.step`` functions are steps with their own options."""

    @harness.durable.step(retries=0)
    def refuse(item: int) -> int:
        raise OSError("no")

    parent_that(harness, lambda event, step: step.map("x", refuse, [1]), retries=5)
    run = harness.send_and_settle("a/b")
    assert (run.status, run.failure.message) == (RunStatus.FAILED, "no")


# -- 2.6: any worker -----------------------------------------------------------------


def test_only_so_many_branches_are_under_way(any_harness: Harness) -> None:
    """2.6: ``limit`` bounds how many branches are under way."""

    def nap(item: int, step: Step) -> int:
        step.sleep("nap", "1h")
        return item

    parent_that(any_harness, lambda event, step: step.map("x", nap, range(5), limit=2))
    run = waiting(any_harness)
    for begun in (2, 4, 5):
        states = [b.reason for b in branches_of(any_harness, run).values()]
        assert states.count("limit") == 5 - begun
        assert states.count("sleep") == min(2, begun - (begun == 5) * 4)
        any_harness.advance(3700)
    assert again(any_harness, run).result == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("queue", ["redis", "sqs"])
def test_another_process_executes_branches(
    make_harness: t.Callable[..., Harness], request: pytest.FixtureRequest, queue: str
) -> None:
    """2.6: any worker that serves the function's queue executes a branch."""
    executed: list[int] = []
    url = request.getfixturevalue("sqs").url if queue == "sqs" else None

    def process(number: int) -> Harness:
        harness = make_harness(in_place=0, DURABLE_QUEUE_URL=url)

        def work(item: int) -> int:
            executed.append(number)
            return item

        parent_that(harness, lambda event, step: step.map("x", work, range(20)))
        return harness

    one, two = process(1), process(2)
    event = one.send("a/b")
    while one.route() + one.execute() + two.execute():
        pass
    assert one.run_of(event).result == list(range(20))
    assert set(executed) == {1, 2}


# -- 2.7: a branch has what a run has --------------------------------------------------


def test_a_branch_sleeps_by_itself_and_keeps_its_steps(any_harness: Harness) -> None:
    """2.7: a branch has its own memos, and holds nothing while it sleeps."""
    calls: list[str] = []

    def audio(step: Step) -> int:
        step.run("load", lambda: calls.append("load"))
        step.sleep("night", "1d")
        return step.run("cut", lambda: len(calls))

    parent_that(
        any_harness,
        lambda event, step: step.parallel("media", audio=audio, cover=lambda step: 0),
    )
    run = waiting(any_harness)
    branch = branches_of(any_harness, run)["media[audio]"]
    assert (branch.status, branch.reason) == (RunStatus.SUSPENDED, "sleep")
    assert [step.name for step in branch.steps] == [
        "media[audio]/load",
        "media[audio]/night",
    ]
    any_harness.advance(2 * 86400)
    assert again(any_harness, run).result == {"audio": 1, "cover": 0}
    assert calls == ["load"]


def test_a_branch_has_branches(any_harness: Harness) -> None:
    """2.7: a step of a branch may have branches, at any depth."""

    def inner(item: str, step: Step) -> t.Any:
        step.run("begin", lambda: None)
        made = step.parallel(
            "halves",
            left=lambda step: step.map("deep", lambda n: f"{item}{n}", [1, 2]),
            right=lambda step: step.run("r", lambda: item),
        )
        return [made, step.run("end", lambda: item * 2)]

    parent_that(any_harness, lambda event, step: step.map("x", inner, ["a", "b"]))
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.COMPLETED
    assert run.result == [
        [{"left": ["a1", "a2"], "right": "a"}, "aa"],
        [{"left": ["b1", "b2"], "right": "b"}, "bb"],
    ]
    [branch] = any_harness.runs.list(parent=run.id, limit=1)
    names = set(branches_of(any_harness, branch))
    assert names == {f"{branch.branch}/halves[left]", f"{branch.branch}/halves[right]"}


def test_a_branch_invokes_a_function(any_harness: Harness) -> None:
    """2.7: every operation works in a branch."""

    @any_harness.durable.function(on=None)
    def cut(event: AnyEvent, step: Step) -> str:
        return f"cut {event.data['n']}"

    def work(item: int, step: Step) -> str:
        return step.invoke("cut", cut, {"n": item})

    parent_that(any_harness, lambda event, step: step.map("x", work, [1, 2]))
    assert any_harness.send_and_settle("a/b").result == ["cut 1", "cut 2"]


def test_the_step_of_the_body_works_in_a_branch(any_harness: Harness) -> None:
    """2.7: the tools of the body are the branch's while that is executed."""

    def body(event: AnyEvent, step: Step) -> t.Any:
        return step.parallel("m", a=lambda _: step.run("s", lambda: 1))

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == {"a": 1}
    assert [s.name for s in branches_of(any_harness, run)["m[a]"].steps] == ["m[a]/s"]


def test_nothing_behind_the_step_is_executed_by_a_branch(any_harness: Harness) -> None:
    """2.7: a branch leaves the body, even one that catches everything."""
    behind: list[int] = []

    def body(event: AnyEvent, step: Step) -> t.Any:
        try:
            made = step.parallel("m", a=lambda step: 1, b=lambda step: 2)
        except BaseException:
            step.run("rescue", lambda: behind.append(1))
            raise
        return step.run("after", lambda: behind.append(2) or made)

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == {"a": 1, "b": 2}
    assert behind == [2]


def test_a_failed_branch_is_not_caught_by_the_body_that_it_replays(
    any_harness: Harness,
) -> None:
    """2.8: the error of a branch is the branch's, and the run's StepError."""

    def fail(step: Step) -> int:
        raise NonRetriable("no")

    def body(event: AnyEvent, step: Step) -> t.Any:
        try:
            return step.parallel("m", a=fail)
        except BranchError as error:
            caught = error
        return step.run("rescue", lambda: [caught.branch, caught.failure.message])

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == ["a", "no"]


def test_a_dead_worker_s_branch_goes_on(any_harness: Harness) -> None:
    """2.7: a branch has a lease of its own."""
    any_harness.in_place = 0
    parent_that(any_harness, lambda event, step: step.map("x", str, [1, 2]))
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    # A worker takes both, and dies.
    for delivery in any_harness.state.broker.deliveries("default", 10, 0):
        assert any_harness.executor.claim(t.cast(t.Any, delivery.message))
        delivery.done()
    any_harness.settle()
    assert any_harness.run_of(event).status == RunStatus.SUSPENDED
    any_harness.expire_leases()
    any_harness.settle()
    assert any_harness.run_of(event).result == ["1", "2"]


def test_a_branch_whose_step_moved_is_paused(any_harness: Harness) -> None:
    """2.7: a body that reaches another step first is a ReplayMismatch."""
    changed = False

    def nap(item: int, step: Step) -> int:
        step.sleep("nap", "1h")
        return item

    def body(event: AnyEvent, step: Step) -> t.Any:
        if changed:
            step.run("new", lambda: None)
        return step.map("x", nap, [1])

    parent_that(any_harness, body)
    run = waiting(any_harness)
    changed = True
    any_harness.advance(3700)
    branch = branches_of(any_harness, run)["x[0]"]
    assert branch.status == RunStatus.PAUSED
    assert "reaches step 'new', which has no outcome, before step 'x'" in str(
        branch.reason
    )
    # It is no run in counts, but nothing that waits for an operator is hidden.
    checks = {c.name: c for c in HealthChecks(any_harness.state).everything()}
    assert checks["paused runs"].detail.startswith("1")
    assert any_harness.runs.count("paused") == 0
    changed = False
    any_harness.runs.resume(branch.id)
    assert again(any_harness, run).result == [1]


@pytest.mark.parametrize("how", ["end", "name", "kind"])
def test_a_branch_that_the_code_does_not_have_is_paused(
    any_harness: Harness, how: str
) -> None:
    """2.7: so is a branch whose step, or whose name, is gone."""
    changed = False

    def nap(step: Step) -> int:
        step.sleep("nap", "1h")
        return 1

    def body(event: AnyEvent, step: Step) -> t.Any:
        if changed and how == "end":
            return None
        if changed and how == "name":
            return step.parallel("x", b=nap)
        if changed:
            return step.run("x", lambda: 1)
        return step.parallel("x", a=nap)

    parent_that(any_harness, body)
    run = waiting(any_harness)
    changed = True
    any_harness.advance(3700)
    assert branches_of(any_harness, run)["x[a]"].status == RunStatus.PAUSED
    assert any_harness.runs.get(run.id).status == RunStatus.SUSPENDED


# -- 2.8: failures -------------------------------------------------------------------


def test_the_first_failure_cancels_the_others_and_is_raised(
    any_harness: Harness,
) -> None:
    """2.8: fail-fast: StepError naming the branch."""

    def work(item: int, step: Step) -> int:
        if item == 1:
            raise NonRetriable("one is bad")
        step.sleep("long", "1d")
        return item

    parent_that(any_harness, lambda event, step: step.map("x", work, range(4)))
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert (run.failure.step, run.failure.message) == ("x[1]", "one is bad")
    any_harness.sweep()
    states = {name: b.status for name, b in branches_of(any_harness, run).items()}
    assert states.pop("x[1]") == RunStatus.FAILED
    assert set(states.values()) == {RunStatus.CANCELLED}


def test_a_branch_that_was_not_begun_is_cancelled_too(any_harness: Harness) -> None:
    """2.8: also those that wait for room."""

    def work(item: int) -> int:
        raise NonRetriable("no")

    parent_that(any_harness, lambda event, step: step.map("x", work, range(4), limit=1))
    run = any_harness.send_and_settle("a/b")
    any_harness.sweep()
    states = [b.status for b in branches_of(any_harness, run).values()]
    assert states.count(RunStatus.FAILED) == 1
    assert states.count(RunStatus.CANCELLED) == 3


def test_so_many_branches_may_fail(any_harness: Harness) -> None:
    """2.8: ``tolerate`` leaves out the results of those that failed."""

    def work(item: int) -> int:
        if item % 2:
            raise NonRetriable(f"{item} is odd")
        return item

    def body(event: AnyEvent, step: Step) -> t.Any:
        kept = step.map("x", work, range(4), tolerate=2)
        with pytest.raises(BranchError) as caught:
            step.map("y", work, range(4), tolerate=1)
        return [kept, caught.value.branch, str(caught.value)]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    kept, branch, message = run.result
    assert kept == [0, 2]
    assert branch in ("1", "3")
    assert f"Branch {branch!r} of step 'y' failed" in message


def test_errors_are_returned_in_their_places(any_harness: Harness) -> None:
    """2.8: ``return_exceptions`` returns the errors of failed branches."""

    def fail(step: Step) -> int:
        raise NonRetriable("no")

    def body(event: AnyEvent, step: Step) -> t.Any:
        made = step.parallel("m", a=lambda step: 1, b=fail, return_exceptions=True)
        error = made["b"]
        assert isinstance(error, BranchError)
        return [made["a"], error.branch, error.failure.message, error.step]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == [1, "b", "no", "m"]


def test_a_cancelled_branch_has_failed(any_harness: Harness) -> None:
    """2.8: a branch that a person cancels counts as a failure."""

    def nap(step: Step) -> None:
        step.sleep("nap", "1d")

    parent_that(any_harness, lambda event, step: step.parallel("m", a=nap))
    run = waiting(any_harness)
    any_harness.runs.cancel(branches_of(any_harness, run)["m[a]"].id)
    failed = again(any_harness, run)
    assert failed.status == RunStatus.FAILED
    assert failed.failure.code == "run.cancelled"


def test_cancelling_a_run_cancels_its_branches(any_harness: Harness) -> None:
    """2.2: and theirs in turn."""

    def nap(item: int, step: Step) -> None:
        step.map("inner", lambda n, step: step.sleep("nap", "1d"), [1, 2])

    parent_that(any_harness, lambda event, step: step.map("x", nap, [1, 2]))
    run = waiting(any_harness)
    inner = [
        found
        for branch in branches_of(any_harness, run).values()
        for found in branches_of(any_harness, branch).values()
    ]
    assert len(inner) == 4
    any_harness.runs.cancel(run.id)
    any_harness.sweep()
    any_harness.sweep()
    for found in [*branches_of(any_harness, run).values(), *inner]:
        assert any_harness.runs.get(found.id).status == RunStatus.CANCELLED


def test_a_retried_run_keeps_the_branches_that_are_done(any_harness: Harness) -> None:
    """2.4, 2.8: a retry goes on with the branches that failed or were cancelled."""
    broken = True
    calls: list[str] = []

    def work(item: int, step: Step) -> int:
        step.run("begin", lambda: calls.append(f"begin {item}"))
        if item == 1 and broken:
            raise NonRetriable("no")
        return step.run("end", lambda: calls.append(f"end {item}") or item)

    parent_that(any_harness, lambda event, step: step.map("x", work, range(3), limit=1))
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    any_harness.sweep()
    broken = False
    any_harness.runs.retry(run.id)
    assert again(any_harness, run).result == [0, 1, 2]
    assert sorted(calls) == sorted(
        f"{w} {n}" for n in range(3) for w in ("begin", "end")
    )


def test_a_branch_is_retried_with_its_run_alone(any_harness: Harness) -> None:
    """2.8: the error of the retry of a branch says so."""

    def fail(step: Step) -> int:
        raise NonRetriable("no")

    parent_that(any_harness, lambda event, step: step.parallel("m", a=fail))
    run = any_harness.send_and_settle("a/b")
    branch = branches_of(any_harness, run)["m[a]"]
    with pytest.raises(RunStateError, match=f"when its run {run.id} is retried"):
        any_harness.runs.retry(branch.id)


def test_a_step_of_a_branch_with_an_unknown_outcome_is_not_run_by_a_retry(
    any_harness: Harness,
) -> None:
    """2.8: a step that runs at most once keeps its failure."""
    calls: list[int] = []

    def charge(step: Step) -> int:
        once = step.options(at_most_once=True, retries=0)
        return once.run("pay", lambda: calls.append(1) or 1)

    parent_that(any_harness, lambda event, step: step.parallel("m", a=charge))
    any_harness.in_place = 0
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    run = any_harness.run_of(event)
    branch = branches_of(any_harness, run)["m[a]"]
    # A worker has begun the step, and dies.
    [delivery] = any_harness.state.broker.deliveries("default", 10, 0)
    claimed = any_harness.executor.claim(t.cast(t.Any, delivery.message))
    assert claimed is not None
    delivery.done()
    any_harness.state.store.commit(
        branch.id, claimed.token, "m[a]/pay", "intent", 1, "run    "
    )
    any_harness.expire_leases()
    any_harness.settle()
    assert any_harness.runs.get(run.id).failure.code == "step.interrupted"
    any_harness.runs.retry(run.id)
    assert again(any_harness, run).failure.code == "step.interrupted"
    assert calls == []


# -- 2.9: the run --------------------------------------------------------------------


def test_a_death_between_two_pages_makes_no_branch_twice(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.9: the branches are made, each once, whatever dies."""
    calls: list[int] = []
    pages: list[int] = []

    def dying(*args: t.Any) -> t.Any:
        reply = start_branches(*args)
        pages.append(args[4])
        if len(pages) == 2:
            raise NotOwner(cancelled=False)  # it writes nothing more
        return reply

    monkeypatch.setattr(branches, "start_branches", dying)
    monkeypatch.setattr(branches, "BRANCHES_PAGE", 3)
    any_harness.in_place = 0
    parent_that(any_harness, lambda event, step: step.map("x", calls.append, range(8)))
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    any_harness.expire_leases()
    any_harness.settle()
    assert pages == [0, 3, 0, 3, 6]
    run = any_harness.run_of(event)
    assert run.status == RunStatus.COMPLETED
    assert sorted(calls) == list(range(8))


def test_the_run_goes_on_exactly_once(any_harness: Harness) -> None:
    """2.9: the run is suspended, and goes on when the last branch has ended."""
    after: list[int] = []

    def body(event: AnyEvent, step: Step) -> None:
        step.map("x", str, range(10))
        step.run("after", lambda: after.append(1))

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert (run.status, after) == (RunStatus.COMPLETED, [1])
    assert run.dispatches == 0 or len(run.claims) == 2


def test_results_without_room_are_a_clear_error(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.9: the results of a group are bounded together."""
    monkeypatch.setattr("flask_durable.store.branches.MAX_MEMO_BYTES", 5000)
    parent_that(
        any_harness,
        lambda event, step: step.map("x", lambda n: "x" * 2000, range(4)),
    )
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert "the results of the branches are larger" in run.failure.message


def test_large_results_of_branches_are_claim_checks(
    make_harness: t.Callable[..., Harness], tmp_path: pathlib.Path
) -> None:
    """2.9: large results are claim checks where there is a blob store."""
    harness = make_harness(
        DURABLE_BLOB_URL=tmp_path.as_uri(), DURABLE_INLINE_LIMIT=1024
    )

    def body(event: AnyEvent, step: Step) -> list[int]:
        made = step.map("x", lambda n: "y" * 1000 * (n + 3), range(3))
        return [len(text) for text in made]

    parent_that(harness, body)
    run = harness.send_and_settle("a/b")
    assert run.result == [3000, 4000, 5000]
    outcomes = read_outcomes(harness.state.store, run.id, "x").by_place
    assert max(len(text) for _, text in outcomes.values()) < 300


def test_a_result_that_is_too_large_fails_its_branch_with_a_clear_error(
    make_harness: t.Callable[..., Harness],
) -> None:
    """2.9: without a blob store the error says how large a result may be."""
    harness = make_harness(DURABLE_MAX_VALUE=1024, DURABLE_INLINE_LIMIT=1024)
    parent_that(harness, lambda event, step: step.map("x", lambda n: "y" * n, [2000]))
    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert run.failure.step == "x[0]"
    assert "larger than the 1024 bytes" in run.failure.message


def test_a_step_has_a_thousand_branches_in_four_pages(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.9, 2.12: 1,000 branches a group, at most 250 a script."""
    pages: list[int] = []

    def counted(*args: t.Any) -> t.Any:
        pages.append(len(args[5]))
        return start_branches(*args)

    monkeypatch.setattr(branches, "start_branches", counted)
    parent_that(harness, lambda event, step: step.map("x", str, range(1000), limit=1))
    event = harness.send("a/b")
    harness.route()
    harness.execute()
    run = harness.run_of(event)
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "branches")
    assert pages == [250, 250, 250, 250]
    assert len(harness.runs.list(parent=run.id, limit=1000)) == 1000


def test_a_run_without_room_for_its_branches_fails(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.9: each branch counts as a step of the run."""
    monkeypatch.setattr("flask_durable.store.branches.MAX_STEPS", 5)

    def body(event: AnyEvent, step: Step) -> None:
        step.map("x", str, range(4))
        step.map("y", str, range(4))

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert "limit of 10,000 steps" in run.failure.message


def test_branches_are_no_runs_in_lists_and_counts(any_harness: Harness) -> None:
    """2.9: a fan-out is one run of its function."""
    ended: list[str] = []

    @any_harness.durable.function(on=FunctionFinished)
    def listener(event: AnyEvent, step: Step) -> None:
        ended.append(event.data.run_id)

    parent_that(any_harness, lambda event, step: step.map("x", str, range(3)))
    run = any_harness.send_and_settle("a/b")
    assert [r.id for r in any_harness.runs.list(function="parent")] == [run.id]
    assert {r.branch for r in any_harness.runs.list()} == {None}
    completed = [r.id for r in any_harness.runs.list(status="completed", limit=2)]
    assert run.id in completed
    assert any_harness.runs.count("completed") == len(completed) == 2
    assert ended == [run.id]


# -- 2.10: the first one -------------------------------------------------------------


def test_the_first_branch_wins_and_the_others_are_cancelled(
    any_harness: Harness,
) -> None:
    """2.10: ``first`` returns name and value of the branch that ended first."""

    def late(step: Step) -> str:
        step.sleep("day", "1d")
        return "late"

    def soon(step: Step) -> str:
        step.sleep("hour", "1h")
        return "soon"

    parent_that(
        any_harness, lambda event, step: step.first("answer", late=late, soon=soon)
    )
    run = waiting(any_harness)
    any_harness.advance(4000)
    assert again(any_harness, run).result == ["soon", "soon"]
    any_harness.sweep()
    found = branches_of(any_harness, run)
    assert found["answer[late]"].status == RunStatus.CANCELLED


def test_a_first_branch_that_fails_is_raised(any_harness: Harness) -> None:
    """2.10: a failure ends it as well."""

    def fail(step: Step) -> int:
        raise NonRetriable("no")

    def nap(step: Step) -> int:
        step.sleep("nap", "1d")
        return 1

    parent_that(any_harness, lambda event, step: step.first("x", a=fail, b=nap))
    run = any_harness.send_and_settle("a/b")
    assert (run.status, run.failure.step) == (RunStatus.FAILED, "x[a]")


@pytest.mark.parametrize(
    ("fan_out", "said"),
    [
        (lambda step: step.parallel("x", a=lambda: 1), r"Branch 'a' .*a=lambda step"),
        (lambda step: step.first("x", a=lambda: 1), r"Branch 'a' .*a=lambda step"),
        (lambda step: step.parallel("x", a=lambda s, t: 1), "Branch 'a' "),
        (lambda step: step.map("x", lambda: 1, [1]), r"\(item\) for one step"),
        (lambda step: step.map("x", lambda a, b, c: 1, [1]), r"\(item, step\)"),
    ],
)
def test_a_callable_that_takes_other_arguments_is_refused_before_branches_are_made(
    harness: Harness, fan_out: t.Callable[[Step], t.Any], said: str
) -> None:
    """2.2: a branch is called with step tools, or with an item."""
    parent_that(harness, lambda event, step: fan_out(step))
    run = harness.send_and_settle("a/b")
    assert (run.status, run.attempt) == (RunStatus.FAILED, 1)
    assert run.failure is not None
    assert re.search(said, run.failure.message, re.S), run.failure.message
    assert harness.runs.list(parent=run.id) == []


@pytest.mark.parametrize(
    "fn", [str, len, functools.partial(pow, 2), lambda *items: 1, lambda item=0: 1]
)
def test_a_callable_that_can_take_an_item_is_not_refused(
    harness: Harness, fn: t.Callable[..., t.Any]
) -> None:
    def body(event: AnyEvent, step: Step) -> t.Any:
        return step.map("x", fn, ["ab"] if fn is len else [3])

    parent_that(harness, body)
    assert harness.send_and_settle("a/b").status is RunStatus.COMPLETED


def test_first_of_nothing_is_refused(harness: Harness) -> None:
    """2.10: there has to be a branch."""

    def body(event: AnyEvent, step: Step) -> None:
        with pytest.raises(StepUsageError, match="no branch that could end first"):
            step.first("x")

    parent_that(harness, body)
    assert harness.send_and_settle("a/b").status == RunStatus.COMPLETED


# -- 2.11: current_run and keys ------------------------------------------------------


def test_current_run_is_the_run_in_a_branch(any_harness: Harness) -> None:
    """2.11: ``current_run`` is the run's, and keys stay the same over retries."""
    seen: list[tuple[str, str, str]] = []
    broken = True

    def work(item: int, step: Step) -> None:
        def look() -> None:
            found = current_run.step
            assert found is not None
            seen.append((current_run.id, found.name, found.idempotency_key))

        step.run("look", look)
        if broken:
            step.options(retries=0).run("fail", lambda: 1 / 0)

    def one(item: int) -> None:
        assert current_run.step is not None
        seen.append((current_run.id, current_run.step.name, ""))

    def body(event: AnyEvent, step: Step) -> None:
        step.map("one", one, [0])
        step.map("x", work, [0, 1], return_exceptions=broken)
        if broken:
            raise NonRetriable("again")

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert {name for _, name, _ in seen} == {"one[0]", "x[0]/look", "x[1]/look"}
    assert {id for id, _, _ in seen} == {run.id}
    keys = {key for _, _, key in seen if key}
    assert len(keys) == 2


def test_a_branch_has_the_time_when_its_run_started(any_harness: Harness) -> None:
    """2.11: ``current_run`` in a branch is the run's."""
    seen: set[t.Any] = set()

    def look(step: Step) -> None:
        seen.add(current_run.started_at)
        step.sleep("night", "1d")

    def body(event: AnyEvent, step: Step) -> None:
        seen.add(current_run.started_at)
        step.sleep("long", "1d")
        step.parallel("x", look=look)

    parent_that(any_harness, body)
    any_harness.send_and_settle("a/b")
    for _ in range(2):
        any_harness.advance(86400)
    assert len(seen) == 1


def test_an_event_sent_by_a_branch_has_the_same_id_after_a_retry(
    any_harness: Harness,
) -> None:
    """2.11: ids derive from the run and the branch, not from an attempt."""
    ids: list[t.Any] = []

    def work(item: int, step: Step) -> None:
        ids.append(step.send_event("tell", Event("x/y", {"n": item})))

    parent_that(any_harness, lambda event, step: step.map("x", work, [0, 1]))
    any_harness.send_and_settle("a/b")
    assert len({id for [id] in ids}) == 2


# -- 2.12: what it costs -------------------------------------------------------------


def test_a_branch_costs_three_calls(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.12: claim, result and end; messages go many at a time."""
    harness.in_place = 0
    calls: Counter[str] = Counter()
    server = harness.state.server
    call, call_many = server.call, server.call_many

    def counted(name: str, *args: t.Any) -> t.Any:
        calls[name] += 1
        return call(name, *args)

    def counted_many(given: t.Any, *commands: t.Any) -> t.Any:
        calls[given[0][0] if given else "plain"] += 1
        return call_many(given, *commands)

    monkeypatch.setattr(server, "call", counted)
    monkeypatch.setattr(server, "call_many", counted_many)
    parent_that(harness, lambda event, step: step.map("x", str, range(100)))
    run = harness.send_and_settle("a/b")
    assert run.status == RunStatus.COMPLETED
    assert calls["branches_start"] == 1
    assert calls["run_claim"] <= 102
    assert calls["step_commit"] == 100
    assert calls["run_finish"] == 101


def test_a_branch_goes_on_from_its_steps_however_long_ago_it_failed(
    any_harness: Harness,
) -> None:
    """2.7: its memos are kept for as long as its run."""
    called: list[str] = []
    broken = [True]

    def early(step: Step) -> str:
        step.run("once", lambda: called.append("once"))
        if broken:
            raise ValueError("early")
        return "early"

    def late(step: Step) -> str:
        step.sleep("long", "60d")
        if broken:
            raise ValueError("late")
        return "late"

    parent_that(
        any_harness,
        lambda event, step: step.parallel("x", tolerate=1, early=early, late=late),
    )
    run = waiting(any_harness)
    any_harness.advance(61 * 86400)
    any_harness.sweep()
    assert again(any_harness, run).status == RunStatus.FAILED
    broken.clear()
    any_harness.runs.retry(run.id)
    assert again(any_harness, run).result == {"early": "early", "late": "late"}
    assert called == ["once"]


def test_a_worker_of_a_release_without_branches_leaves_them_to_others(
    any_harness: Harness,
) -> None:
    """2.6: it sets a branch aside, and executes no part of it."""
    calls: list[str] = []

    def body(event: Event[t.Any], step: Step) -> t.Any:
        calls.append("body")
        return step.parallel("all", a=lambda step: step.run("x", lambda: 1))

    parent_that(any_harness, body)
    any_harness.in_place = 1
    any_harness.send("a/b", {})
    any_harness.route()
    [run] = any_harness.threads.runs
    any_harness.threads.runs = []
    any_harness.executor.execute(run)
    [branch] = any_harness.runs.children(run.run_id)
    assert branch.function == run.record["function"]
    store = any_harness.state.store
    server = any_harness.state.server

    # Whichever way it hears of the branch, it has the name of the function from here.
    key = f"{store.keys.tag_of(branch.id)}:run:{branch.id}"
    stored = str(server.client.hget(key, "function"))
    seen = RunSensor(server, store.keys, ["default"]).look(60)
    assert [(each.function, each.jobs) for each in seen.waiting] == [
        (branch.function, 1)
    ]
    assert any_harness.executor.claim(RunMessage(branch.id, stored, 0)) is None
    parked = any_harness.runs.get(branch.id)
    assert parked is not None
    assert (parked.status, parked.reason) == (RunStatus.SUSPENDED, "deferred")
    assert calls == ["body"]

    any_harness.advance(120)
    ended = any_harness.runs.get(run.run_id)
    assert ended is not None
    assert ended.result == {"a": 1}
