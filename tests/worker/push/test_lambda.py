"""The contract of Lambda with a queue of SQS, played by what calls the handler."""

from __future__ import annotations

import json
import pathlib
import threading
import time
import typing as t

import boto3
import pytest
from flask import Flask

from flask_durable import Cron
from flask_durable import Durable
from flask_durable import Event
from flask_durable import EventError
from flask_durable import Step
from flask_durable import UnavailableError
from flask_durable.messages import EVENT_QUEUE
from flask_durable.messages import EventMessage
from flask_durable.messages import RunMessage
from flask_durable.worker.push import worker as push
from flask_durable.worker.push.messages import PushedMessage
from flask_durable.worker.push.messages import PushedMessages
from flask_durable.worker.push.messages import RENEWED_FROM

from ...support.harness import Harness
from ...support.proxy import proxy
from ...support.servers import SQSServer
from ...support.servers import valkey_server
from ...support.servers import ValkeyServer
from .conftest import end


class Context:
    """The context that Lambda gives the handler: how long it has."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return round((self._end - time.monotonic()) * 1000)


class Mapping:
    """An event source mapping: receives batches, calls, deletes what did not fail."""

    queues: t.Sequence[str] = ("events", "default")

    def __init__(self, harness: Harness, sqs: SQSServer) -> None:
        self.harness = harness
        self.client = boto3.client("sqs", endpoint_url=sqs.endpoint)
        self.calls = 0
        self.failed: list[str] = []

    def url(self, queue: str) -> str:
        name = f"{self.harness.state.settings.namespace}-{queue}"
        return str(self.client.create_queue(QueueName=name)["QueueUrl"])

    def receive(self, queue: str, size: int = 10) -> list[dict[str, t.Any]]:
        return t.cast(
            "list[dict[str, t.Any]]",
            self.client.receive_message(
                QueueUrl=self.url(queue),
                MaxNumberOfMessages=size,
                WaitTimeSeconds=0,
                VisibilityTimeout=360,
                MessageSystemAttributeNames=["All"],
            ).get("Messages", []),
        )

    def invoke(
        self, messages: list[dict[str, t.Any]], *, seconds: float = 60.0, fifo: str = ""
    ) -> list[str]:
        """Call the handler; return the ids that it wants again: all, if it fails."""
        event = {"Records": [record_of(message, fifo) for message in messages]}
        self.calls += 1
        try:
            answer = self.harness.durable.lambda_handler(event, Context(seconds))
        except UnavailableError:
            return [message["MessageId"] for message in messages]
        assert answer.keys() == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def serve(self, queue: str, **options: t.Any) -> int:
        """Take one batch of a queue from receive to delete; return its size."""
        messages = self.receive(queue)
        if messages:
            self.settle(queue, messages, **options)
        return len(messages)

    def settle(
        self, queue: str, messages: list[dict[str, t.Any]], **options: t.Any
    ) -> list[str]:
        """Call the handler, and do as it says; return the ids that it wants again."""
        again = self.invoke(messages, **options)
        self.failed += again
        for message in messages:
            handle = {
                "QueueUrl": self.url(queue),
                "ReceiptHandle": message["ReceiptHandle"],
            }
            if message["MessageId"] in again:
                self.client.change_message_visibility(**handle, VisibilityTimeout=0)
            else:
                self.client.delete_message(**handle)
        return again

    def drain(self, **options: t.Any) -> None:
        for _ in range(200):
            if not sum(self.serve(queue, **options) for queue in self.queues):
                return
        raise AssertionError("the queues never get empty")


def record_of(message: dict[str, t.Any], fifo: str = "") -> dict[str, t.Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-1:123456789012:queue{fifo}",
        "awsRegion": "us-east-1",
    }


class OrderedMapping(Mapping):
    """The same of FIFO queues."""

    queues = ("events", "orders", "default")

    def url(self, queue: str) -> str:
        transport: t.Any = self.harness.state.transport
        return str(transport.queues.url(queue))

    def settle(
        self, queue: str, messages: list[dict[str, t.Any]], **options: t.Any
    ) -> list[str]:
        fifo = "" if queue == "default" else ".fifo"
        return super().settle(queue, messages, fifo=fifo, **options)


def schedule(name: str, time: str) -> dict[str, t.Any]:
    return {
        "version": "0",
        "id": "1",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": time,
        "region": "us-east-1",
        "resources": [f"arn:aws:events:us-east-1:123456789012:rule/{name}"],
        "detail": {},
    }


@pytest.fixture
def mapping(pushed: Harness, sqs: SQSServer) -> Mapping:
    return Mapping(pushed, sqs)


@pytest.fixture
def ordered(
    valkey: ValkeyServer, sqs: SQSServer, namespace: str
) -> t.Iterator[OrderedMapping]:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_QUEUES={
            EVENT_QUEUE: {"group": "data.tenant"},
            "orders": {"fifo": True},
        },
    )
    yield OrderedMapping(harness, sqs)
    end(harness)


def starts(harness: Harness, name: str, queue: str) -> list[tuple[str, int | None]]:
    """Declare a function; return the list of what its runs began with."""
    begun: list[tuple[str, int | None]] = []

    @harness.durable.function(on=name, queue=queue, id=f"on-{queue}")
    def begin(event: Event[t.Any], step: Step) -> None:
        begun.append((event.data["tenant"], event.data.get("n")))

    return begun


def steps(harness: Harness, count: int, pause: float = 0.0) -> list[str]:
    done: list[str] = []

    def work(name: str) -> None:
        time.sleep(pause)
        done.append(name)

    @harness.durable.function(on="work/asked")
    def work_off(event: Event[t.Any], step: Step) -> None:
        for n in range(count):
            step.run(f"s{n}", work, f"{event.data.get('n', 0)}.{n}")

    return done


def send(harness: Harness, count: int) -> list[str]:
    return [harness.send("work/asked", {"n": n}) for n in range(count)]


def states(harness: Harness, ids: list[str]) -> list[str]:
    return [run.status.value for id in ids for run in harness.runs.of_event(id)]


# -- Batches ----------------------------------------------------------------------


def test_a_batch_is_served_and_nothing_of_it_comes_again(
    pushed: Harness, mapping: Mapping
) -> None:
    done = steps(pushed, 2)
    ids = send(pushed, 7)
    assert mapping.serve(EVENT_QUEUE) == 7
    assert states(pushed, ids) == ["completed"] * 7
    assert sorted(done) == sorted(f"{n}.{s}" for n in range(7) for s in range(2))
    assert (mapping.calls, mapping.failed) == (1, [])


def test_poison_in_a_batch_is_dead_lettered_and_takes_nothing_with_it(
    pushed: Harness, mapping: Mapping
) -> None:
    steps(pushed, 1)
    ids = send(pushed, 2)
    for body in ("poison", '{"v":1,"kind":"event"}'):
        mapping.client.send_message(QueueUrl=mapping.url(EVENT_QUEUE), MessageBody=body)
    ids += send(pushed, 2)
    mapping.drain()
    assert states(pushed, ids) == ["completed"] * 4
    assert mapping.failed == []
    assert pushed.state.transport.counts(EVENT_QUEUE).dead == 2


def test_a_message_that_fails_comes_again_alone(
    pushed: Harness, mapping: Mapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps(pushed, 1)
    for body in ("poison one", "poison two"):
        mapping.client.send_message(QueueUrl=mapping.url(EVENT_QUEUE), MessageBody=body)
    ids = send(pushed, 2)
    send_dead = pushed.state.message_sender.send_dead

    def refuse_one(queue: str, body: t.Any, reason: str, **more: t.Any) -> None:
        if body == "poison one":
            raise RuntimeError("the dead-letter queue refuses it")
        send_dead(queue, body, reason, **more)

    messages = mapping.receive(EVENT_QUEUE)
    with monkeypatch.context() as patch:
        patch.setattr(pushed.state.message_sender, "send_dead", refuse_one)
        again = mapping.invoke(messages)
    assert again == [m["MessageId"] for m in messages if m["Body"] == "poison one"]
    assert states(pushed, ids) == ["completed"] * 2
    assert pushed.state.transport.counts(EVENT_QUEUE).dead == 1


def test_of_a_fifo_queue_a_failure_holds_up_its_group_and_no_other(
    pushed: Harness, mapping: Mapping
) -> None:
    done = steps(pushed, 1)
    texts = [
        EventMessage("work/asked", {"n": n}, f"e{n}", 1, group="ab"[n % 2]).encode()
        for n in range(6)
    ]
    # Of another release, in the group of those with an odd number.
    texts[1] = json.dumps({"v": 2, "kind": "event", "group": "b"})
    for text in texts:
        mapping.client.send_message(QueueUrl=mapping.url(EVENT_QUEUE), MessageBody=text)
    messages = mapping.receive(EVENT_QUEUE)
    messages.sort(key=lambda message: texts.index(message["Body"]))
    for number, message in enumerate(messages):
        message["Attributes"]["MessageGroupId"] = "ab"[number % 2]
    again = mapping.invoke(messages, fifo=".fifo")
    assert again == [message["MessageId"] for message in messages[1::2]]
    assert done == ["0.0", "2.0", "4.0"]


def test_an_event_whose_run_message_is_not_taken_holds_up_its_group_and_no_other(
    ordered: Mapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = ordered.harness
    begun = starts(harness, "work/ordered", "orders")
    others = starts(harness, "work/asked", "default")
    harness.send("work/ordered", {"tenant": "a"})
    for tenant in "ab":
        harness.send("work/asked", {"tenant": tenant})
    messages = ordered.receive(EVENT_QUEUE)
    send = harness.state.message_sender.send

    def refuse(queue: str, bodies: t.Sequence[str], **more: t.Any) -> t.Any:
        if queue == "orders":
            return [RuntimeError("there is no such queue")] * len(bodies)
        return send(queue, bodies, **more)

    with monkeypatch.context() as patch:
        patch.setattr(harness.state.message_sender, "send", refuse)
        again = ordered.settle(EVENT_QUEUE, messages)
    assert len(again) == 2
    assert others == [("b", None)]
    # The queue that took nothing has rested.
    harness.state.outbox._resting.clear()
    ordered.drain()
    assert (begun, others) == ([("a", None)], [("b", None), ("a", None)])


def test_runs_of_a_fifo_queue_start_in_the_order_of_their_events(
    ordered: Mapping,
) -> None:
    harness = ordered.harness
    begun = starts(harness, "work/ordered", "orders")
    for number in range(3):
        harness.send("work/ordered", {"tenant": "a", "n": number})
    # The call has time, but nothing goes past the queue.
    ordered.serve(EVENT_QUEUE)
    assert begun == []
    runs = ordered.receive("orders")
    assert len(runs) == 3
    # There is time for the first one. Those behind it wait where they are.
    again = ordered.settle("orders", runs, seconds=0)
    assert again == [message["MessageId"] for message in runs[1:]]
    ordered.drain()
    assert begun == [("a", 0), ("a", 1), ("a", 2)]


def test_a_batch_that_comes_twice_is_done_once(
    pushed: Harness, mapping: Mapping
) -> None:
    done = steps(pushed, 1)
    send(pushed, 3)
    messages = mapping.receive(EVENT_QUEUE)
    for _ in range(2):
        assert mapping.invoke(messages) == []
    assert sorted(done) == ["0.0", "1.0", "2.0"]


# -- Time -------------------------------------------------------------------------


def test_the_time_is_shared_and_what_is_left_goes_on_in_the_next_call(
    pushed: Harness, mapping: Mapping
) -> None:
    done = steps(pushed, 6, pause=0.02)
    ids = send(pushed, 5)
    # Half of it is 120 ms, 24 for each of five runs: a step or two.
    mapping.drain(seconds=0.24)
    assert states(pushed, ids) == ["completed"] * 5
    assert sorted(done) == sorted(f"{n}.{s}" for n in range(5) for s in range(6))
    assert mapping.failed == []
    assert mapping.calls > 5


def test_runs_behind_a_long_step_are_left_to_others_without_a_receive(
    pushed: Harness, mapping: Mapping
) -> None:
    done = steps(pushed, 1, pause=0.3)
    ids = send(pushed, 4)
    pushed.in_place = 0
    pushed.route()
    pushed.state.broker.flush_settled(5)
    messages = mapping.receive("default")
    assert len(messages) == 4
    assert mapping.invoke(messages, seconds=0.2) == []
    assert len(done) == 1
    left = mapping.receive("default")
    assert len(left) == 3
    assert {m["Attributes"]["ApproximateReceiveCount"] for m in left} == {"1"}
    assert mapping.invoke(left) == []
    assert states(pushed, ids) == ["completed"] * 4


def test_a_function_that_is_cut_off_leaves_its_run_to_the_next(
    pushed: Harness, mapping: Mapping
) -> None:
    killed = threading.Event()
    first: list[int] = []

    def cut_off() -> str:
        if not first:
            first.append(1)
            killed.wait(60)
        return "done"

    @pushed.durable.function(on="work/asked")
    def long(event: Event[t.Any], step: Step) -> str:
        return step.run("cut", cut_off)

    id = pushed.send("work/asked", {})
    messages = mapping.receive(EVENT_QUEUE)
    # Lambda ends the process; here a thread stands for it, whose lease nobody renews.
    holder: t.Any = None
    thread = threading.Thread(target=lambda: mapping.invoke(messages))
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not first and time.monotonic() < deadline:
            time.sleep(0.01)
        holder = vars(pushed.state)["push_worker"].pop()
        holder._leases.stop()
        # The batch failed as a whole: it comes again, and leads nowhere new.
        assert mapping.invoke(messages) == []
        assert states(pushed, [id]) == ["running"]
        pushed.expire_leases()
        mapping.drain()
        assert states(pushed, [id]) == ["completed"]
    finally:
        killed.set()
        thread.join()
    assert states(pushed, [id]) == ["completed"]
    assert pushed.run_of(id).result == "done"


def test_while_the_state_server_is_away_the_whole_batch_comes_again(
    sqs: SQSServer, namespace: str
) -> None:
    with valkey_server() as valkey:
        harness = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=sqs.url)
        mapping = Mapping(harness, sqs)
        try:
            steps(harness, 1)
            ids = send(harness, 3)
            valkey.kill()
            messages = mapping.receive(EVENT_QUEUE)
            everything = [message["MessageId"] for message in messages]
            # A mapping without partial answers takes any answer for a success.
            event = {"Records": [record_of(message) for message in messages]}
            with pytest.raises(UnavailableError, match="None of 3"):
                harness.durable.lambda_handler(event, Context(1))
            assert mapping.invoke(messages, seconds=1) == everything

            # Received so often that the queue would give up on one, all begin again.
            messages[1]["Attributes"]["ApproximateReceiveCount"] = str(RENEWED_FROM)
            assert mapping.invoke(messages, seconds=1, fifo=".fifo") == everything
            assert harness.state.transport.counts(EVENT_QUEUE).waiting == 0
            assert mapping.invoke(messages, seconds=1) == []
            assert harness.state.transport.counts(EVENT_QUEUE).waiting == 3
            valkey.start()
            assert mapping.invoke(messages) == []
            assert states(harness, ids) == ["completed"] * 3
        finally:
            end(harness)


def test_connections_that_the_network_forgot_between_two_calls_are_not_waited_for(
    sqs: SQSServer,
    valkey: ValkeyServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(push, "SHORT_REST", 0.0)
    with proxy(valkey.port, b"") as network:
        harness = Harness(
            f"redis://127.0.0.1:{network.port}",
            namespace,
            DURABLE_QUEUE_URL=sqs.url,
            DURABLE_FSYNC="ack",
        )
        mapping = Mapping(harness, sqs)
        try:
            steps(harness, 1)
            ids = send(harness, 2)
            assert mapping.serve(EVENT_QUEUE) == 2
            messages = [EventMessage("work/asked", {}, f"e{n}", 1) for n in range(2)]
            harness.state.message_sender.send(
                EVENT_QUEUE, [m.encode() for m in messages]
            )
            network.forget()
            assert mapping.serve(EVENT_QUEUE) == 2
            assert mapping.failed == []
            assert not network.swallowed
            ids += [message.id for message in messages]
            assert states(harness, ids) == ["completed"] * 4
        finally:
            end(harness)


# -- Schedules --------------------------------------------------------------------


def test_a_schedule_of_eventbridge_does_what_is_due(
    pushed: Harness, mapping: Mapping
) -> None:
    @pushed.durable.function(on="work/asked")
    def naps(event: Event[t.Any], step: Step) -> str:
        step.sleep("nap", "1h")
        return "woken"

    id = pushed.send("work/asked", {})
    mapping.drain()
    pushed.move_clock(3601)
    event = schedule("every-minute", "2026-11-25T10:00:00Z")
    assert pushed.durable.lambda_handler(event, Context()) == {}
    mapping.drain()
    assert pushed.run_of(id).result == "woken"


def test_a_tick_removes_what_old_runs_have_in_the_blob_store(
    sqs: SQSServer, valkey: ValkeyServer, namespace: str, tmp_path: pathlib.Path
) -> None:
    harness = Harness(
        valkey.url,
        namespace,
        DURABLE_QUEUE_URL=sqs.url,
        DURABLE_BLOB_URL=f"file://{tmp_path}",
        DURABLE_RETENTION="1h",
    )
    try:
        mapping = Mapping(harness, sqs)
        harness.durable.function(on="work/asked", id="large")(
            lambda event, step: step.run("make", lambda: "x" * 100_000)
        )
        harness.send("work/asked", {})
        mapping.drain()
        assert [path for path in tmp_path.rglob("*") if path.is_file()]
        harness.move_clock(3601)
        tick = schedule("every-minute", "2026-11-25T10:00:00Z")
        harness.durable.lambda_handler(tick, Context())
        assert harness.runs.list() == []
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        end(harness)


def test_a_rule_with_the_name_of_a_scheduled_function_starts_it_once(
    pushed: Harness, mapping: Mapping
) -> None:
    pushed.durable.function(on=Cron("0 0 1 1 *"), id="report")(lambda event, step: 1)
    for _ in range(2):
        event = schedule("report", "2026-11-25T10:00:00Z")
        pushed.durable.lambda_handler(event, Context())
        mapping.drain()
    assert states(pushed, [r.event.id for r in pushed.runs.list()]) == ["completed"]


def test_a_tick_that_could_not_be_carried_out_is_an_error(
    sqs: SQSServer, namespace: str
) -> None:
    with valkey_server() as valkey:
        harness = Harness(valkey.url, namespace, DURABLE_QUEUE_URL=sqs.url)
        valkey.kill()
        try:
            with pytest.raises(Exception, match="refused"):
                harness.durable.lambda_handler(schedule("x", "now"), Context(0.2))
        finally:
            end(harness)


# -- What it is called with -------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [None, {}, [], "text", {"Records": 5}, {"Records": [{}]}, {"Records": [None]}],
)
def test_another_event_is_an_error(pushed: Harness, event: t.Any) -> None:
    with pytest.raises(EventError, match="neither messages of SQS nor a tick"):
        pushed.durable.lambda_handler(event, Context())


def test_a_handler_needs_one_app() -> None:
    durable = Durable()
    with pytest.raises(RuntimeError, match="one app, and there are 0"):
        durable.lambda_handler({}, Context())
    apps = [Flask("a"), Flask("b")]
    for app in apps:
        durable.init_app(app)
    with pytest.raises(RuntimeError, match="one app, and there are 2"):
        durable.lambda_handler({}, Context())


def test_a_run_message_of_nobody_is_done(pushed: Harness, mapping: Mapping) -> None:
    for function in ("work_off", "gone"):
        text = RunMessage("no-such-run", function, 0).encode()
        mapping.client.send_message(QueueUrl=mapping.url("default"), MessageBody=text)
    steps(pushed, 1)
    mapping.drain()
    assert mapping.failed == []


def test_nothing_is_sent_again_beside_what_has_to_come_again(pushed: Harness) -> None:
    pushed.state.transport.declare(EVENT_QUEUE)
    messages = [
        PushedMessage("one", EventMessage("a/b", {}, "e1", 1).encode(), 6),
        PushedMessage("two", '{"v":2,"kind":"event"}', 6),  # of another release
    ]
    put_off = PushedMessages(pushed.state, t.cast(t.Any, None)).put_off
    assert put_off(messages) == ["one", "two"]
    assert pushed.state.transport.counts(EVENT_QUEUE).waiting == 0
    assert put_off(messages[:1]) == []
    assert pushed.state.transport.counts(EVENT_QUEUE).waiting == 1
