"""Messages that were pushed: doubled, late, of others, and never understood."""

from __future__ import annotations

import threading
import typing as t

import pytest

from flask_durable import Event
from flask_durable import EventData
from flask_durable import Step
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.messages import RunMessage
from flask_durable.queue.transport import MAX_RECEIVES

from ...support.harness import Harness
from ...support.servers import SQSServer
from .conftest import end
from .sqsd import AGENT
from .sqsd import body
from .sqsd import Daemon
from .sqsd import headers_of
from .sqsd import PATH
from .sqsd import to_app
from .work import steps

# -- Doubled, late and foreign messages -------------------------------------------


def test_messages_that_are_delivered_again_change_nothing(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 2)
    id = pushed.send("work/asked", {})
    daemon.drain(times=3)
    assert set(daemon.answers) == {200}
    assert done == ["s0", "s1"]
    assert len(pushed.runs.of_event(id)) == 1


def test_a_message_is_done_while_another_worker_has_its_run(
    pushed: Harness, daemon: Daemon
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        go_on.wait(30)

    @pushed.durable.function(on="work/asked", id="slow")
    def slow(event: Event[t.Any], step: Step) -> None:
        step.run("wait", wait)

    id = pushed.send("work/asked", {})
    (message,) = daemon.receive(EVENT_QUEUE)
    first: list[int | None] = []
    thread = threading.Thread(
        target=lambda: first.append(
            daemon.post(PATH, headers_of(message), body(message))
        )
    )
    thread.start()
    try:
        assert inside.wait(30)
        # Its answer is not there yet, and the visibility is over.
        assert daemon.post(PATH, headers_of(message), body(message)) == 200
        run = pushed.run_of(id)
        daemon.send(RunMessage(run.id, "slow", 0).encode(), "default")
        daemon.drain()
        assert pushed.run_of(id).status == "running"
    finally:
        go_on.set()
        thread.join()
    assert first == [200]
    assert pushed.run_of(id).status == "completed"
    assert set(daemon.answers) == {200}


def test_a_run_whose_code_is_not_here_is_set_aside(
    pushed: Harness, daemon: Daemon
) -> None:
    steps(pushed, 1)
    spec = {**next(iter(pushed.durable.functions)).spec(), "id": "newer"}
    pushed.publish()
    pushed.state.directory.publish({"newer": spec})
    id = pushed.send("work/asked", {})
    daemon.drain()
    states = {run.function: run.status.value for run in pushed.runs.of_event(id)}
    assert states == {"work_off": "completed", "newer": "suspended"}


class Counted(EventData, name="things/counted"):
    number: int


# -- Poison -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["nothing", "[]", "{}", '{"v":1,"kind":"event"}', '{"v":1,"kind":["run"]}']
)
def test_what_is_no_message_of_ours_is_dead_lettered_with_the_reason(
    pushed: Harness, daemon: Daemon, text: str
) -> None:
    daemon.send(text)
    daemon.drain()
    assert daemon.answers == [200]
    ((letter, reason),) = daemon.dead()
    assert letter == text
    assert reason


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"", "(an empty message)"),
        (b"a\0b", "a?b"),
        (b"\xff" * 2**20, "\ufffd" * (2**20 // 3)),
    ],
    ids=["empty", "nul", "long"],
)
def test_what_sqs_cannot_store_is_dead_lettered_as_far_as_it_can(
    pushed: Harness, daemon: Daemon, sent: bytes, kept: str
) -> None:
    headers = {**AGENT, "X-Aws-Sqsd-Msgid": "m1"}
    assert daemon.post(PATH, headers, sent) == 200
    [letter] = pushed.state.dead_letters.list()
    # What is cut anyway is cut for its reason, too.
    assert kept.startswith(letter.body)
    assert len(letter.body) >= min(len(kept), 2**20 // 3 - 200)
    assert "no room" not in letter.reason


@pytest.mark.parametrize("text", ['{"v":2,"kind":"run"}', '{"v":1,"kind":"branch"}'])
def test_a_message_of_another_release_comes_again_until_its_last_receive(
    pushed: Harness, daemon: Daemon, text: str
) -> None:
    daemon.send(text)
    for _ in range(MAX_RECEIVES):
        assert daemon.dead() == []
        daemon.deliver(EVENT_QUEUE)
    assert daemon.answers == [503] * (MAX_RECEIVES - 1) + [200]
    ((letter, reason),) = daemon.dead()
    assert letter == text
    assert reason.startswith(f"received {MAX_RECEIVES} times, at last ")


def test_a_message_dies_at_the_last_receive_that_its_queue_has(
    sqs: SQSServer, valkey: t.Any, namespace: str
) -> None:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_QUEUES={EVENT_QUEUE: {"max_receives": 2}},
        DURABLE_PUSH_LOOPBACK=True,
    )
    daemon = Daemon(sqs, to_app(harness.app), namespace)
    try:
        daemon.send('{"v":1,"kind":"branch"}')
        daemon.deliver(EVENT_QUEUE)
        daemon.deliver(EVENT_QUEUE)
        assert daemon.answers == [503, 200]
        assert len(daemon.dead()) == 1
    finally:
        end(harness)


def test_an_event_that_does_not_fit_its_schema_is_dead_lettered(
    pushed: Harness, daemon: Daemon
) -> None:
    pushed.durable.event(Counted)
    message = EventMessage("things/counted", {"number": "many"}, "e1", 0)
    daemon.send(message.encode())
    daemon.drain()
    assert daemon.answers == [200]
    ((_, reason),) = daemon.dead()
    assert "number" in reason


def test_a_message_that_was_received_too_often_is_dead_lettered(
    pushed: Harness, daemon: Daemon
) -> None:
    done = steps(pushed, 1)
    id = pushed.send("work/asked", {})
    (message,) = daemon.receive(EVENT_QUEUE)
    message["Attributes"]["ApproximateReceiveCount"] = str(MAX_RECEIVES + 1)
    assert daemon.post(PATH, headers_of(message), body(message)) == 200
    assert [reason for _, reason in daemon.dead()] == ["received 11 times"]
    assert done == []
    assert pushed.runs.of_event(id) == []

    run = RunMessage("r1", "work_off", 0).encode()
    assert daemon.post(PATH, headers_of(message), run.encode()) == 200
    assert daemon.dead("default") == [(run, "received 11 times")]


def test_why_a_message_failed_is_noted_and_told_at_its_last_receive(
    pushed: Harness, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps(pushed, 1)
    id = pushed.send("work/asked", {})
    store = pushed.state.store

    def refuse(run: t.Any) -> t.Any:
        raise RuntimeError("this one never")

    with monkeypatch.context() as patch:
        patch.setattr(store, "creation", refuse)
        for _ in range(MAX_RECEIVES):
            assert daemon.dead() == []
            daemon.deliver(EVENT_QUEUE)
            noted = pushed.state.failures.of([f"event:{id}"])[f"event:{id}"]
            assert "RuntimeError: this one never" in noted.error
    assert daemon.answers == [503] * (MAX_RECEIVES - 1) + [200]
    why = f"received {MAX_RECEIVES} times, at last RuntimeError: this one never"
    assert [reason for _, reason in daemon.dead()] == [why]
