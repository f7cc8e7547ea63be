"""Deliveries to a receiver, and what becomes of its answers."""

from __future__ import annotations

import dataclasses
import logging
import time
import typing as t
from datetime import datetime
from datetime import timezone
from email.utils import formatdate

import pytest
from standardwebhooks import Webhook

from flask_durable import Backoff
from flask_durable import Event
from flask_durable import RunStatus
from flask_durable.security.keys import new_signing_secret

from ..support.harness import Harness
from ..support.servers import free_port
from . import receiver as answers
from .receiver import Answer
from .receiver import KEY
from .receiver import Receiver
from .receiver import status

#: When the events happened: long ago, so that their runs start at once.
AT = datetime(2020, 1, 2, 3, 4, 5, 678000, timezone.utc)

ONE_SECOND = Backoff("1s", factor=1, jitter=False)


def forward(harness: Harness, to: str, **options: t.Any) -> None:
    options = {"on": "media/*", "timeout": 1, "backoff": ONE_SECOND, **options}
    harness.durable.forward(to=to, **options)


def send(harness: Harness, id: str = "e1") -> str:
    event = Event("media/up", {"n": 1, "of": "é"}, id=id, at=AT)
    return harness.send(event)


def test_an_event_arrives_as_inngests_event_api_takes_it(
    harness: Harness, receiver: Receiver
) -> None:
    forward(harness, receiver.url)
    run = harness.run_of_settled(send(harness))

    assert run.status is RunStatus.COMPLETED
    [delivery] = receiver.deliveries
    assert delivery.path == f"/e/{KEY}"
    assert delivery.headers["Content-Type"] == "application/json"
    assert delivery.headers["x-inngest-event-id-seed"].startswith("1577934245678,")
    assert delivery.json == {
        "id": "e1",
        "name": "media/up",
        "data": {"n": 1, "of": "é"},
        "ts": 1577934245678,
    }


def test_a_query_stays_in_the_address(harness: Harness, receiver: Receiver) -> None:
    forward(harness, f"http://localhost:{receiver.port}?token={KEY}")
    harness.run_of_settled(send(harness))
    assert receiver.deliveries[0].path == f"/?token={KEY}"


def test_other_events_stay(harness: Harness, receiver: Receiver) -> None:
    forward(harness, receiver.url, where=lambda event: event.data["n"] > 1)
    harness.send("other/up", {"n": 2})
    harness.send("media/up", {"n": 1})
    taken = harness.send("media/up", {"n": 2})
    harness.settle()
    assert [delivery.json["id"] for delivery in receiver.deliveries] == [taken]


def test_a_webhook_is_signed_with_each_secret(
    harness: Harness, receiver: Receiver
) -> None:
    secrets = [new_signing_secret(), new_signing_secret()]
    forward(harness, receiver.url, signing_secrets=secrets)
    harness.run_of_settled(send(harness))

    [delivery] = receiver.deliveries
    assert delivery.headers["webhook-id"] == "e1"
    for secret in secrets:
        data = Webhook(secret).verify(delivery.body, dict(delivery.headers))
        assert data == {
            "type": "media/up",
            "timestamp": "2020-01-02T03:04:05.678+00:00",
            "data": {"n": 1, "of": "é"},
        }


@pytest.mark.parametrize(
    "answer",
    [
        *(status(number) for number in (408, 425, 429, 500, 503, 599)),
        answers.nothing,
        answers.nonsense,
        answers.half,
        answers.half_a_chunk,
        answers.silence,
        answers.trickle,
    ],
)
def test_what_was_not_taken_is_sent_again_with_the_same_id(
    harness: Harness, receiver: Receiver, answer: Answer
) -> None:
    secret = new_signing_secret()
    forward(harness, receiver.url, signing_secrets=secret)
    receiver.answers = [answer]
    event_id = send(harness)
    assert harness.run_of_settled(event_id).status is RunStatus.SUSPENDED
    harness.advance(2)

    assert harness.run_of(event_id).status is RunStatus.COMPLETED
    first, second = receiver.deliveries
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "e1"
    assert first.body == second.body
    for delivery in receiver.deliveries:
        Webhook(secret).verify(delivery.body, dict(delivery.headers))


def test_the_seed_of_an_event_is_the_same_in_each_delivery(
    harness: Harness, receiver: Receiver
) -> None:
    forward(harness, receiver.url)
    receiver.answers = [status(500)]
    send(harness)
    harness.settle()
    harness.advance(2)
    [seed, again] = [d.headers["x-inngest-event-id-seed"] for d in receiver.deliveries]
    assert seed == again


def test_a_receiver_that_is_not_there_is_tried_again(harness: Harness) -> None:
    forward(harness, f"http://127.0.0.1:{free_port()}/e/{KEY}")
    run = harness.run_of_settled(send(harness))
    assert run.status is RunStatus.SUSPENDED
    assert run.steps[0].failure is not None
    assert "did not answer: ConnectionRefusedError" in run.steps[0].failure.message


@pytest.mark.parametrize(
    ("given", "early", "late"),
    [
        ("100", 90, 20),
        (formatdate(time.time() + 1000, usegmt=True), 500, 600),
        ("1e300", 3500, 200),
        ("0", 0.5, 1),
        ("soon", 0.5, 1),
        ("nan", 0.5, 1),
        ("-5", 0.5, 1),
    ],
    ids=["seconds", "date", "too-long", "zero", "words", "nan", "negative"],
)
def test_a_receiver_says_when_it_is_to_be_tried_again(
    harness: Harness, receiver: Receiver, given: str, early: float, late: float
) -> None:
    forward(
        harness,
        receiver.url,
        backoff=Backoff("30m", factor=1, jitter=False)
        if given == "1e300"
        else ONE_SECOND,
    )
    receiver.answers = [status(429, {"Retry-After": given})]
    send(harness)
    harness.settle()
    harness.advance(early)
    assert len(receiver.deliveries) == 1
    harness.advance(late)
    assert len(receiver.deliveries) == 2


@pytest.mark.parametrize("number", [304, 400, 401, 404, 410, 413, 422])
def test_what_is_refused_is_not_sent_again(
    harness: Harness, receiver: Receiver, number: int
) -> None:
    forward(harness, receiver.url)
    receiver.answers = [status(number)]
    run = harness.run_of_settled(send(harness))
    assert run.status is RunStatus.FAILED
    assert run.failure is not None
    assert f"/… answered {number} " in run.failure.message
    assert len(receiver.deliveries) == 1


@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    harness: Harness, receiver: Receiver, number: int
) -> None:
    forward(harness, receiver.url)
    receiver.answers = [status(number, {"Location": f"{receiver.url}/elsewhere"})]
    assert harness.run_of_settled(send(harness)).status is RunStatus.FAILED
    assert [delivery.path for delivery in receiver.deliveries] == [f"/e/{KEY}"]


def test_an_answer_without_an_end_is_not_read_to_it(
    harness: Harness, receiver: Receiver
) -> None:
    forward(harness, receiver.url, timeout=30)
    receiver.answers = [answers.endless]
    assert harness.run_of_settled(send(harness)).status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    "answer", [status(200), status(500), status(404), answers.nonsense, answers.half]
)
def test_neither_key_nor_secret_is_shown(
    harness: Harness,
    receiver: Receiver,
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = new_signing_secret()
    with caplog.at_level(logging.DEBUG):
        forward(harness, receiver.url, signing_secrets=secret, retries=1)
        receiver.answers = [answer, answer]
        event_id = send(harness)
        harness.settle()
        harness.advance(2)

    run = harness.run_of(event_id)
    [function] = harness.durable.functions
    record, memos = harness.state.store.read(run.id)
    shown = [run, dataclasses.asdict(run), record, memos, function, function.spec()]
    shown += [caplog.text, capfd.readouterr(), vars(function.options)]
    for text in map(repr, shown):
        assert KEY not in text
        assert secret.removeprefix("whsec_") not in text
