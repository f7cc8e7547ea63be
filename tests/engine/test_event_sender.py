"""The owner of an event that was sent, while the queue does not take it."""

from __future__ import annotations

import os
import threading
import typing as t

import pytest

from flask_durable import Durable
from flask_durable import Event
from flask_durable import EventError
from flask_durable import RunStatus
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.app import health
from flask_durable.app.health import HealthChecks
from flask_durable.messages import EventMessage
from flask_durable.middleware import Around
from flask_durable.middleware import Middleware
from flask_durable.middleware import SendInfo
from flask_durable.payloads.sealing import Payloads
from flask_durable.queue.sqs.batch import MAX_BYTES
from flask_durable.security.keys import new_event_key
from flask_durable.store.barrier import Barrier
from flask_durable.store.spool import Spool

from ..support.forks import in_child
from ..support.harness import Harness
from ..support.proxy import MARKS
from ..support.proxy import Moment
from ..support.proxy import Proxy
from ..support.proxy import proxy
from ..support.proxy import queue_url
from ..support.servers import free_port
from ..support.servers import SQSServer
from ..support.servers import valkey_server
from ..support.servers import ValkeyServer
from ..support.servers import wait_until


class Gate:
    """An app whose queue is behind a proxy."""

    def __init__(self, harness: Harness, proxy: Proxy) -> None:
        self.harness = harness
        self.proxy = proxy
        self.calls: list[str] = []

        @harness.durable.function(on="a/b")
        def work(event: Event[t.Any], step: Step) -> None:
            step.run("call", lambda: self.calls.append(event.id))

        harness.start()

    def send_many(self, count: int) -> list[str]:
        events = [Event("a/b", {}, id=f"e{number}") for number in range(count)]
        with self.harness.app.app_context():
            return self.harness.durable.send_many(events)

    def flush(self) -> None:
        """Sweep until the outbox is empty, and execute what comes of it."""

        def empty() -> bool:
            self.harness.advance(6)
            return not self.harness.state.store.count_owed_events()

        wait_until(empty, "an empty outbox")
        self.harness.settle()


Make = t.Callable[..., Gate]


@pytest.fixture(params=["redis", "sqs"])
def make(
    request: pytest.FixtureRequest,
    valkey: ValkeyServer,
    sqs: SQSServer,
    namespace: str,
) -> t.Iterator[Make]:
    kind = request.param
    gates: list[Gate] = []
    with proxy(valkey.port if kind == "redis" else sqs.port, MARKS[kind]) as made:

        def new(url: str = valkey.url, **config: t.Any) -> Gate:
            harness = Harness(
                url,
                namespace,
                DURABLE_QUEUE_URL=queue_url(kind, made.port),
                **{"DURABLE_ACCEPT_TIMEOUT": 1, **config},
            )
            gates.append(Gate(harness, made))
            return gates[-1]

        yield new
        for gate in gates:
            gate.harness.close()


def test_send_rides_out_what_the_queue_does_not_take_at_first(make: Make) -> None:
    gate = make(DURABLE_ACCEPT_TIMEOUT=30)  # two calls have to fail in it
    gate.send_many(1)
    gate.proxy.cut_next(Moment.BEFORE_REQUEST, Moment.BEFORE_REPLY)

    ids = gate.send_many(5)

    gate.harness.settle()
    assert sorted(gate.calls) == ids
    assert gate.proxy.cut == 2


def test_send_says_what_was_not_taken_in_time(make: Make) -> None:
    gate = make()
    gate.proxy.take_down()

    with pytest.raises(UnavailableError, match="did not take 3 of 3") as caught:
        gate.send_many(3)

    assert caught.value.sent == []
    assert gate.harness.state.store.count_owed_events() == 0
    gate.proxy.bring_up()
    gate.send_many(3)
    gate.harness.settle()
    assert len(gate.calls) == 3


@pytest.mark.timeout(30)
def test_a_queue_that_hangs_costs_a_send_no_more_than_seconds(make: Make) -> None:
    gate = make()
    gate.send_many(1)
    gate.proxy.silent = True

    for _ in range(3):
        with pytest.raises(UnavailableError):
            gate.send_many(100)


@pytest.mark.timeout(30)
def test_a_state_server_that_hangs_holds_up_no_send_to_a_queue_elsewhere(
    make: Make,
) -> None:
    with valkey_server() as state:
        gate = make(state.url)
        gate.send_many(1)
        gate.harness.state.memory._ask_at = float("-inf")
        state.pause()
        for _ in range(20):
            gate.send_many(1)
        state.resume()
        gate.harness.close()


@pytest.mark.parametrize("fsync", ["off", "step"])
def test_a_spooled_event_is_owned_and_runs_once(make: Make, fsync: str) -> None:
    gate = make(DURABLE_SPOOL=True, DURABLE_PARTITIONS=3, DURABLE_FSYNC=fsync)
    gate.proxy.take_down()

    ids = gate.send_many(12)
    assert gate.send_many(12) == ids  # the same ones again

    assert gate.harness.state.store.count_owed_events() >= 12
    gate.proxy.bring_up()
    gate.flush()
    assert sorted(gate.calls) == sorted(ids)
    statuses = {run.status for id in ids for run in gate.harness.runs.of_event(id)}
    assert statuses == {RunStatus.COMPLETED}


def test_a_queue_that_stays_away_is_tried_without_losing_anything(make: Make) -> None:
    gate = make(DURABLE_SPOOL=True)
    gate.proxy.take_down()
    ids = gate.send_many(3)

    gate.harness.move_clock(6)
    gate.harness.sweep()
    assert gate.harness.state.store.count_owed_events() == 3
    gate.proxy.bring_up()
    gate.flush()

    assert sorted(gate.calls) == ids


def test_a_full_spool_is_an_error(make: Make) -> None:
    gate = make(DURABLE_SPOOL=True)
    state = gate.harness.state
    state.event_sender._spool = Spool(state.server, state.store.keys, limit=2)
    gate.proxy.take_down()

    with pytest.raises(UnavailableError, match=r"1 of 3 .* holds 2 events") as caught:
        gate.send_many(3)

    assert caught.value.sent == ["e0", "e1"]


def test_what_the_queue_will_never_take_is_not_spooled(
    sqs: SQSServer, valkey: ValkeyServer, namespace: str
) -> None:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_SPOOL=True,
        DURABLE_INLINE_LIMIT=MAX_BYTES,
        DURABLE_MAX_VALUE=MAX_BYTES,
    )
    message = harness.state.message("a/b", {"x": "y"})
    message.__dict__["_text"] = "\x00"

    [error] = harness.state.event_sender.send([message])

    assert isinstance(error, EventError)
    assert harness.state.store.count_owed_events() == 0
    harness.close()


def test_an_unforeseen_error_of_a_send_is_an_answer_that_hooks_see_too(
    valkey: ValkeyServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SendInfo] = []

    class Watch(Middleware):
        def around_send(self, send: SendInfo) -> Around:
            seen.append(send)
            return super().around_send(send)

    def fails(payloads: Payloads, message: EventMessage) -> str:
        raise OSError("the disk is full")

    durable = Durable(middleware=[Watch()])
    harness = Harness(valkey.url, namespace, durable=durable)
    monkeypatch.setattr(Payloads, "seal_event", fails)

    with pytest.raises(UnavailableError, match="the disk is full") as caught:
        harness.send("a/b")

    assert isinstance(caught.value.__cause__, OSError)
    assert [*seen[0].outcomes] == [caught.value.__cause__]
    harness.close()


def test_nothing_is_sent_without_a_call_and_without_a_hook(
    valkey: ValkeyServer, namespace: str
) -> None:
    seen: list[SendInfo] = []

    class Watch(Middleware):
        def around_send(self, send: SendInfo) -> Around:
            seen.append(send)
            return super().around_send(send)

    harness = Harness(valkey.url, namespace, durable=Durable(middleware=[Watch()]))

    assert harness.state.event_sender.send([]) == []

    assert seen == []
    harness.close()


def test_what_is_added_to_an_event_counts_for_what_the_queue_takes(
    sqs: SQSServer, valkey: ValkeyServer, namespace: str
) -> None:
    key = new_event_key()
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_QUEUES={"events": {"group": "name"}},
        DURABLE_INLINE_LIMIT=MAX_BYTES,
        DURABLE_EVENT_KEYS=[key],
        DURABLE_INNGEST_EVENT_API=True,
    )
    empty = len(harness.state.message("a/b", {"x": ""}, id="e1").encode())
    # Nothing is wrong with the event: but for its group it has as much as SQS takes.
    large = {"name": "a/b", "id": "e1", "data": {"x": "x" * (MAX_BYTES - empty)}}
    try:
        with pytest.raises(EventError, match="never takes the event e1"):
            harness.send("a/b", large["data"], id="e1")

        client = harness.app.test_client()
        bearer = {"Authorization": f"Bearer {key}"}
        # Nothing of a request is taken that has such a one.
        events = [{"name": "a/b", "id": "e0", "data": {}}, large]
        response = client.post("/durable/events", json=events, headers=bearer)
        assert response.status_code == 413
        assert "never takes the event e1" in response.json["message"]
        assert {e["status"] for e in response.json["events"]} == {"failed"}
        assert client.post(f"/e/{key}", json=large).status_code == 413
        assert harness.state.transport.counts("events").waiting == 0

        @harness.durable.function(on="c/d", retries=3)
        def sends(event: Event[t.Any], step: Step) -> None:
            step.send_event("more", Event("a/b", large["data"], id="e1"))

        run = harness.send_and_settle("c/d")
        assert run.status == "failed"
        assert "never takes" in str(run.failure)
    finally:
        harness.close()


def test_health_counts_what_waits_for_the_queue(make: Make) -> None:
    gate = make(DURABLE_SPOOL=True)
    gate.proxy.take_down()
    gate.send_many(2)
    gate.proxy.bring_up()

    checks = {
        check.name: check for check in HealthChecks(gate.harness.state).everything()
    }

    assert checks["outbox"].ok
    assert (
        checks["outbox"].detail == "2 event(s) wait for the queue, DURABLE_SPOOL is on"
    )


@pytest.mark.parametrize("spools", [False, True])
def test_what_nobody_owns_is_not_waited_for(
    valkey: ValkeyServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    spools: bool,
) -> None:
    """With ``DURABLE_FSYNC="step"`` only what was taken has to be on disk."""
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=f"redis://127.0.0.1:{free_port()}",
        DURABLE_FSYNC="step",
        DURABLE_ACCEPT_TIMEOUT="1s",
        DURABLE_SPOOL=spools,
    )
    waits: list[t.Any] = []
    monkeypatch.setattr(Barrier, "wait", lambda barrier, since: waits.append(since))
    if spools:
        harness.send("a/b")
    else:
        with pytest.raises(UnavailableError):
            harness.send("a/b")
    assert len(waits) == spools
    harness.close()


def test_a_server_that_hangs_is_found_not_ready_without_asking_its_queue(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READINESS_BELIEVED", 0)
    with valkey_server() as server:
        harness = Harness(server.url, namespace, DURABLE_ACCEPT_TIMEOUT="1s")
        assert harness.state.readiness.problems() == []
        server.pause()
        try:
            [problem] = harness.state.readiness.problems()
        finally:
            server.resume()
        assert problem.startswith("state server")
        harness.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_others_send_can_send(
    valkey: t.Any, namespace: str
) -> None:
    harness = Harness(valkey.url, namespace, DURABLE_FSYNC="step")
    harness.send("a/b")
    stopping = threading.Event()

    def send() -> None:
        while not stopping.is_set():
            harness.send("a/b")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert in_child(lambda: harness.send("a/b")) == 0
    finally:
        stopping.set()
        sender.join(30)
        harness.close()
