"""Events that come back: they are routed with ever fewer others, and at last alone."""

from __future__ import annotations

import itertools
import typing as t

import pytest

from flask_durable import Event
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable.common.redelivery import pause_before
from flask_durable.engine.claimed_run import ClaimedRun
from flask_durable.engine.router import Router
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.worker import router_thread
from flask_durable.worker.router_thread import ROUTED_TOGETHER
from flask_durable.worker.router_thread import RouterThread

from ..support.harness import Harness


class Watched(Router):
    """A router that tells which events it was given together."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness.state.services, harness.state.outbox)
        self.together: list[list[str]] = []

    def route(self, deliveries: t.Any, **given: t.Any) -> None:
        self.together.append([delivery.message.id for delivery in deliveries])
        super().route(deliveries, **given)


@pytest.fixture
def router(harness: Harness) -> Watched:
    @harness.durable.function(on="a/b")
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.start()
    harness.state.window.add(ROUTED_TOGETHER)
    return Watched(harness)


def thread(harness: Harness, router: Router) -> RouterThread:
    return RouterThread(harness.state.broker, router, harness.state.failures)


def send(harness: Harness, count: int, receives: int = 1) -> list[str]:
    """Send events that are received for the given time when they come next."""
    sent = [harness.send("a/b", id=f"e{number}") for number in range(count)]
    broker = harness.state.broker
    for _ in range(receives - 1):
        deliveries = broker.deliveries(EVENT_QUEUE, count, 1)
        assert len(deliveries) == count
        for delivery in deliveries:
            delivery.release()
        assert broker.flush_settled(5)
    return sent


@pytest.mark.parametrize(
    ("receives", "sizes"), [(1, [12]), (2, [8, 4]), (3, [2] * 6), (4, [1] * 12)]
)
def test_the_more_often_events_came_the_fewer_are_routed_together(
    harness: Harness, router: Watched, receives: int, sizes: list[int]
) -> None:
    sent = send(harness, 12, receives)

    assert thread(harness, router).route(1) == 12

    assert [len(batch) for batch in router.together] == sizes
    assert [*itertools.chain(*router.together)] == sent
    assert all(harness.run_of(event_id) for event_id in sent)


def test_an_event_that_was_routed_when_a_process_ended_comes_after_the_others(
    harness: Harness, router: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_thread, "ROUTING_PAUSE_SECONDS", 0)
    sent = send(harness, 4, receives=4)
    broker = harness.state.broker

    class Ended(Exception):
        pass

    class Fatal(Watched):
        def route(self, deliveries: t.Any, **given: t.Any) -> None:
            if deliveries[0].message.id in ("e1", "e2"):
                broker.flush_settled(5)
                raise Ended
            super().route(deliveries, **given)

    # Each life ends at the first bad one: what it has not come to was noted by none.
    for _ in range(3):
        life = thread(harness, Fatal(harness))
        life._route_together = life._router.route  # type: ignore[method-assign]
        with pytest.raises(Ended):
            life.route(2)
        assert broker.flush_settled(5)

    assert harness.run_of("e3")
    assert thread(harness, router).route(2) == 2
    assert sorted(router.together) == [["e1"], ["e2"]]
    assert sent == ["e0", "e1", "e2", "e3"]


def test_events_that_came_back_wait_for_those_that_are_new(
    harness: Harness, router: Watched
) -> None:
    send(harness, 2, receives=4)
    harness.send("a/b", id="new")

    assert thread(harness, router).route(1) == 3

    assert router.together == [["new"], ["e0"], ["e1"]]


def test_groups_of_a_fifo_queue_keep_their_order_behind_those_that_ended_nothing(
    harness: Harness, router: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = harness.state.broker
    monkeypatch.setattr(broker.transport, "is_ordered", lambda queue: True)
    groups = ["bad", "bad", "good", "new", "good", "bad"]
    bodies = [
        EventMessage("a/b", {}, f"e{number}", 1, group=group).encode()
        for number, group in enumerate(groups)
    ]
    broker.sender.send(EVENT_QUEUE, bodies)
    deliveries = broker.deliveries(EVENT_QUEUE, len(groups), 1)
    for delivery in deliveries:
        message = delivery.message
        count = 1 if message.group == "new" else 4
        delivery.received = _received(delivery.received, count)
    harness.state.failures.note({deliveries[1].message.key: router_thread.SUSPECTED})

    thread(harness, router)._route_all(deliveries)

    came = [number for (number,) in router.together]
    assert came == ["e3", "e2", "e4", "e0", "e1", "e5"]


def test_what_raises_in_routing_comes_back_later_each_time(
    harness: Harness, router: Watched
) -> None:
    class Raising(Watched):
        def route(self, deliveries: t.Any, **given: t.Any) -> None:
            raise SystemExit

    send(harness, 1)
    delays = []
    broker = harness.state.broker
    (delivery,) = broker.deliveries(EVENT_QUEUE, 1, 1)
    for receives in range(1, 10):
        delivery.received = _received(delivery.received, receives)
        delivery.failed = lambda error, delay: delays.append(delay)  # type: ignore
        thread(harness, Raising(harness))._route_alone(delivery)
    delivery.release()

    assert delays == [5, 10, 20, 40, 80, 160, 320, 640, 900]


def _received(received: t.Any, count: int) -> t.Any:
    return type(received)(received.body, received.receipt, count, received.sent)


class Slots:
    """Run threads that count."""

    def __init__(self, harness: Harness, free: int) -> None:
        self.harness = harness
        self.free = free

    def serves(self, queue: str) -> bool:
        return True

    def reserve(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    def release(self) -> None:
        self.free += 1

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        self.harness.threads.runs.append(run)


def test_an_event_that_cannot_be_routed_takes_no_slot_and_no_other_with_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @harness.durable.function(on="a/*")
    def work(event: Event[t.Any], step: Step) -> None: ...

    harness.start()
    harness.state.window.release(9)
    slots = Slots(harness, 4)
    monkeypatch.setattr(harness.router, "_threads", slots)
    creation = harness.state.store.creation

    def refuse(run: t.Any) -> t.Any:
        if run.event_name == "a/bad":
            raise RuntimeError("cannot be routed")
        return creation(run)

    monkeypatch.setattr(harness.state.store, "creation", refuse)
    good = [harness.send("a/good"), harness.send("a/good")]
    harness.send("a/bad")

    routed = RouterThread(harness.state.broker, harness.router).route(0)

    assert routed == 3
    assert slots.free == 2
    assert [harness.run_of(id).status for id in good] == [RunStatus.RUNNING] * 2
    # It comes again as what could not be routed for another reason does: after pauses
    # that double, so that its receives last.
    assert harness.state.broker.flush_settled(5)
    counts = harness.state.transport.counts(EVENT_QUEUE)
    assert (counts.delayed, pause_before(1), pause_before(2)) == (1, 5.0, 10.0)
    assert sum(map(pause_before, range(1, 10))) > 1800
