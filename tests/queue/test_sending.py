"""Messages that a queue does not take are sent again, for a bounded time."""

from __future__ import annotations

import typing as t
from urllib.parse import urlsplit

import pytest

from flask_durable.queue.sending import Sender
from flask_durable.queue.sqs.client import SQSAddress
from flask_durable.queue.transport import Transport

from ..support.proxy import MARKS
from ..support.proxy import Moment
from ..support.proxy import Proxy
from ..support.proxy import proxy
from ..support.proxy import queue_url
from .kit import bodies
from .kit import body
from .kit import collect
from .kit import Kit
from .kit import make_transport
from .kit import QUEUE
from .kit import text


class Behind:
    """A queue that is sent to through a proxy, and looked at past it."""

    def __init__(self, kit: Kit, proxy: Proxy) -> None:
        self.proxy = proxy
        self.direct = kit.transport(visibility=30)
        self.direct.declare(QUEUE)
        self.transport: Transport = make_transport(
            kit.kind,
            queue_url(kit.kind, proxy.port),
            kit.namespace,
            30,
            answer_within=0.3,
        )
        # So that the first send is nothing but a send.
        assert self.transport.send(QUEUE, [body(0)]) == [None]
        self.received(1)
        proxy.requests = 0

    def sender(self, patience: float = 20) -> Sender:
        return Sender(self.transport, patience)

    def received(self, count: int) -> list[str]:
        found = collect(self.direct, count)
        self.direct.delete(QUEUE, [each.receipt for each in found])
        return sorted(map(text, found))


@pytest.fixture
def behind(kit: Kit) -> t.Iterator[Behind]:
    if kit.kind == "redis":
        port = urlsplit(kit.url).port
    else:
        port = urlsplit(SQSAddress.parse(kit.url).endpoint).port
    assert port is not None
    with proxy(port, MARKS[kit.kind]) as made:
        found = Behind(kit, made)
        yield found
        found.transport.close()


def test_a_request_that_never_came_is_sent_again(behind: Behind) -> None:
    behind.proxy.cut_next(Moment.BEFORE_REQUEST, Moment.BEFORE_REQUEST)

    assert behind.sender().send(QUEUE, bodies(5)) == [None] * 5

    assert behind.proxy.cut == 2
    assert behind.received(5) == bodies(5)


def test_a_request_whose_reply_was_lost_is_on_the_queue_twice(behind: Behind) -> None:
    behind.proxy.cut_next(Moment.BEFORE_REPLY)

    assert behind.sender().send(QUEUE, [body(1)]) == [None]

    assert behind.received(2) == [body(1)] * 2


def test_a_queue_that_is_back_in_time_takes_it(behind: Behind) -> None:
    behind.proxy.take_down()

    # One after the other, as the proxy counts them: the queue is back at the third try.
    class Patient(Sender):
        tries = 0

        def _send_once(self, *args: t.Any) -> t.Any:
            self.tries += 1
            if self.tries == 3:
                behind.proxy.bring_up()
            return super()._send_once(*args)

    sender = Patient(behind.transport, 20)
    assert sender.send(QUEUE, bodies(3)) == [None] * 3

    assert sender.tries >= 3
    assert behind.received(3) == bodies(3)


def test_a_queue_that_is_down_is_given_up_with_an_error_for_each(
    behind: Behind,
) -> None:
    behind.proxy.take_down()

    outcomes = behind.sender(patience=0.5).send(QUEUE, bodies(25))

    assert len(outcomes) == 25
    for error in outcomes:
        assert isinstance(error, Exception)
        assert behind.transport.is_transient(error)


@pytest.mark.timeout(20)
def test_a_queue_that_hangs_is_given_up_soon(behind: Behind) -> None:
    behind.proxy.silent = True

    # Of 30 batches, ten of them for SQS, the others are not waited for.
    outcomes = behind.sender(patience=1).send(QUEUE, bodies(300))

    assert all(isinstance(error, Exception) for error in outcomes)


def test_what_can_never_be_sent_takes_no_time_and_nothing_with_it(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    if kit.kind == "redis":
        pytest.skip("the queue on Redis takes any text")

    error, sent = Sender(transport, 60).send(QUEUE, ["", body(1)])

    assert isinstance(error, ValueError)
    assert not transport.is_transient(error)
    assert sent is None
