"""The parts that only queues on SQS have: names, policies, refused entries."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_durable.messages import MessageRefused
from flask_durable.queue.sending import Sender
from flask_durable.queue.sqs.batch import LIMITS
from flask_durable.queue.sqs.batch import MAX_BYTES
from flask_durable.queue.sqs.batch import QueueRefused
from flask_durable.queue.sqs.options import SQSAddress
from flask_durable.queue.sqs.transport import SQSTransport

from ..kit import bodies
from ..kit import body
from ..kit import collect
from ..kit import QUEUE
from ..kit import send
from ..kit import SQSKit
from ..kit import text


class Refusing:
    """A boto3 client that refuses an entry of a batch, ``body(1)``, the first times."""

    def __init__(self, client: t.Any, times: int, sender_fault: bool = False) -> None:
        self._client = client
        self._times = times
        self._sender_fault = sender_fault
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._client, name)

    def send_message_batch(self, **request: t.Any) -> t.Any:
        self.calls.append("send_message_batch")
        entries = request["Entries"]
        if self._times <= 0:
            return self._client.send_message_batch(**request)
        self._times -= 1
        taken = [entry for entry in entries if entry["MessageBody"] != body(1)]
        if taken:
            self._client.send_message_batch(**{**request, "Entries": taken})
        answer = {"Code": "InternalError", "SenderFault": self._sender_fault}
        failed = [{"Id": e["Id"], **answer} for e in entries if e not in taken]
        return {"Successful": taken, "Failed": failed}


def refusing(
    kit: SQSKit, times: int, sender_fault: bool = False
) -> tuple[SQSTransport, Refusing]:
    transport = kit.transport(visibility=30)
    assert isinstance(transport, SQSTransport)
    client = Refusing(transport._sender.get(), times, sender_fault)
    transport._sender._clients._value = client
    return transport, client


def test_queues_are_made_with_their_dead_letter_queue(sqs_kit: SQSKit) -> None:
    sqs_kit.transport(visibility=30).declare(QUEUE)
    read = sqs_kit.client.get_queue_attributes
    main, dead = (
        read(QueueUrl=sqs_kit.queue_url(name), AttributeNames=["All"])["Attributes"]
        for name in (QUEUE, f"{QUEUE}-dlq")
    )
    assert json.loads(main["RedrivePolicy"]) == {
        "deadLetterTargetArn": dead["QueueArn"],
        "maxReceiveCount": 10,
    }
    assert main["VisibilityTimeout"] == "30"
    assert main["MessageRetentionPeriod"] == str(7 * 86400)
    assert dead["MessageRetentionPeriod"] == str(14 * 86400)


def test_an_existing_queue_is_left_as_it_is(
    sqs_kit: SQSKit, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{sqs_kit.namespace}-{QUEUE}"
    sqs_kit.client.create_queue(
        QueueName=name, Attributes={"MessageRetentionPeriod": "60"}
    )
    transport = sqs_kit.transport()
    transport.declare(QUEUE)
    assert "without a redrive policy" in caplog.text
    send(transport, [body(1)])
    assert [text(item) for item in collect(transport, 1)] == [body(1)]


def test_queues_removed_in_between_are_made_again(sqs_kit: SQSKit) -> None:
    transport = sqs_kit.transport()
    send(transport, [body(1)])
    sqs_kit.client.delete_queue(QueueUrl=sqs_kit.queue_url())
    assert isinstance(transport.send(QUEUE, [body(2)])[0], Exception)
    send(transport, [body(3)])
    assert [text(item) for item in collect(transport, 1)] == [body(3)]

    sqs_kit.client.delete_queue(QueueUrl=sqs_kit.queue_url())
    assert Sender(transport, 5).send(QUEUE, [body(4)]) == [None]


def test_entries_that_sqs_refused_are_sent_again(sqs_kit: SQSKit) -> None:
    transport, client = refusing(sqs_kit, times=2)
    assert Sender(transport, 5).send(QUEUE, bodies(3)) == [None] * 3
    assert len(client.calls) == 3
    assert sorted(map(text, collect(transport, 3))) == bodies(3)


def test_an_entry_at_fault_is_reported_and_not_repeated(sqs_kit: SQSKit) -> None:
    transport, client = refusing(sqs_kit, times=100, sender_fault=True)
    one, two, three = Sender(transport, 5).send(QUEUE, bodies(3))
    assert (one, three) == (None, None)
    assert isinstance(two, QueueRefused)
    assert len(client.calls) == 1


def test_an_entry_refused_again_and_again_is_reported(sqs_kit: SQSKit) -> None:
    transport, client = refusing(sqs_kit, times=10_000)
    outcomes = Sender(transport, 3).send(QUEUE, bodies(3))
    one, two, three = outcomes
    assert (one, three) == (None, None)
    assert isinstance(two, QueueRefused)
    assert len(client.calls) > 2
    # Those that were taken are not sent again.
    assert sorted(map(text, collect(transport, 2))) == [body(0), body(2)]
    assert transport.counts(QUEUE).waiting == 0


def test_bodies_that_sqs_would_refuse_do_not_take_others_with_them(
    sqs_kit: SQSKit,
) -> None:
    transport = sqs_kit.transport(visibility=30)
    texts = ["", "a\x00b", "\ufffe", "x" * (MAX_BYTES + 1), body(1)]
    outcomes = transport.send(QUEUE, texts)
    assert [type(outcome) for outcome in outcomes] == [MessageRefused] * 4 + [
        type(None)
    ]
    assert [text(item) for item in collect(transport, 1)] == [body(1)]


def test_batches_keep_within_ten_entries_and_one_mebibyte() -> None:
    sizes = [MAX_BYTES, 1, MAX_BYTES - 1, 1] + [5] * 25
    divided = list(LIMITS.divide(range(len(sizes)), sizes))
    assert [number for batch in divided for number in batch] == list(range(len(sizes)))
    assert all(len(batch) <= 10 for batch in divided)
    assert all(sum(sizes[number] for number in batch) <= MAX_BYTES for batch in divided)
    assert len(divided) == 5


def test_the_largest_message_can_be_dead_lettered(sqs_kit: SQSKit) -> None:
    transport = sqs_kit.transport(visibility=30)
    send(transport, ["x" * MAX_BYTES])
    [held] = collect(transport, 1)
    transport.dead_letter(QUEUE, held, "not JSON")
    assert transport.counts(QUEUE).dead == 1


def test_names_are_legal_and_distinct() -> None:
    transport = SQSTransport(SQSAddress(), namespace="shop", visibility=1)
    assert transport.queues.name("media") == "shop-media"
    assert transport.queues.name("media", "-dlq") == "shop-media-dlq"
    odd = ["a.b", "a_b", "a-b", "x" * 80, "x" * 81, "ä"]
    names = [transport.queues.name(queue, "-dlq") for queue in odd]
    assert len(set(names)) == len(odd)
    assert all(len(name) <= 80 for name in names)
    assert all(name.replace("-", "").replace("_", "").isascii() for name in names)


def test_the_address_says_where_the_queues_are() -> None:
    address = SQSAddress.parse(
        "sqs://?region=eu-west-1&prefix=shop&endpoint=http://x:1"
    )
    assert address == SQSAddress("eu-west-1", "shop", "http://x:1")
    assert SQSAddress.parse("sqs://") == SQSAddress()
    transport = SQSTransport(address, namespace="durable", visibility=1)
    assert transport.queues.name("media") == "shop-media"


def test_no_client_is_made_before_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = "flask_durable.queue.sqs.client.make_client"
    monkeypatch.setattr(make, lambda address: 1 / 0)
    SQSTransport(SQSAddress(), namespace="shop", visibility=1).close()
