"""SQS throttles, fails, loses replies, refuses entries: nothing is lost.

Between the transport and moto stands a proxy that injects what a test says.
"""

from __future__ import annotations

import pathlib
import threading
import time
import typing as t

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.messages import MessageRefused
from flask_durable.queue.sending import Sender
from flask_durable.queue.transport import QueueAway
from flask_durable.queue.transport import QueueCounts
from flask_durable.queue.transport import Transport

from ...support.servers import wait_until
from ..kit import bodies
from ..kit import body
from ..kit import collect
from ..kit import Log
from ..kit import make_transport
from ..kit import QUEUE
from ..kit import send
from ..kit import SQSKit
from ..kit import text
from ..kit import working
from ..sqs_proxy import Answer
from ..sqs_proxy import Fault
from ..sqs_proxy import LoseReply
from ..sqs_proxy import Pretend
from ..sqs_proxy import Proxy
from ..sqs_proxy import Refuse

#: Faults that a call may meet and a later one does not.
PASSING = [
    pytest.param(LoseReply(), id="lost reply"),
    pytest.param(Answer("InternalError", 500), id="500"),
    pytest.param(Answer("ServiceUnavailable", 503), id="503"),
    pytest.param(Answer("RequestThrottled"), id="throttled"),
    pytest.param(Answer("OverLimit"), id="over limit"),
    pytest.param(Answer("KmsThrottled"), id="KMS"),
    pytest.param(Answer("ExpiredToken", 403), id="expired token"),
]


@pytest.fixture
def proxied(proxy: Proxy) -> t.Iterator[SQSKit]:
    made = SQSKit(proxy.url)
    yield made
    made.close()


@pytest.fixture
def prompt(sqs_kit: SQSKit, proxy: Proxy) -> t.Iterator[Transport]:
    """A transport that waits no second for an answer, behind the proxy."""
    made = make_transport("sqs", proxy.url, sqs_kit.namespace, 30, answer_within=0.5)
    yield made
    made.close()


@pytest.mark.timeout(25)
@pytest.mark.parametrize(
    "operation",
    ["GetQueueUrl", "CreateQueue", "GetQueueAttributes", "SendMessageBatch"],
)
def test_a_send_to_a_missing_queue_ends_soon_whatever_hangs(
    prompt: Transport, proxy: Proxy, operation: str
) -> None:
    proxy.hangs(operation)
    outcomes = Sender(prompt, 1).send(QUEUE, bodies(30))
    assert all(error and prompt.is_transient(error) for error in outcomes)
    assert proxy.calls[operation] > 0
    proxy.heals()
    assert Sender(prompt, 20).send(QUEUE, bodies(3)) == [None] * 3


@pytest.mark.parametrize("fault", PASSING)
def test_sends_ride_out_what_passes(
    proxied: SQSKit, proxy: Proxy, fault: Fault
) -> None:
    # Each new credentials make a new client, which takes a busy machine its time.
    broker = proxied.broker(visibility=30, patience=60)
    broker.transport.declare(QUEUE)
    proxy.meets("SendMessageBatch", fault, fault, fault, fault)
    assert broker.sender.send(QUEUE, bodies(3)) == [None] * 3
    assert proxy.left == 0
    # A lost reply makes a second message, which the engine takes for the first.
    received = {text(item) for item in collect(broker.transport, 3)}
    assert received <= set(bodies(3))


@pytest.mark.parametrize(
    "operation", ["GetQueueUrl", "CreateQueue", "GetQueueAttributes"]
)
def test_a_send_to_a_queue_that_is_missing_waits_for_no_call_longer_than_for_a_send(
    proxied: SQSKit, proxy: Proxy, operation: str
) -> None:
    broker = proxied.broker(visibility=30)
    proxy.fails(operation)
    [outcome] = broker.transport.send(QUEUE, bodies(1))
    assert outcome is not None
    assert broker.transport.is_transient(outcome)
    # Those of others are repeated, and wait for as long as a long poll takes.
    assert proxy.calls[operation] == 1

    with pytest.raises(Exception, match="injected"):
        broker.transport.counts(QUEUE)
    assert proxy.calls[operation] == 2
    proxy.heals()
    assert broker.transport.send(QUEUE, bodies(1)) == [None]


@pytest.mark.parametrize("fault", PASSING)
def test_a_worker_rides_out_what_passes(
    proxied: SQSKit, proxy: Proxy, fault: Fault
) -> None:
    broker = proxied.broker(visibility=30)
    broker.transport.declare(QUEUE)
    send(broker.transport, bodies(20))
    for operation in ("ReceiveMessage", "DeleteMessageBatch"):
        lost = isinstance(fault, LoseReply) and operation == "ReceiveMessage"
        # What a lost reply brought stays hidden for the visibility timeout.
        proxy.meets(operation, *[fault] * (0 if lost else 4))
    log = Log()
    with working(broker, log):
        wait_until(lambda: len(set(log.runs)) == 20, "20 runs", 60)
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert len(log) == 20
    assert proxy.left == 0
    assert broker.window.free == broker.window.size


def test_messages_of_a_lost_reply_come_again(proxied: SQSKit, proxy: Proxy) -> None:
    broker = proxied.broker(visibility=1)
    send(broker.transport, bodies(5))
    proxy.meets("ReceiveMessage", LoseReply())
    log = Log()
    with working(broker, log):
        wait_until(lambda: len(set(log.runs)) == 5, "5 runs", 60)
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert len(log) == 5


@pytest.mark.parametrize("code", ["InternalError", "KmsThrottled"])
def test_refused_entries_are_repeated_alone(
    proxied: SQSKit, proxy: Proxy, code: str
) -> None:
    # On a busy machine the first call alone may take half of the usual patience.
    broker = proxied.broker(visibility=30, patience=60)
    broker.transport.declare(QUEUE)
    throttled = code == "KmsThrottled"
    proxy.meets("SendMessageBatch", Refuse((1, 3), code, throttled))
    assert broker.sender.send(QUEUE, bodies(5)) == [None] * 5
    assert [len(r["Entries"]) for r in proxy.requests["SendMessageBatch"]][1:] == [2]

    proxy.meets("DeleteMessageBatch", Refuse((0,), code, throttled))
    log = Log()
    with working(broker, log):
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))
    assert len(log) == 5
    deleted = [e for r in proxy.requests["DeleteMessageBatch"] for e in r["Entries"]]
    assert len(deleted) == 5 or proxy.left == 0


def test_an_extension_that_was_refused_is_repeated_before_the_visibility_ends(
    proxied: SQSKit, proxy: Proxy
) -> None:
    broker = proxied.broker(visibility=3)
    send(broker.transport, bodies(2))
    found: list[t.Any] = []

    def both() -> bool:
        found.extend(broker.deliveries(QUEUE, 10, 1))
        return len(found) == 2

    wait_until(both)
    calls = "ChangeMessageVisibilityBatch"
    proxy.meets(calls, Refuse((0,)), Answer("RequestThrottled"))
    wait_until(lambda: proxy.calls[calls] >= 6, "six calls", 30)
    assert proxy.left == 0
    assert broker.transport.counts(QUEUE) == QueueCounts(0, 2, 0, 0)
    assert not any(delivery.lost for delivery in found)


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b'{"Successful":[]}', b"<html>please log in</html>"]
)
@pytest.mark.parametrize("operation", ["SendMessageBatch", "GetQueueUrl"])
def test_what_sqs_does_not_confirm_is_not_sent(
    prompt: Transport, proxy: Proxy, answer: bytes, operation: str
) -> None:
    if operation == "SendMessageBatch":
        prompt.declare(QUEUE)
    proxy.meets(operation, Pretend(answer))
    outcomes = prompt.send(QUEUE, bodies(2))
    assert proxy.left == 0
    assert all(error and prompt.is_transient(error) for error in outcomes)
    proxy.meets(operation, Pretend(answer))
    assert Sender(prompt, 20).send(QUEUE, bodies(2)) == [None] * 2
    assert prompt.counts(QUEUE).waiting == 2


@pytest.mark.parametrize("answer", [b"", b"<html>please log in</html>"])
def test_a_dead_letter_that_sqs_does_not_confirm_stays_what_it_was(
    proxied: SQSKit, proxy: Proxy, answer: bytes
) -> None:
    transport = proxied.transport(visibility=30)
    send(transport, bodies(1))
    [received] = collect(transport, 1)
    proxy.meets("SendMessage", Pretend(answer))
    with pytest.raises(Exception, match="not one of SQS"):
        transport.dead_letter(QUEUE, received, "wrong")
    assert transport.counts(QUEUE) == QueueCounts(0, 1, 0, 0)
    proxy.meets("DeleteMessageBatch", Pretend(answer))
    with pytest.raises(Exception, match="answer"):
        transport.dead_letter(QUEUE, received, "wrong")
    assert transport.counts(QUEUE) == QueueCounts(0, 1, 0, 1)


def test_a_message_that_cannot_be_deleted_is_one_dead_letter(
    proxied: SQSKit, proxy: Proxy
) -> None:
    transport = proxied.transport(visibility=30)
    send(transport, bodies(1))
    [received] = collect(transport, 1)
    proxy.meets("DeleteMessageBatch", *[Refuse((0,))] * 3)
    for _ in range(3):
        with pytest.raises(Exception, match="injected"):
            transport.dead_letter(QUEUE, received, "wrong")
    transport.dead_letter(QUEUE, received, "wrong")
    assert transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_a_call_that_hangs_keeps_the_messages_of_no_other_queue_from_being_hidden(
    proxied: SQSKit, proxy: Proxy
) -> None:
    broker = proxied.broker(visibility=30)
    held: dict[str, t.Any] = {}
    for queue in ("one", "two"):
        assert broker.transport.send(queue, bodies(1)) == [None]

        def received(queue: str = queue) -> bool:
            for delivery in broker.deliveries(queue, 1, 1):
                held[queue] = delivery
            return queue in held

        wait_until(received)
    hung = broker.transport.queues.url("one")  # type: ignore[attr-defined]
    proxy.hangs("ChangeMessageVisibilityBatch", hung)
    began = {queue: delivery.renewed for queue, delivery in held.items()}
    for delivery in held.values():
        delivery.renewed -= 15  # half of the visibility is over
    wait_until(lambda: held["two"].renewed >= began["two"], "the other one's turn")
    # Its settlement waits for nothing of the other queue either.
    held["two"].release()
    wait_until(lambda: len(broker._in_flight) == 1, "the other one's settlement")
    assert held["one"].renewed < began["one"]


def test_one_message_that_a_queue_never_takes_takes_none_along(
    prompt: Transport, proxy: Proxy
) -> None:
    # As where the queue's own MaximumMessageSize is smaller than that of SQS.
    prompt.declare(QUEUE)
    refused = Answer("AWS.SimpleQueueService.BatchRequestTooLong")
    proxy.meets("SendMessageBatch", refused, Refuse(()), refused)
    outcomes = Sender(prompt, 5).send(QUEUE, bodies(3))
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        MessageRefused,
        type(None),
    ]
    assert prompt.counts(QUEUE).waiting == 2


def test_a_letter_that_was_not_confirmed_to_be_moved_back_is_kept(
    proxied: SQSKit, proxy: Proxy
) -> None:
    transport = proxied.transport(visibility=30)
    transport.declare(QUEUE)
    transport.send_dead(QUEUE, bodies(1)[0], "wrong")
    cursor = transport.dead_letters.open_cursor(QUEUE, 30)
    letters = cursor.next(10)
    proxy.meets("SendMessageBatch", Pretend(b""))
    [error] = cursor.move_back(letters)
    assert error is not None
    cursor.close()
    assert transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_a_message_whose_visibility_ran_out_before_it_was_begun_is_not_deleted(
    proxied: SQSKit, proxy: Proxy
) -> None:
    # Nobody else has it, so its receipt would still delete it.
    broker = proxied.broker(size=2, visibility=30)
    broker._in_flight.close()
    send(broker.transport, bodies(2))
    started, finish = threading.Event(), threading.Event()
    log = Log()

    def blocked(delivery: t.Any) -> None:
        log(delivery)
        started.set()
        finish.wait(20)

    with working(broker, blocked, threads=1):
        assert started.wait(20)
        wait_until(lambda: broker.window.free == 0)
        for message in broker._in_flight._of(QUEUE).messages:
            message.renewed = 0.0
        proxy.meets(
            "ChangeMessageVisibilityBatch", Refuse((0, 1), "MessageNotInflight", True)
        )
        broker._in_flight.extend()
        assert proxy.left == 0
        broker.window.take(8)  # it is not to be received again
        finish.set()
        wait_until(lambda: broker.window.free == -6)
        assert broker.flush_settled(10)
    assert len(log) == 1
    assert len(broker._in_flight) == 0
    counts = broker.transport.counts(QUEUE)
    assert counts.waiting + counts.in_flight == 1


def test_a_dead_letter_survives_what_passes(proxied: SQSKit, proxy: Proxy) -> None:
    broker = proxied.broker(visibility=30)
    send(broker.transport, ["not json"])
    proxy.meets("SendMessage", Answer("ExpiredToken", 403), LoseReply())
    proxy.meets("DeleteMessageBatch", Refuse((0,)))
    with working(broker, Log()):
        wait_until(lambda: broker.transport.counts(QUEUE).dead >= 1)
        wait_until(lambda: broker.transport.counts(QUEUE).in_flight == 0)
    assert {letter.body for letter in proxied.dead_letters()} == {"not json"}


def test_a_process_without_credentials_waits_until_there_are_some(
    proxied: SQSKit,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    ready = proxied.transport(visibility=30)
    send(ready, bodies(3))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    transport = proxied.transport(visibility=30)
    with pytest.raises(QueueAway):
        transport.receive(QUEUE, 10, 0)
    broker = proxied.broker(transport=transport)
    log = Log()
    with working(broker, log):
        credentials.write_text(
            "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n"
        )
        wait_until(lambda: len(log) == 3, "3 runs", 60)
        wait_until(lambda: broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))


def test_a_call_that_is_forbidden_is_told_and_not_repeated(
    proxied: SQSKit, proxy: Proxy
) -> None:
    transport = proxied.transport()
    transport.declare(QUEUE)
    proxy.meets("SendMessageBatch", Answer("AccessDenied", 403))
    [outcome] = transport.send(QUEUE, [body(1)])
    assert isinstance(outcome, ConfigurationError)
    name = f"{proxied.namespace}-{QUEUE}"
    assert outcome.message == f"SQS denies sqs:SendMessage on the queue {name}."
    assert proxy.calls["SendMessageBatch"] == 1


@pytest.mark.parametrize("hung_first", [True, False])
def test_a_delete_that_hangs_keeps_no_other_queues_messages(
    proxied: SQSKit, proxy: Proxy, hung_first: bool
) -> None:
    broker = proxied.broker(visibility=30)
    names = ("one", "two")
    for queue in names:
        assert broker.transport.send(queue, bodies(30)) == [None] * 30
    hung = broker.transport.queues.url("one")  # type: ignore[attr-defined]
    proxy.hangs("DeleteMessageBatch", hung)
    for queue in names if hung_first else names[::-1]:

        def done(queue: str = queue) -> bool:
            for delivery in broker.deliveries(queue, 10, 1):
                delivery.done()
            return broker.transport.counts(queue).waiting == 0

        wait_until(done)
    began = time.monotonic()
    wait_until(lambda: broker.transport.counts("two") == QueueCounts(0, 0, 0, 0), "two")
    assert time.monotonic() - began < 1
    assert broker.transport.counts("one").in_flight == 30
    assert not broker.flush_settled(0)
    proxy.heals()
    assert broker.flush_settled(20)
    assert broker.transport.counts("one") == QueueCounts(0, 0, 0, 0)
