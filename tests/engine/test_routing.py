"""Routing: which runs an event has, by any router and however often."""

from __future__ import annotations

import json
import sys
import threading
import typing as t

import pytest

from flask_durable import Event
from flask_durable import EventData
from flask_durable import Failure
from flask_durable import Run
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.engine.router import Router
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.store.directory import names_of

from ..support.harness import Harness


class Uploaded(EventData, name="media/uploaded"):
    path: str


def runs_by_function(harness: Harness, event_id: str) -> dict[str, Run]:
    return {run.function: run for run in harness.runs.of_event(event_id)}


def test_exact_names_and_wildcards_start_their_functions(harness: Harness) -> None:
    for id, on in {
        "exact": "media/user.created",
        "folder": "media/*",
        "prefix": "media/user.*",
        "all": "*",
        "other": "media/user",
        "elsewhere": ["audio/*", "x/y"],
    }.items():

        @harness.durable.function(on=on, id=id)
        def note(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("media/user.created")
    harness.settle()

    assert set(runs_by_function(harness, event_id)) == {
        "exact",
        "folder",
        "prefix",
        "all",
    }


def test_an_event_that_fits_a_function_twice_has_one_run(harness: Harness) -> None:
    @harness.durable.function(on=["a/b", "a/*"])
    def work(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("a/b")
    harness.settle()

    assert len(harness.runs.list()) == 1
    assert harness.run_of(event_id).status == RunStatus.COMPLETED


def test_the_same_event_id_sent_in_parallel_has_one_run(any_harness: Harness) -> None:
    calls: list[int] = []

    @any_harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("count", lambda: calls.append(1))

    senders = [
        threading.Thread(target=any_harness.send, args=("a/b",), kwargs={"id": "same"})
        for _ in range(50)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    any_harness.settle()

    assert any_harness.run_of("same").status == RunStatus.COMPLETED
    assert len(any_harness.runs.list()) == 1
    assert calls == [1]


def test_a_filter_decides_and_its_error_touches_its_own_function_only(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b", where=lambda event: event.data["n"] > 1)
    def big(event: Event[t.Any], step: Step) -> None: ...

    told: list[Failure] = []

    @harness.durable.function(on="a/b", where=lambda event: 1 / event.data["n"] > 0)
    def broken(event: Event[t.Any], step: Step) -> None: ...

    @broken.on_failure
    def tell(event: Event[t.Any], step: Step, failure: Failure) -> None:
        told.append(failure)

    @harness.durable.function(on="a/b")
    def plain(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("a/b", {"n": 0})
    harness.settle()
    runs = runs_by_function(harness, event_id)

    assert set(runs) == {"broken", "plain"}
    assert runs["plain"].status == RunStatus.COMPLETED
    assert runs["broken"].status == RunStatus.FAILED
    assert runs["broken"].failure is not None
    assert runs["broken"].failure.type == "ZeroDivisionError"
    assert [failure.type for failure in told] == ["ZeroDivisionError"]


def test_data_is_a_model_exactly_where_the_class_is_named(harness: Harness) -> None:
    seen: dict[str, t.Any] = {}

    @harness.durable.function(on=Uploaded)
    def typed(event: Event[Uploaded], step: Step) -> None:
        seen["typed"] = event.data

    @harness.durable.function(on="media/uploaded")
    def untyped(event: Event[t.Any], step: Step) -> None:
        seen["untyped"] = event.data

    harness.send(Uploaded(path="/x"))
    harness.settle()

    assert seen == {"typed": Uploaded(path="/x"), "untyped": {"path": "/x"}}


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        '{"v":1,"kind":"event","name":"media/uploaded"}',
        '{"v":1,"kind":"event","name":"a/b","data":{"n":NaN},"id":"e","at":1}',
        '{"v":1,"kind":"event","name":"a/b","data":{"n":1e999},"id":"e","at":1}',
        EventMessage("media/uploaded", {"path": 7}, "e1", 1_800_000_000_000).encode(),
    ],
)
def test_what_cannot_be_understood_is_dead_lettered_and_blocks_nothing(
    any_harness: Harness, body: str
) -> None:
    calls: list[str] = []

    @any_harness.durable.function(on=Uploaded)
    def work(event: Event[Uploaded], step: Step) -> None:
        calls.append(event.data.path)

    broker = any_harness.state.broker
    broker.sender.send(EVENT_QUEUE, [body])
    any_harness.send(Uploaded(path="/good"))
    any_harness.settle()
    broker.flush_settled(5)

    assert calls == ["/good"]
    assert broker.transport.counts(EVENT_QUEUE).dead == 1


def test_a_router_with_older_code_leaves_nothing_out(
    any_harness: Harness, valkey: t.Any, namespace: str
) -> None:
    old = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=any_harness.app.config.get("DURABLE_QUEUE_URL"),
    )

    @old.durable.function(on="a/b")
    def first(event: Event[t.Any], step: Step) -> str:
        return "first"

    old.start()  # It has read the directory, and remembers it.

    any_harness.durable.functions.add(first)

    @any_harness.durable.function(on="a/b", where=lambda event: event.data["n"] > 5)
    def second(event: Event[t.Any], step: Step) -> str:
        return "second"

    any_harness.start()
    small, large = any_harness.send("a/b", {"n": 1}), any_harness.send("a/b", {"n": 9})
    while old.route():
        pass
    old.execute()
    any_harness.advance(31)

    runs = runs_by_function(any_harness, large)
    assert {id: run.result for id, run in runs.items()} == {
        "first": "first",
        "second": "second",
    }
    skipped = runs_by_function(any_harness, small)["second"]
    assert (skipped.status, skipped.reason, skipped.result) == (
        RunStatus.COMPLETED,
        "filtered",
        None,
    )
    old.close()


@pytest.mark.parametrize("old_last", [False, True])
def test_whichever_version_was_started_last_no_trigger_is_passed_by(
    any_harness: Harness, valkey: t.Any, namespace: str, old_last: bool
) -> None:
    url = any_harness.app.config.get("DURABLE_QUEUE_URL")
    old = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=url)

    @old.durable.function(on=["order/placed", "order/dropped"], id="bill")
    def before(event: Event[t.Any], step: Step) -> None: ...

    @any_harness.durable.function(on=["order/placed", "order/changed"], id="bill")
    def after(event: Event[t.Any], step: Step) -> None: ...

    for each in (any_harness, old) if old_last else (old, any_harness):
        each.start()
    for router in (old, any_harness):
        router.sweep()
        names = ("placed", "dropped", "changed")
        sent = [any_harness.send(f"order/{name}") for name in names]
        while router.route():
            pass
        for event_id in sent:
            assert any_harness.run_of(event_id).function == "bill"
    old.close()


class Order(EventData, name="order/placed"):
    kind: t.Literal["a", "b"]


class NewOrder(EventData, name="order/placed"):
    kind: t.Literal["a", "b", "c"]


def test_an_event_of_a_release_that_has_no_workers_yet_is_kept_for_them(
    any_harness: Harness, valkey: t.Any, namespace: str
) -> None:
    url = any_harness.app.config.get("DURABLE_QUEUE_URL")
    new = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=url)
    for harness, schema in ((any_harness, Order), (new, NewOrder)):

        @harness.durable.function(on=schema, id="bill")
        def bill(event: Event[t.Any], step: Step) -> None: ...

    any_harness.start()
    new.send("order/placed", {"kind": "c"})
    while not any_harness.route():
        pass
    any_harness.state.broker.flush_settled(5)

    assert any_harness.state.transport.counts(EVENT_QUEUE).dead == 0
    new.close()


@pytest.mark.parametrize("old_last", [False, True])
def test_what_fits_in_another_release_alone_goes_back_and_what_fits_in_none_is_dead(
    any_harness: Harness, valkey: t.Any, namespace: str, old_last: bool
) -> None:
    url = any_harness.app.config.get("DURABLE_QUEUE_URL")
    old = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=url)
    for harness, schema in ((old, Order), (any_harness, NewOrder)):

        @harness.durable.function(on=schema, id="bill")
        def bill(event: Event[t.Any], step: Step) -> None: ...

    for each in (any_harness, old) if old_last else (old, any_harness):
        each.start()
    broker = any_harness.state.broker
    event_id = any_harness.send("order/placed", {"kind": "c"})
    while not old.route():
        pass
    old.state.broker.flush_settled(5)
    assert broker.transport.counts(EVENT_QUEUE).dead == 0

    client, root = old.state.server.client, old.state.store.keys.root
    for name in names_of(old.durable.functions.specs()):
        client.zincrby(f"{root}:functions:seen", -3_600_000, name)
    any_harness.publish()
    wrong = EventMessage("order/placed", {"kind": "d"}, "e2", 1)
    broker.sender.send(EVENT_QUEUE, [wrong.encode()])
    while not any_harness.route():
        pass
    broker.flush_settled(5)
    assert broker.transport.counts(EVENT_QUEUE).dead == 1
    (letter,) = any_harness.state.dead_letters.list()
    assert letter.event_id == "e2"
    assert any_harness.runs.of_event(event_id) == []
    old.close()


def test_a_router_uses_its_own_triggers_where_the_directory_lost_them(
    harness: Harness,
) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.start()
    root = harness.state.store.keys.root
    harness.state.server.client.delete(f"{root}:functions", f"{root}:functions:version")
    harness.sweep()
    event_id = harness.send("a/b")
    harness.settle()
    harness.publish()

    assert harness.run_of(event_id).function == "work"


def test_an_event_delivered_again_changes_nothing(harness: Harness) -> None:
    calls: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("count", lambda: calls.append(1))

    message = EventMessage("a/b", {}, "again", 1_700_000_000_000)
    for _ in range(3):
        harness.state.message_sender.send(EVENT_QUEUE, [message.encode()])
        harness.settle()

    assert calls == [1]


def test_a_late_run_message_is_harmless(harness: Harness) -> None:
    harness.in_place = 0
    calls: list[int] = []

    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None:
        step.run("count", lambda: calls.append(1))

    run = harness.send_and_settle("a/b")
    record = [(run.id, "work", "default", 1)]
    harness.state.outbox.send_runs(record * 5)
    harness.settle()

    assert calls == [1]
    assert harness.runs.get(run.id).status == RunStatus.COMPLETED


def send_elsewhere(harness: Harness, url: str, namespace: str) -> str:
    """Send an event that is routed where the code of its function is not."""
    harness.start()
    elsewhere = Harness(url, namespace)
    elsewhere.app.name = harness.app.name
    elsewhere.state.directory.current()
    event_id = harness.send("a/b")
    deliveries = elsewhere.state.broker.deliveries("events", 1, 0)
    Router(elsewhere.state.services, elsewhere.state.outbox).route(deliveries)
    elsewhere.close()
    assert len(deliveries) == 1
    return event_id


def test_a_filter_that_exits_fails_its_run_and_not_the_router(harness: Harness) -> None:
    @harness.durable.function(on="a/b", where=lambda event: sys.exit("no"))
    def strict(event: Event[t.Any], step: Step) -> None: ...

    @harness.durable.function(on="a/b")
    def other(event: Event[t.Any], step: Step) -> None: ...

    event_id = harness.send("a/b")
    harness.settle()

    failed = harness.run_of(event_id, "strict")
    assert failed.status == RunStatus.FAILED
    assert failed.failure is not None
    assert (failed.failure.type, failed.failure.code) == ("SystemExit", "user")
    assert harness.run_of(event_id, "other").status == RunStatus.COMPLETED


def test_a_filter_is_not_asked_again_after_the_run_did_something(
    harness: Harness, valkey: t.Any, namespace: str
) -> None:
    seen: list[str] = []

    @harness.durable.function(on="a/b", where=lambda event: not seen)
    def work(event: Event[t.Any], step: Step) -> str:
        step.run("note", lambda: seen.append("noted"))
        step.sleep("pause", 60)
        return "to the end"

    event_id = send_elsewhere(harness, valkey.url, namespace)
    harness.settle()
    harness.advance(61)

    run = harness.run_of(event_id)
    assert (run.status, run.result) == (RunStatus.COMPLETED, "to the end")


def test_a_filter_that_raises_where_the_run_is_executed_fails_it_at_once(
    harness: Harness, valkey: t.Any, namespace: str
) -> None:
    reports: list[str] = []

    @harness.durable.function(on="a/b", where=lambda event: event.data["missing"])
    def work(event: Event[t.Any], step: Step) -> None: ...

    @work.on_failure
    def report(event: Event[t.Any], step: Step, failure: Failure) -> None:
        reports.append(failure.type)

    event_id = send_elsewhere(harness, valkey.url, namespace)
    harness.settle()

    assert harness.run_of(event_id).status == RunStatus.FAILED
    assert reports == ["KeyError"]


def test_a_directory_that_a_failover_changed_is_matched_again(harness: Harness) -> None:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.send_and_settle("a/b")
    server, root = harness.state.server, harness.state.store.keys.root
    # The version is the same, what it stands for is not.
    spec = {**work.spec(), "id": "other", "triggers": ["c/d"]}
    server.client.hset(f"{root}:functions", "other", json.dumps(spec))
    harness.sweep()
    event_id = harness.send("c/d")
    harness.settle()

    assert harness.runs.of_event(event_id)[0].function == "other"
