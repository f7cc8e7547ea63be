"""Fan-out over a durable function: a run of it for each item."""

from __future__ import annotations

import pathlib
import typing as t
from dataclasses import dataclass

import pytest

from flask_durable import BranchError
from flask_durable import Event
from flask_durable import EventData
from flask_durable import EventError
from flask_durable import Failure
from flask_durable import FunctionCancelled
from flask_durable import FunctionFinished
from flask_durable import NonRetriable
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepUsageError
from flask_durable.engine.steps import branches
from flask_durable.store.branches import start_branches
from flask_durable.store.replies import NotOwner

from ..support.harness import Harness

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

AnyEvent = Event[t.Any]
Body = t.Callable[[AnyEvent, Step], t.Any]


class Cut(EventData, name="film/cut"):
    number: int
    path: str = "a.mp4"


@dataclass
class Scene:
    number: int
    path: str


def parent_that(harness: Harness, body: Body, **options: t.Any) -> None:
    """Declare the function that ``a/b`` starts."""
    harness.durable.function(on="a/b", id="parent", **{"retries": 0, **options})(body)


def cut_that(harness: Harness, body: Body, **options: t.Any) -> t.Any:
    """Declare the function ``cut``, which no event starts."""
    return harness.durable.function(
        on=None, id="cut", **{"retries": 0, "queue": "media", **options}
    )(body)


def children_of(harness: Harness, run: Run) -> dict[int, Run]:
    """Return the children of a run by the number in their data."""
    found = harness.runs.list(parent=run.id, limit=1000)
    runs = [harness.runs.get(child.id) for child in found]
    return {child.event.data["number"]: child for child in runs}


def states_of(harness: Harness, run: Run) -> list[tuple[str, str | None]]:
    """Return status and reason of each child, by the number in its data."""
    found = children_of(harness, run)
    return [(found[n].status.value, found[n].reason) for n in sorted(found)]


def numbers(count: int) -> list[dict[str, t.Any]]:
    """Return the data of so many children."""
    return [{"number": number} for number in range(count)]


def waiting(harness: Harness) -> Run:
    """Send an event, and return its run once that waits."""
    run = harness.send_and_settle("a/b")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "branches")
    return run


def again(harness: Harness, run: Run) -> Run:
    """Settle, and return the run as it is then."""
    harness.settle()
    return t.cast(Run, harness.runs.get(run.id))


def swept(harness: Harness) -> None:
    """Have a sweep cancel what is left, and what that leaves."""
    for _ in range(3):
        harness.sweep()


# -- 2.5: one child run for each item ------------------------------------------------


def test_each_item_has_a_run_of_the_function(any_harness: Harness) -> None:
    """2.5: a durable function is one child run for each item, on its own queue."""

    @any_harness.durable.function(on=Cut, queue="media")
    def cut(event: Event[Cut], step: Step) -> Scene:
        path = step.run("cut", lambda: event.data.path.upper())
        return Scene(event.data.number, path)

    def body(event: AnyEvent, step: Step) -> str:
        made = step.map("scenes", cut, [Cut(number=1), {"number": 0, "path": "b"}])
        return repr(made)

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.COMPLETED
    assert run.result == repr([Scene(1, "A.MP4"), Scene(0, "B")])
    assert [(s.name, s.kind, s.status) for s in run.steps] == [
        ("scenes", "group", "done")
    ]
    child = children_of(any_harness, run)[1]
    assert (child.function, child.queue) == ("cut", "media")
    assert (child.parent_step, child.branch) == ("scenes", "scenes[0]")
    assert (child.parent, child.event_name) == (run.id, "film/cut")
    assert [step.name for step in child.steps] == ["cut"]
    assert child.result == {"number": 1, "path": "A.MP4"}


def test_children_of_a_map_are_runs_in_lists_counts_and_events(
    any_harness: Harness,
) -> None:
    """2.5: a child run is one like any other."""
    told: list[str] = []

    @any_harness.durable.function(on=FunctionFinished)
    def listener(event: AnyEvent, step: Step) -> None:
        told.append(event.data.function_id)

    cut = cut_that(any_harness, lambda event, step: None)
    parent_that(any_harness, lambda event, step: step.map("x", cut, numbers(3)))
    any_harness.send_and_settle("a/b")
    assert len(any_harness.runs.list(function="cut", status="completed")) == 3
    assert sorted(told) == ["cut", "cut", "cut", "parent"]
    assert any_harness.state.store.count("completed") == 8  # four listeners


def test_data_that_does_not_fit_creates_no_run(any_harness: Harness) -> None:
    """2.5: all items are checked by the function's model before one is created."""

    @any_harness.durable.function(on=Cut)
    def cut(event: Event[Cut], step: Step) -> None: ...

    def body(event: AnyEvent, step: Step) -> list[str]:
        with pytest.raises(EventError, match="Item '1' of step 'x'") as caught:
            step.map("x", cut, [Cut(number=1), {"number": "one"}])
        return [fault["field"] for fault in caught.value.errors]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    assert run.result == ["data.number"]
    assert children_of(any_harness, run) == {}


def test_a_function_that_nobody_has_is_refused(harness: Harness) -> None:
    """2.5: a function may be given by its id, if some process has it."""
    cut_that(harness, lambda event, step: event.data["number"])

    def body(event: AnyEvent, step: Step) -> t.Any:
        with pytest.raises(StepUsageError, match="No process has a function 'gone'"):
            step.map("x", "gone", numbers(1))
        return step.map("y", "cut", numbers(2))

    parent_that(harness, body)
    assert harness.send_and_settle("a/b").result == [0, 1]


def test_a_child_has_the_retries_and_the_handler_of_its_function(
    any_harness: Harness,
) -> None:
    """2.5: a child has its function's retries, not those of the run that has it."""
    calls: list[int] = []
    failed: list[str] = []

    def fail(event: AnyEvent, step: Step) -> None:
        calls.append(event.data["number"])
        raise OSError("no")

    cut = cut_that(any_harness, fail, retries=1)

    @cut.on_failure
    def tell(event: AnyEvent, step: Step, failure: Failure) -> None:
        failed.append(failure.message)

    parent_that(any_harness, lambda event, step: step.map("x", cut, numbers(1)))
    run = waiting(any_harness)
    assert states_of(any_harness, run) == [("suspended", "retry")]
    any_harness.advance(3600)
    assert again(any_harness, run).status == RunStatus.FAILED
    assert calls == [0, 0]
    assert failed == ["no"]


def test_the_time_of_a_child_begins_when_it_has_room(
    any_harness: Harness,
) -> None:
    """2.5: a child has its function's time-out, counted from when it has room."""
    cut = cut_that(
        any_harness, lambda event, step: step.sleep("nap", "1h"), timeout="90m"
    )
    parent_that(
        any_harness, lambda event, step: step.map("x", cut, numbers(2), limit=1)
    )
    run = waiting(any_harness)
    any_harness.advance(3700)
    assert states_of(any_harness, run) == [("completed", None), ("suspended", "sleep")]
    any_harness.advance(3500)  # two hours after the creation of both
    assert states_of(any_harness, run)[1] == ("suspended", "sleep")
    any_harness.advance(200)
    assert again(any_harness, run).result == [None, None]


def test_a_child_that_is_not_started_in_time_has_failed(any_harness: Harness) -> None:
    """2.5: so is the time within which it has to start."""
    cut = cut_that(any_harness, lambda event, step: None, start_timeout="1m")
    any_harness.in_place = 0
    parent_that(any_harness, lambda event, step: step.map("x", cut, numbers(1)))
    event = any_harness.send("a/b")
    any_harness.route()
    [delivery] = any_harness.state.broker.deliveries("default", 10, 0)
    parent = any_harness.executor.claim(t.cast(t.Any, delivery.message))
    assert parent is not None
    any_harness.executor.execute(parent)
    delivery.done()
    any_harness.move_clock(61)
    any_harness.sweep()
    any_harness.settle()
    failure = any_harness.run_of(event).failure
    assert (failure.step, failure.code) == ("x[0]", "run.cancelled")


def test_encrypted_and_large_data_of_children_is_kept_apart(
    make_harness: t.Callable[..., Harness], tmp_path: pathlib.Path
) -> None:
    """2.5, 2.9: data and results are sealed, and are claim checks if they are large."""
    harness = make_harness(
        DURABLE_ENCRYPTION_KEYS=[KEY],
        DURABLE_BLOB_URL=tmp_path.as_uri(),
        DURABLE_INLINE_LIMIT=1024,
    )
    cut = cut_that(harness, lambda event, step: event.data["path"] * 2)
    items = [{"number": n, "path": "secret" * 300} for n in range(2)]
    parent_that(
        harness, lambda event, step: [len(r) for r in step.map("x", cut, items)]
    )
    harness.in_place = 0
    event = harness.send("a/b")
    while harness.route() + harness.execute():
        assert b"secret" not in _all_values(harness)
    run = harness.run_of(event)
    assert (run.status, run.result) == (RunStatus.COMPLETED, [3600, 3600])
    assert any(path.is_file() for path in tmp_path.rglob("*"))


def _all_values(harness: Harness) -> bytes:
    client = harness.state.server.client
    tag = harness.state.store.keys.root.partition(":")[0]
    dumped = [client.dump(key) for key in client.scan_iter(f"{tag}:*")]
    return b"".join([value for value in dumped if isinstance(value, bytes)])


# -- 2.6: any worker -----------------------------------------------------------------


def test_only_so_many_children_are_under_way(any_harness: Harness) -> None:
    """2.6: ``limit`` bounds how many children are under way, in their order."""
    cut = cut_that(any_harness, lambda event, step: step.sleep("nap", "1h"))
    parent_that(
        any_harness, lambda event, step: step.map("x", cut, numbers(3), limit=2)
    )
    run = waiting(any_harness)
    nap, room = ("suspended", "sleep"), ("suspended", "limit")
    assert states_of(any_harness, run) == [nap, nap, room]
    any_harness.advance(3700)
    assert states_of(any_harness, run)[2] == nap
    any_harness.advance(3700)
    assert again(any_harness, run).result == [None, None, None]


def test_a_branch_maps_a_function(any_harness: Harness) -> None:
    """2.7: every operation works in a branch; each has children of its own."""
    cut = cut_that(any_harness, lambda event, step: event.data["number"])

    def work(item: int, step: Step) -> list[int]:
        made: list[int] = step.map("inner", cut, [{"number": item}, {"number": -item}])
        return made

    parent_that(any_harness, lambda event, step: step.map("x", work, [1, 2]))
    run = any_harness.send_and_settle("a/b")
    assert run.result == [[1, -1], [2, -2]]
    assert len(any_harness.runs.list(function="cut")) == 4


# -- 2.8: failures -------------------------------------------------------------------


def failing(event: AnyEvent, step: Step) -> int:
    """Fail for the number 1, and sleep for others that are below 10."""
    number: int = event.data["number"]
    if number == 1:
        step.run("check", lambda: None)
        raise NonRetriable("one is bad")
    if number < 10:
        step.sleep("long", "1d")
    return number


def test_the_first_failure_cancels_the_other_children(any_harness: Harness) -> None:
    """2.8: BranchError names the item and its run; the others are cancelled."""
    told: list[str] = []

    @any_harness.durable.function(on=FunctionCancelled)
    def listener(event: AnyEvent, step: Step) -> None:
        told.append(event.data.run_id)

    cut = cut_that(any_harness, failing)

    def body(event: AnyEvent, step: Step) -> t.Any:
        try:
            return step.map("x", cut, numbers(4), key=lambda item: item["number"])
        except BranchError as error:
            return [error.branch, error.run_id, error.failure.message, str(error)]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    found = children_of(any_harness, run)
    branch, run_id, message, text = run.result
    assert (branch, run_id, message) == ("1", found[1].id, "one is bad")
    assert "Branch '1' of step 'x' failed: " in text
    swept(any_harness)
    any_harness.settle()
    states = [found.status for found in children_of(any_harness, run).values()]
    assert states.count(RunStatus.FAILED) == 1
    assert states.count(RunStatus.CANCELLED) == 3
    assert sorted(told) == sorted(found[n].id for n in (0, 2, 3))


def test_a_run_that_fails_by_a_child_says_where(any_harness: Harness) -> None:
    """2.8: the failed step of the run is the item's, not a step of the child's."""

    def fail(event: AnyEvent, step: Step) -> None:
        step.options(retries=0).run("divide", lambda: 1 / 0)

    cut = cut_that(any_harness, fail)
    parent_that(any_harness, lambda event, step: step.map("x", cut, numbers(2)))
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert run.failure.step in ("x[0]", "x[1]")
    assert run.failure.type == "ZeroDivisionError"


def test_children_that_may_fail_are_left_out_or_returned(any_harness: Harness) -> None:
    """2.8: ``tolerate`` and ``return_exceptions`` are as for other branches."""
    cut = cut_that(any_harness, failing)
    items = [{"number": n} for n in (1, 10, 11)]

    def body(event: AnyEvent, step: Step) -> t.Any:
        kept = step.map("x", cut, items, tolerate=1)
        error, *others = step.map("y", cut, items, return_exceptions=True)
        assert isinstance(error, BranchError)
        return [kept, others, error.branch, error.run_id]

    parent_that(any_harness, body)
    run = any_harness.send_and_settle("a/b")
    kept, others, branch, run_id = run.result
    assert (kept, others, branch) == ([10, 11], [10, 11], "0")
    assert any_harness.runs.get(run_id).status == RunStatus.FAILED


def test_a_child_that_waits_in_its_queue_is_not_executed_after_the_failure(
    any_harness: Harness,
) -> None:
    """2.8: a message of a child that nobody waits for starts no work."""
    begun: list[int] = []

    def body(event: AnyEvent, step: Step) -> None:
        begun.append(event.data["number"])
        raise NonRetriable("no")

    cut = cut_that(any_harness, body)
    parent_that(any_harness, lambda event, step: step.map("x", cut, numbers(5)))
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    assert len(begun) == 1
    swept(any_harness)
    states = [status for status, _ in states_of(any_harness, run)]
    assert (states.count("failed"), states.count("cancelled")) == (1, 4)


def test_cancelling_a_run_cancels_the_children_of_its_map(any_harness: Harness) -> None:
    """2.2: and theirs in turn, also those that wait for room."""
    far = any_harness.durable.function(on=None, id="far")(
        lambda event, step: step.sleep("nap", "1d")
    )
    cut = cut_that(any_harness, lambda event, step: step.map("y", far, numbers(2)))
    parent_that(
        any_harness, lambda event, step: step.map("x", cut, numbers(3), limit=2)
    )
    run = waiting(any_harness)
    assert len(any_harness.runs.list(function="far")) == 4
    any_harness.runs.cancel(run.id)
    swept(any_harness)
    assert {status for status, _ in states_of(any_harness, run)} == {"cancelled"}
    states = {found.status for found in any_harness.runs.list(function="far")}
    assert states == {RunStatus.CANCELLED}


def test_a_retried_run_keeps_the_children_that_are_done(any_harness: Harness) -> None:
    """2.4, 2.8: those that failed or were cancelled go on from their steps."""
    broken = True
    calls: list[str] = []

    def work(event: AnyEvent, step: Step) -> int:
        number: int = event.data["number"]
        step.run("begin", lambda: calls.append(f"begin {number}"))
        if number == 1 and broken:
            raise NonRetriable("no")
        step.run("end", lambda: calls.append(f"end {number}"))
        return number

    cut = cut_that(any_harness, work)
    parent_that(
        any_harness, lambda event, step: step.map("x", cut, numbers(3), limit=1)
    )
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    swept(any_harness)
    before = {n: child.id for n, child in children_of(any_harness, run).items()}
    broken = False
    any_harness.runs.retry(run.id)
    assert again(any_harness, run).result == [0, 1, 2]
    assert {n: c.id for n, c in children_of(any_harness, run).items()} == before
    assert sorted(calls) == sorted(
        f"{w} {n}" for n in range(3) for w in ("begin", "end")
    )


def test_a_child_that_was_retried_by_itself_counts_when_its_run_is_retried(
    any_harness: Harness,
) -> None:
    """2.8: a person may retry a child first, and then the run that has it."""
    broken = True
    calls: list[int] = []

    def work(event: AnyEvent, step: Step) -> int:
        calls.append(event.data["number"])
        if broken:
            raise NonRetriable("no")
        step.sleep("nap", event.data["nap"])
        return len(calls)

    cut = cut_that(any_harness, work)
    items = [{"number": 0, "nap": 0}, {"number": 1, "nap": "1d"}]
    parent_that(
        any_harness,
        lambda event, step: (
            step.map("x", cut, items, return_exceptions=True)
            and step.map("y", cut, items, tolerate=1)
        ),
    )
    run = any_harness.send_and_settle("a/b")
    assert run.status == RunStatus.FAILED
    broken = False
    failed = any_harness.runs.list(parent=run.id, limit=10)[:2]  # those of y
    for child in failed:
        any_harness.runs.retry(child.id)
    any_harness.settle()
    states = {any_harness.runs.get(c.id).status for c in failed}
    assert states == {RunStatus.COMPLETED, RunStatus.SUSPENDED}
    assert any_harness.runs.get(run.id).status == RunStatus.FAILED
    before = len(calls)
    any_harness.runs.retry(run.id)
    assert again(any_harness, run).status == RunStatus.SUSPENDED
    assert len(calls) == before
    any_harness.advance(2 * 86400)
    assert again(any_harness, run).status == RunStatus.COMPLETED


# -- 2.9: the run --------------------------------------------------------------------


def test_data_that_changes_between_two_pages_changes_nothing(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.4: the places are those of the list that was stored, whatever dies."""
    source = numbers(5)
    died: list[str] = []

    def dying(*args: t.Any) -> t.Any:
        reply = start_branches(*args)
        if not died:
            died.append(args[2])
            raise NotOwner(cancelled=False)  # it writes nothing more
        return reply

    monkeypatch.setattr(branches, "start_branches", dying)
    monkeypatch.setattr(branches, "BRANCHES_PAGE", 2)
    any_harness.in_place = 0
    cut = cut_that(any_harness, lambda event, step: event.data["number"])
    parent_that(any_harness, lambda event, step: step.map("x", cut, source))
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    source.insert(0, {"number": 100})
    any_harness.expire_leases()
    any_harness.settle()
    assert any_harness.run_of(event).result == [0, 1, 2, 3, 4]
    assert any_harness.state.store.count("completed") == 6


def test_a_death_between_two_pages_creates_no_child_twice(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.9: the children are created, each once, whatever dies."""
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
    cut = cut_that(any_harness, lambda event, step: calls.append(event.data["number"]))
    parent_that(any_harness, lambda event, step: step.map("x", cut, numbers(8)))
    event = any_harness.send("a/b")
    any_harness.route()
    any_harness.execute()
    any_harness.expire_leases()
    any_harness.settle()
    assert pages == [0, 3, 0, 3, 6]
    assert any_harness.run_of(event).status == RunStatus.COMPLETED
    assert sorted(calls) == list(range(8))
    assert any_harness.state.store.count("completed") == 9
