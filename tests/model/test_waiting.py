"""Waiting for events: what a wait returns, which events count, and when."""

from __future__ import annotations

import functools
import logging
import pathlib
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from datetime import timedelta
from datetime import timezone

import pytest

from flask_durable import Durable
from flask_durable import Event
from flask_durable import EventData
from flask_durable import EventError
from flask_durable import RunNotFound
from flask_durable import RunStateError
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import StepUsageError
from flask_durable import UnavailableError
from flask_durable.cli.timeline import describe
from flask_durable.engine.router import Router
from flask_durable.errors import DefinitionError
from flask_durable.payloads.cipher import new_encryption_key
from flask_durable.store.directory import VERSION_GONE

from ..support.harness import Harness
from ..support.servers import ValkeyServer


class Started(EventData, name="order/started"):
    order_id: t.Any = None


class Paid(EventData, name="order/paid"):
    order_id: t.Any
    amount: float = 0.0


Data = dict[str, t.Any] | None


def wait_in(
    durable: Durable,
    *,
    awaits: t.Sequence[str | type[EventData]] = ("order/paid",),
    event: t.Any = "order/paid",
    waits: int = 1,
    **given: t.Any,
) -> None:
    """Declare a function that waits and returns the ids of the events that came."""
    options = {"timeout": "1h", **given}

    @durable.function(on="order/started", awaits=awaits)
    def order(event_: Event[t.Any], step: Step) -> list[str | None]:
        found = [
            step.wait_for_event(f"wait{i}", event, **options) for i in range(waits)
        ]
        return [event and event.id for event in found]


def start(harness: Harness, data: Data = None, id: str = "order") -> str:
    harness.send("order/started", data or {}, id=id)
    harness.settle()
    return id


def result(harness: Harness, id: str = "order") -> t.Any:
    run = harness.run_of(id)
    assert run.status == RunStatus.COMPLETED, (run.status, run.reason, run.failure)
    return run.result


def end_wait(harness: Harness, step: str) -> None:
    """Let the time of a wait be over, before any sweep sees it."""
    run_id = harness.run_of("order").id
    key = f"{harness.state.store.keys.tag_of(run_id)}:steps:{run_id}"
    memo = str(harness.state.server.client.hget(key, step))
    status, token, _, rest = memo.split(" ", 3)
    harness.state.server.client.hset(key, step, f"{status} {token} 1 {rest}")


def test_a_wait_returns_the_event_that_came(any_harness: Harness) -> None:
    """1.1: the event that matched."""
    seen: list[Event[t.Any]] = []

    @any_harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> t.Any:
        paid = step.wait_for_event("paid", "order/paid", timeout="1h")
        assert paid is not None
        seen.append(paid)
        return paid.data

    start(any_harness)
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    any_harness.send("order/paid", {"amount": 7}, id="p1", at=at)
    any_harness.settle()

    assert result(any_harness) == {"amount": 7}
    assert (seen[0].name, seen[0].id, seen[0].at) == ("order/paid", "p1", at)


def test_a_wait_for_a_class_returns_its_model(any_harness: Harness) -> None:
    """1.1: typed if a class was given."""

    @any_harness.durable.function(on=Started, awaits=[Paid])
    def order(event: Event[Started], step: Step) -> float:
        paid = step.wait_for_event("paid", Paid, timeout="1h")
        assert paid is not None
        return paid.data.amount + 0.5

    start(any_harness)
    any_harness.send(Paid(order_id=1, amount=2))
    any_harness.settle()

    assert result(any_harness) == 2.5


def test_a_wait_returns_none_when_its_time_is_over(any_harness: Harness) -> None:
    """1.1: or None when the time was over."""
    wait_in(any_harness.durable)
    start(any_harness)

    any_harness.advance(3590)
    assert any_harness.run_of("order").status == RunStatus.SUSPENDED
    any_harness.advance(11)

    assert result(any_harness) == [None]


def test_a_run_that_waits_holds_no_thread_no_message_and_no_lease(
    any_harness: Harness,
) -> None:
    """1.2: the run is suspended."""
    wait_in(any_harness.durable)
    start(any_harness)

    run = any_harness.run_of("order")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "event")
    transport, client = any_harness.state.transport, any_harness.state.server.client
    for queue in ("events", "default"):
        counts = transport.counts(queue)
        assert (counts.waiting, counts.in_flight, counts.delayed) == (0, 0, 0)
    tag = any_harness.state.store.keys.tag_of(run.id)
    assert not client.exists(f"{tag}:leases", f"{tag}:queued", f"{tag}:outbox:default")


def test_a_path_asks_for_the_value_of_the_runs_own_event(any_harness: Harness) -> None:
    """1.3: match="data.x" asks for the same value at the same path."""
    wait_in(any_harness.durable, match="data.order_id")
    start(any_harness, {"order_id": 17}, "a")
    start(any_harness, {"order_id": 18}, "b")

    any_harness.send("order/paid", {"order_id": 18}, id="p18")
    any_harness.settle()

    assert any_harness.run_of("a").status == RunStatus.SUSPENDED
    assert result(any_harness, "b") == ["p18"]
    any_harness.send("order/paid", {"order_id": 17}, id="p17")
    any_harness.settle()
    assert result(any_harness, "a") == ["p17"]


def test_a_mapping_asks_for_all_its_values(any_harness: Harness) -> None:
    """1.3: a mapping asks for those values."""
    wait_in(
        any_harness.durable, match={"data.order": "o1", "data.state.name": ["ok", 1]}
    )
    start(any_harness)

    for number, data in enumerate(
        [
            {"order": "o1"},
            {"order": "o1", "state": {"name": "ok"}},
            {"order": "o2", "state": {"name": ["ok", 1]}},
            {"order": "o1", "state": {"name": ["ok", 1.0]}},
        ]
    ):
        any_harness.send("order/paid", data, id=f"p{number}")
        any_harness.settle()

    assert result(any_harness) == ["p3"]


@pytest.mark.parametrize(
    ("wanted", "other", "equal"),
    [
        (1, ["1", True, 1.5, None, [1]], 1.0),
        (1.0, ["1.0", 2], 1),
        (True, [1, "true", 1.0], True),
        ("1", [1, 1.0], "1"),
        ("é", ["e"], "\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ({"a": 1, "b": [2.0]}, [{"a": 1}, {"a": 1, "b": [2, 2]}], {"b": [2], "a": 1.0}),
        (-0.0, [False, ""], 0),
    ],
)
def test_values_compare_as_json(
    harness: Harness, wanted: t.Any, other: list[t.Any], equal: t.Any
) -> None:
    """1.3: values compare as JSON (1 is not "1", 1 is 1.0)."""
    wait_in(harness.durable, match={"data.x": wanted})
    start(harness)
    for value in other:
        harness.send("order/paid", {"x": value})
        harness.settle()
    assert harness.run_of("order").status == RunStatus.SUSPENDED

    harness.send("order/paid", {"x": equal}, id="equal")
    harness.settle()

    assert result(harness) == ["equal"]


@pytest.mark.parametrize("own", [{}, {"x": None}, {"x": {"z": 1}}, {"x": 1}])
def test_a_path_that_is_missing_or_null_fits_nothing(
    harness: Harness, own: dict[str, t.Any]
) -> None:
    """1.3: a path that is missing or null matches nothing."""
    wait_in(harness.durable, match="data.x.y")
    start(harness, own)
    for data in ({}, {"x": None}, {"x": {}}, {"x": {"y": None}}):
        harness.send("order/paid", data)
        harness.settle()

    assert harness.run_of("order").status == RunStatus.SUSPENDED
    harness.advance(3601)
    assert result(harness) == [None]


def test_an_event_that_came_before_the_wait_counts(any_harness: Harness) -> None:
    """1.4: from the moment the run was created, the oldest unused one wins."""

    @any_harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> list[str]:
        step.sleep("nap", "1h")
        found = [
            step.wait_for_event(name, "order/paid", timeout="1h", match="data.o")
            for name in ("first", "second", "third")
        ]
        return [event.id for event in found if event]

    any_harness.send("order/paid", {"o": 1}, id="before")
    any_harness.settle()
    start(any_harness, {"o": 1})
    for id, number in (("p1", 1), ("p2", 2), ("p3", 1)):
        any_harness.send("order/paid", {"o": number}, id=id)
        any_harness.settle()
    any_harness.advance(3601)
    assert any_harness.run_of("order").reason == "event"
    any_harness.send("order/paid", {"o": 1}, id="p4")
    any_harness.settle()

    assert result(any_harness) == ["p1", "p3", "p4"]


def test_an_event_that_comes_while_the_wait_begins_is_not_lost(
    any_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.4: no lost wake-up, whichever comes first."""
    wait_in(any_harness.durable)
    waiters = any_harness.state.waiters
    add = waiters.add

    def add_then_route(*args: t.Any, **kwargs: t.Any) -> t.Any:
        reply = add(*args, **kwargs)
        with ThreadPoolExecutor(1) as another:
            another.submit(any_harness.send, "order/paid", id="paid").result()
            another.submit(any_harness.route).result()
        return reply

    monkeypatch.setattr(waiters, "add", add_then_route)
    start(any_harness)

    assert result(any_harness) == ["paid"]
    run = any_harness.run_of("order")
    assert (len(run.claims), run.dispatches) == (1, 0)


def test_two_waits_get_two_events_and_two_runs_the_same(any_harness: Harness) -> None:
    """1.5: at most one of its waits; different runs may use the same event."""
    wait_in(any_harness.durable, waits=2)
    start(any_harness, id="a")
    start(any_harness, id="b")

    any_harness.send("order/paid", id="p1")
    any_harness.settle()
    assert any_harness.run_of("a").status == RunStatus.SUSPENDED
    any_harness.send("order/paid", id="p2")
    any_harness.settle()

    assert result(any_harness, "a") == result(any_harness, "b") == ["p1", "p2"]


def test_the_event_that_started_a_run_answers_none_of_its_waits(
    any_harness: Harness,
) -> None:
    """1.5: and never the event that started it."""
    wait_in(any_harness.durable, awaits=["order/started"], event="order/started")
    start(any_harness, id="own")
    assert any_harness.run_of("own").status == RunStatus.SUSPENDED

    start(any_harness, id="other")

    assert result(any_harness, "own") == ["other"]
    assert any_harness.run_of("other").status == RunStatus.SUSPENDED


def test_events_of_several_names_may_have_one_id(any_harness: Harness) -> None:
    """1.5: such as an order's. An event is another one than that of another name."""

    @any_harness.durable.function(
        on="order/started", awaits=["order/paid", "order/sent"]
    )
    def order(event: Event[t.Any], step: Step) -> list[str | None]:
        found = [
            step.wait_for_event(name, f"order/{name}", timeout="1h")
            for name in ("paid", "sent")
        ]
        return [event and event.name for event in found]

    start(any_harness, id="17")
    for name in ("order/paid", "order/sent"):
        any_harness.send(name, id="17")
        any_harness.settle()
    assert result(any_harness, "17") == ["order/paid", "order/sent"]


def test_an_event_with_a_time_to_come_counts_when_it_has_come(
    any_harness: Harness,
) -> None:
    """1.6: an event with a future at."""
    wait_in(any_harness.durable, timeout="3h")
    start(any_harness)
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    any_harness.send("order/paid", id="later", at=later)
    any_harness.settle()
    assert any_harness.run_of("order").status == RunStatus.SUSPENDED

    any_harness.advance(3500)
    assert any_harness.run_of("order").status == RunStatus.SUSPENDED
    any_harness.advance(110)

    assert result(any_harness) == ["later"]
    tag = any_harness.state.store.keys.tag_of_event("order/paid")
    assert not any_harness.state.server.client.exists(f"{tag}:coming", f"{tag}:timers")


def test_an_event_that_comes_too_late_is_left_for_the_next_wait(
    any_harness: Harness,
) -> None:
    """1.7: a wait that timed out has used no event."""

    @any_harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> list[str | None]:
        first = step.wait_for_event("first", "order/paid", timeout="1h")
        step.sleep("nap", "1h")
        second = step.wait_for_event("second", "order/paid", timeout="1h")
        return [first and first.id, second and second.id]

    start(any_harness)
    end_wait(any_harness, "first")
    any_harness.send("order/paid", id="late")
    any_harness.settle()
    assert any_harness.run_of("order").reason == "event"
    any_harness.advance(3601)
    any_harness.advance(3601)

    assert result(any_harness) == [None, "late"]


def test_the_end_of_a_wait_is_fixed_when_it_is_first_reached(harness: Harness) -> None:
    """1.8: by the state server's clock, however often it is replayed."""
    timeouts = ["1h", "9h"]

    @harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> bool:
        return bool(step.wait_for_event("paid", "order/paid", timeout=timeouts.pop(0)))

    start(harness)
    due = harness.run_of("order").due
    harness.runs.cancel(harness.run_of("order").id)
    harness.runs.retry(harness.run_of("order").id)
    harness.settle()

    assert not timeouts
    assert harness.run_of("order").due == due


def test_events_of_a_declared_name_are_kept_before_the_first_wait(
    any_harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """1.9: declared by awaits=."""

    @any_harness.durable.function(on="order/started", awaits=[Paid])
    def order(event: Event[t.Any], step: Step) -> bool:
        step.sleep("nap", "1h")
        return bool(step.wait_for_event("paid", Paid, timeout="1h"))

    start(any_harness)
    any_harness.send(Paid(order_id=1))
    any_harness.settle()
    any_harness.advance(3601)

    assert result(any_harness) is True
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_name_is_learned_when_a_wait_first_asks_for_it(
    any_harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """1.9: or learned, said once in the log, since earlier events are not known."""

    @any_harness.durable.function(on="order/started")
    def order(event: Event[t.Any], step: Step) -> list[str | None]:
        step.sleep("nap", "1h")
        found = [
            step.wait_for_event(name, "order/paid", timeout="1h")
            for name in ("first", "second")
        ]
        return [event and event.id for event in found]

    start(any_harness)
    any_harness.send("order/paid", id="unknown")
    any_harness.settle()
    any_harness.advance(3601)
    for id in ("p1", "p2"):
        any_harness.send("order/paid", id=id)
        any_harness.settle()

    assert result(any_harness) == ["p1", "p2"]
    actions = [getattr(record, "action", "") for record in caplog.records]
    assert actions.count("awaited_name_learned") == 1


def test_a_wait_gets_its_event_although_no_release_declares_the_name_any_more(
    make_harness: t.Callable[..., Harness],
) -> None:
    """1.9: a wait that is registered gets each event that fits."""

    def release(awaits: t.Sequence[str]) -> Harness:
        durable = Durable()
        wait_in(durable, awaits=awaits)
        return make_harness(durable=durable)

    start(release(["order/paid"]))
    later = release([])
    later.start()
    seen = f"{later.state.store.keys.root}:functions:seen"
    for version in later.state.server.client.zrange(seen, 0, -1):
        later.state.server.client.zincrby(seen, -2 * VERSION_GONE, version)
    later.publish()
    assert not later.state.directory.remembered.declared
    later.send("order/paid", id="paid")
    later.settle()

    assert result(later) == ["paid"]


@pytest.mark.parametrize("event", ["order/paid", "order/settled"])
def test_a_retried_run_waits_for_what_the_code_asks_for_now(
    make_harness: t.Callable[..., Harness],
    event: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """1.3: a wait that another release registered is not taken for the same."""

    def release(event: str, value: int) -> Harness:
        durable = Durable()
        wait_in(durable, event=event, match={"data.amount": value})
        return make_harness(durable=durable)

    old = release("order/paid", 1)
    run_id = old.run_of(start(old)).id
    old.runs.cancel(run_id)
    new = release(event, 2)
    new.runs.retry(run_id)
    new.settle()
    new.send(event, {"amount": 1}, id="one")
    new.settle()
    assert new.run_of("order").status == RunStatus.SUSPENDED
    shown = "\n".join(describe(new.run_of("order")))
    assert f"{event} where data.amount = 2" in shown
    new.send(event, {"amount": 2}, id="two")
    new.settle()

    assert result(new) == ["two"]
    actions = [getattr(record, "action", "") for record in caplog.records]
    assert "step_call_changed" not in actions


def test_another_process_hears_of_a_learned_name_before_it_gives_up_an_event(
    valkey: ValkeyServer, namespace: str
) -> None:
    """1.9: the router compares the directory's version."""
    harness = Harness(valkey.url, namespace)

    @harness.durable.function(on="order/started")
    def order(event: Event[t.Any], step: Step) -> str | None:
        found = step.wait_for_event("paid", "order/paid", timeout="1h")
        return found and found.id

    harness.start()
    other = Harness(valkey.url, namespace)
    other.app.name = harness.app.name
    other.start()
    start(harness)
    harness.send("order/paid", id="paid")
    other.route()
    harness.settle()

    assert result(harness) == "paid"
    harness.close()
    other.close()


def test_events_are_kept_for_the_look_back(
    valkey: ValkeyServer, namespace: str
) -> None:
    """1.9: they are kept for DURABLE_LOOK_BACK."""
    harness = Harness(valkey.url, namespace, DURABLE_LOOK_BACK="2h")
    wait_in(harness.durable)
    harness.start()
    harness.send("order/paid", id="p1")
    harness.settle()
    client, name = harness.state.server.client, "order/paid"
    key = f"{harness.state.store.keys.tag_of_event(name)}:recent:{name}"

    assert list(t.cast("dict[str, str]", client.hgetall(key))) == ["p1"]
    assert 7_100_000 < t.cast(int, client.pttl(key)) <= 7_200_000
    harness.close()


def test_events_beyond_the_bound_in_bytes_are_cut_off_and_counted(
    valkey: ValkeyServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """1.9: what a bound cut off is counted, and a wait that began earlier says so."""
    harness = Harness(
        valkey.url, namespace, DURABLE_LOOK_BACK_SIZE=2**20, DURABLE_INLINE_LIMIT=2**20
    )

    @harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> list[str | None]:
        step.sleep("nap", "1h")
        found = [
            step.wait_for_event(name, "order/paid", timeout="1h", match=match)
            for name, match in (("any", None), ("first", {"data.n": 0}))
        ]
        return [event and event.id for event in found]

    start(harness)
    for number in range(4):
        data = {"n": number, "text": "x" * 400_000}
        harness.send("order/paid", data, id=f"p{number}")
        harness.settle()
    harness.advance(3601)
    harness.advance(3601)

    assert result(harness) == ["p2", None]
    with harness.app.app_context():
        cut = {check.name: check.detail for check in harness.durable.health()}
    assert "cut off 2 of order/paid" in cut["awaited events"]
    actions = {getattr(record, "action", "") for record in caplog.records}
    assert "wait_looks_back_short" in actions
    harness.close()


def test_an_event_delivered_again_wakes_a_run_once(any_harness: Harness) -> None:
    """1.10: redelivery of an event, or of anything, wakes a run once."""
    wait_in(any_harness.durable, waits=2)
    start(any_harness)
    any_harness.send("order/paid", id="p1")
    deliveries = any_harness.state.broker.deliveries("events", 10, 0)
    other = Router(any_harness.state.services, any_harness.state.outbox)
    text = [(d.message, d.text) for d in deliveries]
    any_harness.router.route(deliveries)
    any_harness.settle()
    for message, body in text:
        other._waiting.deliver(t.cast(t.Any, message), body)
    any_harness.settle()

    run = any_harness.run_of("order")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "event")
    assert [step.status for step in run.steps] == ["done", "waiting"]


def test_a_wait_with_new_paths_finds_earlier_events(any_harness: Harness) -> None:
    """1.4: also events that came before a wait compared these paths."""

    @any_harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> list[str | None]:
        step.sleep("nap", "1h")
        found = [
            step.wait_for_event(name, "order/paid", timeout="1h", match={"data.n": n})
            for name, n in (("a", 30), ("b", 30), ("c", 31))
        ]
        return [event and event.id for event in found]

    start(any_harness)
    for number in (*range(32), 30):
        any_harness.send("order/paid", {"n": number}, id=f"p{number}")
    any_harness.send("order/paid", {"n": 30}, id="again")
    any_harness.settle()
    any_harness.advance(3601)

    assert result(any_harness) == ["p30", "again", "p31"]


def test_one_event_wakes_any_number_of_runs(harness: Harness) -> None:
    """1.3: found by index, page by page."""
    wait_in(harness.durable, waits=2)
    harness.start()
    for number in range(510):
        harness.send("order/started", id=f"o{number}")
    harness.settle()
    client = harness.state.server.client
    tag = harness.state.store.keys.tag_of_event("order/paid")

    for id in ("p1", "p2"):
        assert client.zcard(f"{tag}:waits") == 510
        harness.send("order/paid", id=id)
        harness.settle()

    assert harness.state.store.count("completed") == 510
    assert not client.exists(f"{tag}:waits", f"{tag}:waits:order/paid")


def test_encrypted_events_are_matched_and_values_stay_secret(
    valkey: ValkeyServer, namespace: str
) -> None:
    """1.3: with encryption the router opens the data; nothing readable is stored."""
    key, old = new_encryption_key(), new_encryption_key()
    harness = Harness(
        valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=[key, old], DURABLE_LEASE="10s"
    )
    wait_in(harness.durable, match="data.order_id")
    start(harness, {"order_id": "tell-nobody"})
    client = harness.state.server.client
    for name in client.scan_iter(f"*{namespace}*"):
        kind = client.type(name)
        found = str(client.hgetall(name) if kind == "hash" else name)
        assert "tell-nobody" not in found

    # A process that has not got the new key yet.
    other = Harness(valkey.url, namespace, DURABLE_ENCRYPTION_KEYS=[old])
    other.app.name = harness.app.name
    other.start()
    other.send("order/paid", {"order_id": "tell-nobody"}, id="paid")
    other.route()
    harness.settle()

    assert result(harness) == ["paid"]
    run = harness.run_of("order")
    assert run.steps[0].about["match"] == {"data.order_id": "tell-nobody"}
    harness.close()
    other.close()


def test_events_in_the_blob_store_are_matched_and_copied(
    valkey: ValkeyServer, namespace: str, tmp_path: pathlib.Path
) -> None:
    """1.1: a run holds its own copy of an event that it waited for."""
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_BLOB_URL=f"file://{tmp_path}",
        DURABLE_INLINE_LIMIT=1024,
    )

    @harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> int:
        paid = step.wait_for_event("paid", "order/paid", timeout="1h", match="data.o")
        assert paid is not None
        step.sleep("nap", "1h")
        return len(paid.data["text"])

    start(harness, {"o": 1})
    harness.send("order/paid", {"o": 1, "text": "x" * 5000})
    harness.settle()
    for path in (tmp_path / "events").rglob("*"):
        if path.is_file():
            path.unlink()
    harness.advance(3601)

    assert result(harness) == 5000
    harness.close()


def test_a_timeline_says_what_a_run_waits_for(harness: Harness) -> None:
    """1.2: the run's reason and its step tell of the wait."""
    wait_in(harness.durable, match={"data.o": "x"}, waits=2)
    start(harness)
    text = "\n".join(describe(harness.run_of("order")))
    assert "wait0 (event)" in text
    assert 'order/paid where data.o = "x"' in text
    assert "until" in text

    harness.send("order/paid", {"o": "x"}, id="p1")
    harness.settle()
    done, waiting = harness.run_of("order").steps

    assert (done.kind, done.status, done.value["id"]) == ("event", "done", "p1")
    assert (waiting.status, waiting.value) == ("waiting", None)


@pytest.mark.parametrize(
    ("event", "options", "told"),
    [
        ("order/paid", {"timeout": None}, "no timeout"),
        ("order/paid", {"timeout": "soon"}, "cannot wait"),
        ("order/*", {}, "wildcard"),
        ("", {}, "empty"),
        ("durable/function.failed", {}, "functions only"),
        (EventData, {}, "no event name"),
        ("order/paid", {"match": "order_id"}, 'a path is "data."'),
        ("order/paid", {"match": "data."}, 'a path is "data."'),
        ("order/paid", {"match": {"data.x": object()}}, "not of JSON"),
        ("order/paid", {"match": {"data.x": float("nan")}}, "not of JSON"),
        ("order/paid", {"match": 17}, "cannot match int"),
        ("order/paid", {"match": {"data.x": "y" * 5000}}, "4096 are possible"),
        ("order/paid", {"match": {f"data.{n}": 1 for n in range(11)}}, "11 paths"),
    ],
)
def test_a_wait_that_could_never_end_well_is_refused(
    harness: Harness, event: t.Any, options: dict[str, t.Any], told: str
) -> None:
    """1.1: an error says what to do."""
    wait_in(harness.durable, event=event, **options)
    start(harness)

    run = harness.run_of("order")
    assert run.status == RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.code == StepUsageError.code
    assert told in run.failure.message


@pytest.mark.parametrize("awaits", ["order/paid", Paid, ["order/*"], [7]])
def test_a_declaration_that_awaits_no_events_is_refused(awaits: t.Any) -> None:
    """1.9: awaits= is a sequence of names and classes."""
    with pytest.raises(DefinitionError, match="awaits="):
        wait_in(Durable(), awaits=awaits)


# -- Signals ---------------------------------------------------------------------------


def signals_in(durable: Durable, *names: str, nap: bool = False) -> None:
    """Declare a function that waits for signals and returns their data."""

    @durable.function(on="order/started")
    def order(event: Event[t.Any], step: Step) -> list[t.Any]:
        if nap:
            step.sleep("nap", "1h")
        return [
            step.wait_for_signal(f"w{number}", name, timeout="3h")
            for number, name in enumerate(names)
        ]


def signal(harness: Harness, *args: t.Any, **kwargs: t.Any) -> str:
    with harness.app.app_context():
        return harness.durable.signal(harness.run_of("order").id, *args, **kwargs)


def test_a_signal_is_answered_when_it_is_durable(
    make_harness: t.Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.11: with DURABLE_FSYNC="step", as all that is sent."""
    harness = make_harness(DURABLE_FSYNC="step", in_place=0)
    wait_in(harness.durable)
    run_id = harness.run_of(start(harness)).id
    waits: list[object] = []
    barrier = harness.state.admin._barrier
    monkeypatch.setattr(barrier, "wait", waits.append)
    with harness.app.app_context():
        harness.durable.signal(run_id, "approve")
    assert len(waits) == 1


def test_a_signal_is_refused_where_the_server_is_nearly_full(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.11: what was accepted has the room that is left."""
    wait_in(harness.durable)
    run_id = harness.run_of(start(harness)).id
    monkeypatch.setattr(harness.state.memory, "_ask", lambda: 0.95)
    harness.state.memory._ask_at = 0
    with harness.app.app_context(), pytest.raises(UnavailableError, match="95% full"):
        harness.durable.signal(run_id, "approve")


def test_a_signal_wakes_the_run_that_it_is_addressed_to(any_harness: Harness) -> None:
    """1.11: addressed to one run."""
    signals_in(any_harness.durable, "approve")
    start(any_harness)
    start(any_harness, id="other")
    run = any_harness.run_of("order")
    assert (run.status, run.reason) == (RunStatus.SUSPENDED, "signal")
    assert "signal approve" in "\n".join(describe(run))

    signal(any_harness, "approve", {"by": "Ada"})
    any_harness.settle()

    assert result(any_harness) == [{"by": "Ada"}]
    assert any_harness.run_of("other").status == RunStatus.SUSPENDED


def test_signals_are_kept_in_order_until_they_are_asked_for(
    any_harness: Harness,
) -> None:
    """1.11: kept in order until asked for."""
    signals_in(any_harness.durable, "a", "b", "a", "a", nap=True)
    start(any_harness)
    for name, data in (("a", 1), ("a", 2), ("b", 3)):
        signal(any_harness, name, data)
    any_harness.advance(3601)
    assert any_harness.run_of("order").reason == "signal"
    signal(any_harness, "b", 5)
    signal(any_harness, "a", 4)
    any_harness.settle()

    assert result(any_harness) == [1, 3, 2, 4]


def test_a_signal_is_accepted_once_for_each_id(any_harness: Harness) -> None:
    """1.11: accepted once per id, also by a run that has ended since."""
    signals_in(any_harness.durable, "a", "a")
    start(any_harness)
    assert [signal(any_harness, "a", n, id="s1") for n in (1, 2)] == ["s1", "s1"]
    any_harness.settle()
    assert any_harness.run_of("order").reason == "signal"

    signal(any_harness, "a", 3, id="s2")
    any_harness.settle()
    signal(any_harness, "a", 3, id="s2")

    assert result(any_harness) == [1, 3]


def test_a_finished_run_and_a_full_inbox_refuse_signals(harness: Harness) -> None:
    """1.11: 1,000 at most, then refused; refused for a finished run."""
    signals_in(harness.durable, "a", nap=True)
    start(harness)
    for number in range(1000):
        signal(harness, "b", number)
    with pytest.raises(RunStateError, match="as many signals"):
        signal(harness, "a")
    harness.runs.cancel(harness.run_of("order").id)
    with pytest.raises(RunStateError, match="cancelled"):
        signal(harness, "a")
    with harness.app.app_context(), pytest.raises(RunNotFound):
        harness.durable.signal("nobody", "a")


def test_a_wait_for_a_signal_ends_with_its_time(any_harness: Harness) -> None:
    """1.11: None when the time was over; a late signal is left for the next wait."""
    signals_in(any_harness.durable, "a", "a")
    start(any_harness)
    end_wait(any_harness, "w0")
    signal(any_harness, "a", "late")
    assert any_harness.run_of("order").status == RunStatus.SUSPENDED
    any_harness.advance(3 * 3600 + 1)

    assert result(any_harness) == [None, "late"]


@pytest.mark.parametrize(
    ("name", "data", "id"),
    [
        ("", 1, None),
        ("a b", 1, None),
        ("a", object(), None),
        ("a", "x" * 65536, None),
        ("a", 1, "?"),
        ("a", float("inf"), None),
    ],
)
def test_a_signal_that_is_not_valid_is_refused(
    harness: Harness, name: str, data: t.Any, id: str | None
) -> None:
    """1.11: an error says what is wrong with it."""
    signals_in(harness.durable, "a")
    start(harness)
    with pytest.raises(EventError, match="not valid"):
        signal(harness, name, data, id=id)


# -- In branches -----------------------------------------------------------------------


def branches_that_wait(
    durable: Durable, *names: str, signals: bool = False, then: bool = False
) -> None:
    """Declare a function whose branches wait for one event, or one signal."""

    def wait(step: Step) -> t.Any:
        if signals:
            return step.wait_for_signal("w", "go", timeout="3h")
        event = step.wait_for_event("w", "order/paid", timeout="1h")
        return event and event.id

    @durable.function(on=["order/started", "order/paid"], awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> t.Any:
        if event.name == "order/paid" and event.id != "order":
            return None
        found: t.Any = step.parallel("all", **dict.fromkeys(names, wait))
        return [found, wait(step)] if then else found


def test_of_two_branches_one_gets_an_event(any_harness: Harness) -> None:
    """1.5: a run uses an event for at most one of its waits; branches are the run's."""
    branches_that_wait(any_harness.durable, "a", "b", then=True)
    start(any_harness)
    for id in ("p1", "p2"):
        any_harness.send("order/paid", {}, id=id)
        any_harness.settle()

    # Both are used: the run itself waits for another one.
    assert any_harness.run_of("order").reason == "event"
    any_harness.send("order/paid", {}, id="p3")
    any_harness.settle()

    found, last = result(any_harness)
    assert sorted(found.values()) == ["p1", "p2"]
    assert last == "p3"


def test_earlier_events_are_shared_out_among_branches(any_harness: Harness) -> None:
    """1.4, 1.5: an event counts from the creation of the run, not of the branch."""
    declared: dict[str, t.Any] = {}

    def wait(step: Step) -> t.Any:
        event = step.wait_for_event("w", "order/paid", timeout="1h")
        return event and event.id

    @any_harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> t.Any:
        step.sleep("nap", "10m")
        declared.update(step.parallel("all", a=wait, b=wait))

    start(any_harness)
    for id in ("p1", "p2"):
        any_harness.send("order/paid", {}, id=id)
    any_harness.settle()
    any_harness.advance(601)

    assert any_harness.run_of("order").status == RunStatus.COMPLETED
    assert sorted(declared.values()) == ["p1", "p2"]


def test_the_event_that_started_the_run_is_no_answer_in_a_branch(
    any_harness: Harness,
) -> None:
    """1.5: and never the event that started it."""
    branches_that_wait(any_harness.durable, "a")
    any_harness.send("order/paid", {}, id="order")
    any_harness.settle()
    assert any_harness.run_of("order").status == RunStatus.SUSPENDED
    any_harness.send("order/paid", {}, id="p2")
    any_harness.settle()

    assert result(any_harness) == {"a": "p2"}


def test_a_branch_that_lost_leaves_the_event_to_its_run(any_harness: Harness) -> None:
    """1.5, 2.10: what comes for the run is not for a branch that it does not await."""

    def wait(step: Step) -> t.Any:
        event = step.wait_for_event("w", "order/paid", timeout="1h")
        return event and event.id

    @any_harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> t.Any:
        step.first("one", paid=wait, soon=lambda step: step.sleep("soon", "10m"))
        return wait(step)

    start(any_harness)
    any_harness.advance(601)
    assert any_harness.run_of("order").reason == "event"
    # Its losing branch is not cancelled yet, or it is: the event is the run's.
    any_harness.send("order/paid", {}, id="p1")
    any_harness.settle()

    assert result(any_harness) == "p1"


def test_a_signal_wakes_the_branch_that_waited_first(any_harness: Harness) -> None:
    """1.11: addressed to the run, given to its branches in the order of their waits."""
    reached: dict[str, None] = {}

    def wait(name: str, step: Step) -> t.Any:
        reached[name] = None
        return step.wait_for_signal("w", "go", timeout="3h")

    @any_harness.durable.function(on="order/started")
    def order(event: Event[t.Any], step: Step) -> t.Any:
        a, b, c = (functools.partial(wait, name) for name in "abc")
        return [step.parallel("all", a=a, b=b, c=c), wait("itself", step)]

    start(any_harness)
    assert any_harness.run_of("order").reason == "branches"
    waited = list(reached)

    for number in range(3):
        signal(any_harness, "go", number, id=f"s{number}")
        signal(any_harness, "go", "again", id=f"s{number}")
    any_harness.settle()
    assert any_harness.run_of("order").reason == "signal"
    signal(any_harness, "go", 3)
    any_harness.settle()

    found, last = result(any_harness)
    assert sorted(found, key=found.get) == waited
    assert (sorted(found.values()), last) == ([0, 1, 2], 3)


def test_a_branch_that_lost_leaves_the_signal_to_others(any_harness: Harness) -> None:
    """1.11, 2.10: a branch that its run does not await is passed over in the line."""

    def wait(step: Step) -> t.Any:
        return step.wait_for_signal("w", "go", timeout="3h")

    @any_harness.durable.function(on="order/started")
    def order(event: Event[t.Any], step: Step) -> t.Any:
        step.first("one", a=wait, soon=lambda step: step.sleep("soon", "10m"))
        return step.parallel("two", b=wait)

    start(any_harness)
    any_harness.advance(601)
    signal(any_harness, "go", 7)
    any_harness.settle()

    assert result(any_harness) == {"b": 7}


def test_signals_that_were_there_first_are_taken_in_order(any_harness: Harness) -> None:
    """1.11: kept in order until asked for, by whichever branch."""

    def wait(step: Step) -> t.Any:
        step.sleep("nap", "10m")
        return step.wait_for_signal("w", "go", timeout="3h")

    @any_harness.durable.function(on="order/started")
    def order(event: Event[t.Any], step: Step) -> t.Any:
        return step.parallel("all", a=wait, b=wait)

    start(any_harness)
    for number in range(3):
        signal(any_harness, "go", number)
    any_harness.advance(601)

    assert sorted(result(any_harness).values()) == [0, 1]


def test_a_branch_s_wait_that_is_over_takes_no_signal(any_harness: Harness) -> None:
    """1.11: a late signal is left for the next wait, also where branches waited."""
    branches_that_wait(any_harness.durable, "a", signals=True, then=True)
    start(any_harness)
    any_harness.advance(3 * 3600 + 1)
    assert any_harness.run_of("order").reason == "signal"
    signal(any_harness, "go", 7)
    any_harness.settle()

    assert result(any_harness) == [{"a": None}, 7]


def test_a_signal_to_a_branch_is_one_to_its_run(any_harness: Harness) -> None:
    """1.11: addressed to one run, of which branches are parts."""
    branches_that_wait(any_harness.durable, "a", "b", signals=True)
    start(any_harness)
    for branch in any_harness.runs.children(any_harness.run_of("order").id):
        with any_harness.app.app_context():
            any_harness.durable.signal(branch.id, "go", 1)
    any_harness.settle()

    assert result(any_harness) == {"a": 1, "b": 1}


def test_branches_of_branches_wait_for_their_run(any_harness: Harness) -> None:
    """1.5, 1.11: however deep a branch is, it is the run's."""

    def wait(step: Step) -> t.Any:
        return [
            step.wait_for_signal("s", "go", timeout="3h"),
            getattr(step.wait_for_event("e", "order/paid", timeout="1h"), "id", None),
        ]

    def inner(step: Step) -> t.Any:
        return step.parallel("in", x=wait, y=wait)

    @any_harness.durable.function(on="order/started", awaits=["order/paid"])
    def order(event: Event[t.Any], step: Step) -> t.Any:
        return step.parallel("out", a=inner)

    start(any_harness)
    for number in range(2):
        signal(any_harness, "go", number)
    any_harness.settle()
    for id in ("p1", "p2"):
        any_harness.send("order/paid", {}, id=id)
    any_harness.settle()

    found = result(any_harness)["a"].values()
    assert sorted(found) in ([[0, "p1"], [1, "p2"]], [[0, "p2"], [1, "p1"]])
