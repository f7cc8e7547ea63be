"""Queues on SQS as DURABLE_QUEUE_URL and DURABLE_QUEUES want them."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.messages import EVENT_QUEUE
from flask_durable.queue.sqs.options import read_queues
from flask_durable.queue.sqs.options import SQSAddress
from flask_durable.queue.sqs.transport import SQSTransport

from ..kit import body
from ..kit import collect
from ..kit import QUEUE
from ..kit import send
from ..kit import SQSKit
from ..kit import text
from ..sqs_proxy import Answer
from ..sqs_proxy import Proxy


def transport(
    kit: SQSKit, more: str = "", url: str = "", **queues: dict[str, t.Any]
) -> SQSTransport:
    made = SQSTransport(
        SQSAddress.parse((url or kit.url) + more),
        namespace=kit.namespace,
        visibility=30,
        options=read_queues(queues),
    )
    kit._closers.append(made.close)
    return made


def existing(kit: SQSKit, **attributes: str) -> tuple[str, str]:
    """Make a queue with a name of its own; return its URL and its ARN."""
    name = f"{kit.namespace}-theirs"
    made = kit.client.create_queue(QueueName=name, Attributes=attributes)
    return made["QueueUrl"], f"arn:aws:sqs:us-east-1:123456789012:{name}"


def test_a_queue_is_made_as_its_options_say(sqs_kit: SQSKit) -> None:
    made = transport(
        sqs_kit,
        "&tags=team:media,stage:test&kms_key=alias/queues",
        media={"retention": "2d", "visibility": "90s", "max_receives": 3},
    )
    made.declare(QUEUE)
    for name in (QUEUE, f"{QUEUE}-dlq"):
        url = sqs_kit.queue_url(name)
        found = sqs_kit.client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["All"]
        )["Attributes"]
        assert found["KmsMasterKeyId"] == "alias/queues"
        tags = sqs_kit.client.list_queue_tags(QueueUrl=url)["Tags"]
        assert tags == {"team": "media", "stage": "test"}
        if name == QUEUE:
            assert json.loads(found["RedrivePolicy"])["maxReceiveCount"] == 3
            assert found["MessageRetentionPeriod"] == str(2 * 86400)
            assert found["VisibilityTimeout"] == "90"


def test_queues_are_encrypted_by_sqs_itself_unless_a_key_is_named(
    sqs_kit: SQSKit, proxy: Proxy
) -> None:
    transport(sqs_kit, url=proxy.url).declare(QUEUE)
    made = proxy.requests["CreateQueue"]
    assert [request["Attributes"]["SqsManagedSseEnabled"] for request in made] == [
        "true",
        "true",
    ]


def test_nothing_is_made_where_nothing_may_be(sqs_kit: SQSKit, proxy: Proxy) -> None:
    made = transport(sqs_kit, "&create=never", proxy.url)
    with pytest.raises(ConfigurationError, match="create=never"):
        made.receive(QUEUE, 1, 0)
    [outcome] = made.send(QUEUE, [body(1)])
    assert isinstance(outcome, ConfigurationError)
    assert not made.is_transient(outcome)
    assert proxy.calls["CreateQueue"] == 0


@pytest.mark.parametrize("kind", ["URL", "ARN"])
def test_an_existing_queue_is_used_without_looking_up_or_making_any(
    sqs_kit: SQSKit, proxy: Proxy, kind: str
) -> None:
    transport(sqs_kit).declare("other")
    dead = f"arn:aws:sqs:us-east-1:123456789012:{sqs_kit.namespace}-other-dlq"
    policy = {"deadLetterTargetArn": dead, "maxReceiveCount": 4}
    url, arn = existing(sqs_kit, RedrivePolicy=json.dumps(policy))
    place = url if kind == "URL" else arn
    made = transport(sqs_kit, url=proxy.url, media={"queue": place})
    made.declare(QUEUE)
    send(made, [body(1), "not json"])
    held = {text(item): item for item in collect(made, 2)}
    assert made.delete(QUEUE, [held[body(1)].receipt]) == [None]
    made.dead_letter(QUEUE, held["not json"], "no JSON")
    counts = made.counts(QUEUE)
    assert (counts.waiting, counts.in_flight, counts.dead) == (0, 0, 1)
    assert made.dead_letters.count(QUEUE) == 1
    assert proxy.calls["CreateQueue"] == proxy.calls["GetQueueUrl"] == 0


def test_a_message_is_given_up_before_an_existing_queue_drops_it_without_a_reason(
    sqs_kit: SQSKit,
) -> None:
    transport(sqs_kit).declare("other")
    dead = f"arn:aws:sqs:us-east-1:123456789012:{sqs_kit.namespace}-other-dlq"
    policy = {"deadLetterTargetArn": dead, "maxReceiveCount": "4"}
    url, _ = existing(sqs_kit, RedrivePolicy=json.dumps(policy))
    made = transport(sqs_kit, media={"queue": url})
    made.declare(QUEUE)
    assert made.max_receives(QUEUE) == 4


def test_the_event_queue_is_known_before_its_first_event_as_every_queue_is(
    sqs_kit: SQSKit, caplog: pytest.LogCaptureFixture
) -> None:
    arn = f"arn:aws:sqs:us-east-1:123456789012:{sqs_kit.namespace}-other-dlq"
    transport(sqs_kit).declare("other")
    policy = {"deadLetterTargetArn": arn, "maxReceiveCount": 3}
    _, place = existing(sqs_kit, RedrivePolicy=json.dumps(policy))
    broker = sqs_kit.broker(transport=transport(sqs_kit, events={"queue": place}))
    assert broker.deliveries(EVENT_QUEUE, 1, 0) == []
    assert broker.transport.max_receives(EVENT_QUEUE) == 3

    bare = transport(sqs_kit, events={"queue": place.replace("theirs", "bare")})
    sqs_kit.client.create_queue(QueueName=f"{sqs_kit.namespace}-bare")
    sqs_kit.broker(transport=bare).deliveries(EVENT_QUEUE, 1, 0)
    assert "exists without a redrive policy" in caplog.text


def test_an_existing_queue_without_dead_letters_says_what_it_lacks(
    sqs_kit: SQSKit,
) -> None:
    url, _ = existing(sqs_kit)
    made = transport(sqs_kit, media={"queue": url})
    send(made, ["not json"])
    [held] = collect(made, 1)
    with pytest.raises(ConfigurationError, match="no dead-letter queue"):
        made.dead_letter(QUEUE, held, "no JSON")
    assert made.counts(QUEUE).dead == 0


def test_a_queue_of_another_region_is_refused(sqs_kit: SQSKit) -> None:
    arn = "arn:aws:sqs:eu-west-1:123456789012:media"
    made = transport(sqs_kit, media={"queue": arn})
    with pytest.raises(ConfigurationError, match="not in the region us-east-1"):
        made.receive(QUEUE, 1, 0)


def test_each_queue_may_have_a_visibility_of_its_own(sqs_kit: SQSKit) -> None:
    made = transport(sqs_kit, media={"visibility": "1s"})
    assert (made.visibility(QUEUE), made.visibility("other")) == (1, 30)
    send(made, [body(1)])
    assert made.send("other", [body(2)]) == [None]
    [first] = collect(made, 1)
    assert len(made.receive("other", 1, 0)) == 1
    [again] = collect(made, 1)
    assert (first.receive_count, again.receive_count) == (1, 2)
    assert made.receive("other", 1, 0) == []


def test_a_queue_that_may_not_be_made_is_told_and_not_tried_again(
    sqs_kit: SQSKit, proxy: Proxy
) -> None:
    made = transport(sqs_kit, url=proxy.url)
    proxy.meets("CreateQueue", Answer("AccessDenied", 403))
    [outcome] = made.send(QUEUE, [body(1)])
    assert isinstance(outcome, Exception)
    assert "SQS denies sqs:CreateQueue" in str(outcome)
    assert not made.is_transient(outcome)
