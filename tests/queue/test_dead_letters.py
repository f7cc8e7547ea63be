"""Dead letters of every kind of queue: put, looked at, moved back, deleted."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import typing as t

import pytest
from botocore.exceptions import ClientError

from flask_durable.queue.transport import DeadLetterCursor
from flask_durable.queue.transport import QueueCounts
from flask_durable.queue.transport import StoredLetter
from flask_durable.queue.transport import Transport

from ..support.servers import wait_until
from .kit import body
from .kit import collect
from .kit import Kit
from .kit import QUEUE
from .kit import RedisKit
from .kit import send
from .kit import SQSKit
from .kit import text

#: Seconds that a letter stays hidden if the process that looks at it dies.
HOLD = 30.0


def look_through(transport: Transport, limit: int = 5) -> list[StoredLetter]:
    """Return every dead letter, as a cursor shows them."""
    found: list[StoredLetter] = []
    with looking(transport) as cursor:
        while letters := cursor.next(limit):
            found += letters
    assert cursor.complete
    return found


@contextlib.contextmanager
def looking(transport: Transport) -> t.Iterator[DeadLetterCursor]:
    cursor = transport.dead_letters.open_cursor(QUEUE, HOLD)
    with contextlib.closing(cursor):
        yield cursor


def facts(letter: StoredLetter) -> tuple[str, str, int]:
    text = letter.body if isinstance(letter.body, str) else letter.body.decode()
    return text, letter.reason, letter.receives


def test_a_message_that_was_never_received_can_be_put_into_the_dead_letters(
    kit: Kit,
) -> None:
    broker = kit.broker()
    broker.sender.send_dead(QUEUE, body(1), "the other side refused it\x00", receives=5)
    [letter] = kit.dead_letters()
    assert (letter.body, letter.receives) == (body(1), 5)
    assert str(letter.reason).startswith("the other side refused it")
    assert broker.transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_a_reason_is_kept_beside_a_large_body(kit: Kit) -> None:
    kit.transport().send_dead(QUEUE, "x" * 900_000, "too large")
    [letter] = kit.dead_letters()
    assert letter.reason == "too large"


def test_putting_a_dead_letter_again_after_a_lost_reply_puts_one(
    redis_kit: RedisKit,
) -> None:
    transport = redis_kit.transport()
    run = transport.run  # type: ignore[attr-defined]

    def twice(*call: object) -> object:
        first = run(*call)
        assert run(*call) == first
        return first

    transport.run = twice  # type: ignore[attr-defined]
    transport.send_dead(QUEUE, body(1), "because")
    transport.send_dead(QUEUE, body(1), "because")
    assert len(redis_kit.dead_letters()) == 2


# -- Looking ----------------------------------------------------------------------


def test_a_look_shows_each_letter_once_with_why_it_is_there(kit: Kit) -> None:
    transport = kit.transport()
    for number in range(12):
        transport.send_dead(QUEUE, body(number), f"because {number}", receives=number)
    found = look_through(transport)
    assert sorted(map(facts, found)) == sorted(
        (body(number), f"because {number}", number) for number in range(12)
    )
    assert len({letter.id for letter in found}) == 12
    now = time.time() * 1000
    for letter in found:
        assert letter.dead is not None
        assert abs(letter.sent - now) < 60_000
        assert abs(letter.dead - now) < 60_000


def test_what_was_looked_at_can_be_looked_at_again_at_once(kit: Kit) -> None:
    transport = kit.transport()
    transport.send_dead(QUEUE, body(1), "because")
    [first] = look_through(transport)
    [second] = look_through(kit.transport())
    assert second.id == first.id
    assert transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_letters_that_are_looked_at_are_counted_as_dead(kit: Kit) -> None:
    transport = kit.transport()
    transport.send_dead(QUEUE, body(1), "because")
    with looking(transport) as cursor:
        assert len(cursor.next(5)) == 1
        assert transport.counts(QUEUE) == QueueCounts(0, 0, 0, 1)


def test_looking_makes_no_queue(kit: Kit) -> None:
    letters = kit.transport().dead_letters
    assert look_through(kit.transport()) == []
    assert letters.count(QUEUE) == 0
    assert letters.purge(QUEUE) is False
    if isinstance(kit, SQSKit):
        found = kit.client.list_queues(QueueNamePrefix=kit.namespace)
        assert not found.get("QueueUrls")
    if isinstance(kit, RedisKit):
        assert list(kit.client.scan_iter(f"{{{kit.namespace}*")) == []


def test_letters_are_counted(kit: Kit) -> None:
    transport = kit.transport()
    for number in range(3):
        transport.send_dead(QUEUE, body(number), "because")
    assert transport.dead_letters.count(QUEUE) == 3
    cursor = transport.dead_letters.open_cursor(QUEUE, 30)
    cursor.next(2)
    assert transport.dead_letters.count(QUEUE) == 3
    cursor.close()


def test_a_letter_that_the_queue_moved_itself_says_how_often_it_was_received(
    kit: Kit,
) -> None:
    transport = kit.transport(max_receives=2)
    transport.declare(QUEUE)
    send(transport, [body(1)])
    for _ in range(2):
        [held] = collect(transport, 1)
        assert transport.release(QUEUE, [held.receipt]) == [None]

    def moved() -> bool:
        assert transport.receive(QUEUE, 10, 0) == []
        return transport.dead_letters.count(QUEUE) == 1

    wait_until(moved)
    for _ in range(3):  # looking does not count
        [letter] = look_through(transport)
        reason = "received 2 times without being deleted"
        assert facts(letter) == (body(1), reason, 2)
    assert abs(letter.sent / 1000 - time.time()) < 60


# -- Moving back ------------------------------------------------------------------


def test_a_letter_that_is_moved_back_is_received_as_if_never_before(kit: Kit) -> None:
    transport = kit.transport()
    transport.send_dead(QUEUE, body(1), "because", receives=10)
    with looking(transport) as cursor:
        assert cursor.move_back(cursor.next(5)) == [None]
    [held] = collect(transport, 1)
    assert (text(held), held.receive_count) == (body(1), 1)
    assert transport.delete(QUEUE, [held.receipt]) == [None]
    wait_until(lambda: transport.counts(QUEUE) == QueueCounts(0, 0, 0, 0))


def test_letters_are_moved_and_deleted_in_batches(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    for number in range(25):
        transport.send_dead(QUEUE, body(number), "because")
    moved, deleted = [], []
    with looking(transport) as cursor:
        while letters := cursor.next(12):
            assert cursor.move_back(letters[::2]) == [None] * len(letters[::2])
            assert cursor.delete(letters[1::2]) == [None] * len(letters[1::2])
            moved += letters[::2]
            deleted += letters[1::2]
    assert len(moved) + len(deleted) == 25
    received = collect(transport, len(moved))
    assert {text(item) for item in received} == {facts(letter)[0] for letter in moved}
    assert transport.dead_letters.count(QUEUE) == 0


def test_a_letter_is_moved_back_once_by_several_looks(kit: Kit) -> None:
    transport, other = kit.transport(visibility=30), kit.transport(visibility=30)
    transport.send_dead(QUEUE, body(1), "because")
    with looking(transport) as one, looking(other) as two:
        # On SQS the second one sees nothing: the letter is in hand.
        letters = [one.next(5), two.next(5)]
        assert one.move_back(letters[0]) == [None]
        assert all(error is None for error in two.move_back(letters[1]))
        assert one.move_back(letters[0][1:]) == []
    collect(transport, 1)
    assert transport.counts(QUEUE) == QueueCounts(0, 1, 0, 0)


def test_a_look_ends_although_what_it_moves_back_dies_again(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    for number in range(3):
        transport.send_dead(QUEUE, body(number), "because")
    moved = 0
    with looking(transport) as cursor:
        begun = time.time()
        # SQS tells its time to the second: a letter of the same one might be met again.
        wait_until(lambda: kit.kind == "redis" or time.time() > begun + 1.1)
        while letters := cursor.next(1):
            assert cursor.move_back(letters) == [None]
            [held] = collect(transport, 1)
            transport.dead_letter(QUEUE, held, "again")
            moved += 1
    assert moved == 3
    assert [letter.reason for letter in look_through(transport)] == ["again"] * 3


def test_a_letter_that_was_moved_and_not_deleted_is_there_twice_not_lost(
    sqs_kit: SQSKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = sqs_kit.transport(visibility=30)
    transport.send_dead(QUEUE, body(1), "because")
    with looking(transport) as cursor:
        letters = cursor.next(5)
        client = cursor._client  # type: ignore[attr-defined]

        def fail(**call: object) -> object:
            raise OSError("the network is gone")

        with monkeypatch.context() as broken:
            broken.setattr(client, "delete_message_batch", fail)
            [error] = cursor.move_back(letters)
        assert "network" in str(error)
    assert len(look_through(transport)) == 1
    assert [text(item) for item in collect(transport, 1)] == [body(1)]


def test_a_redrive_that_is_killed_loses_nothing(kit: Kit) -> None:
    transport = kit.transport(visibility=30)
    for number in range(20):
        transport.send_dead(QUEUE, body(number), "because")
    command = [sys.executable, "-m", "tests.queue.redriver", kit.kind, kit.url]
    with subprocess.Popen(
        [*command, kit.namespace], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(3):
                process.stdout.readline()
        finally:
            process.kill()
    left: set[str] = set()

    def all_there() -> bool:
        left.update(facts(letter)[0] for letter in look_through(transport))
        left.update(text(item) for item in transport.receive(QUEUE, 10, 0))
        return len(left) == 20

    wait_until(all_there)
    # On Redis each is in one place; on SQS the one that was on its way may be in two.
    counts = transport.counts(QUEUE)
    extra = counts.waiting + counts.in_flight + counts.dead - 20
    assert 0 <= extra <= (kit.kind == "sqs")


# -- Purging ----------------------------------------------------------------------


def test_sqs_purges_in_one_call(sqs_kit: SQSKit) -> None:
    transport = sqs_kit.transport()
    transport.send_dead(QUEUE, body(1), "because")
    assert transport.dead_letters.purge(QUEUE) is True
    assert transport.dead_letters.count(QUEUE) == 0


@pytest.mark.parametrize("code", ["PurgeQueueInProgress", "AccessDenied"])
def test_what_cannot_be_purged_in_one_call_now_is_to_be_deleted_one_by_one(
    sqs_kit: SQSKit, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    transport = sqs_kit.transport()
    transport.send_dead(QUEUE, body(1), "because")
    client = transport._client.get()  # type: ignore[attr-defined]

    def refuse(**call: object) -> t.NoReturn:
        raise ClientError({"Error": {"Code": code}}, "PurgeQueue")

    monkeypatch.setattr(client, "purge_queue", refuse)
    assert transport.dead_letters.purge(QUEUE) is False
    assert transport.dead_letters.count(QUEUE) == 1
