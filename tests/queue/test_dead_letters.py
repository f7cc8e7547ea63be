"""Dead letters of every kind of queue: put, looked at, moved back, deleted."""

from __future__ import annotations

from flask_durable.queue.transport import QueueCounts

from .kit import body
from .kit import Kit
from .kit import QUEUE
from .kit import RedisKit


def test_a_message_that_was_never_received_can_be_put_into_the_dead_letters(
    kit: Kit,
) -> None:
    broker = kit.broker()
    broker.send_dead(QUEUE, body(1), "the other side refused it\x00", receives=5)
    [letter] = kit.dead_letters()
    assert (letter.body, letter.receives) == (body(1), 5)
    assert str(letter.reason).startswith("the other side refused it")
    assert broker.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_a_reason_is_kept_beside_a_large_body(kit: Kit) -> None:
    kit.transport().send_dead(QUEUE, "x" * 900_000, "too large")
    [letter] = kit.dead_letters()
    assert letter.reason == "too large"


def test_putting_a_dead_letter_again_after_a_lost_reply_puts_one(
    redis_kit: RedisKit,
) -> None:
    transport = redis_kit.transport()
    run = transport._run  # type: ignore[attr-defined]

    def twice(*call: object) -> object:
        first = run(*call)
        assert run(*call) == first
        return first

    transport._run = twice  # type: ignore[attr-defined]
    transport.send_dead(QUEUE, body(1), "because")
    transport.send_dead(QUEUE, body(1), "because")
    assert len(redis_kit.dead_letters()) == 2
