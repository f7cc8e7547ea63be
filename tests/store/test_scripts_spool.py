"""``spool``: events that their queue did not take wait in the outbox."""

from __future__ import annotations

import redis

from flask_durable.errors import UnavailableError
from flask_durable.store.spool import Spool

from ..support.servers import valkey_server
from .kit import Kit


def spool_of(kit: Kit, limit: int = 1000) -> Spool:
    return Spool(kit.server, kit.keys, limit=limit)


def keep(kit: Kit, *events: tuple[str, str], limit: int = 1000) -> list[bool]:
    """Keep *events*; return for each whether it is kept."""
    return [error is None for error in spool_of(kit, limit).keep(events)]


def swept(kit: Kit) -> list[str]:
    """Return the messages that the next sweep would send, of all partitions."""
    found = []
    for tag in kit.keys.tags:
        for entry, message in kit.store.sweep(tag).events:
            assert kit.keys.tag_of_entry(entry) == tag
            found.append(message)
    return found


def test_a_spooled_event_is_swept_at_once_and_until_it_is_confirmed(kit: Kit) -> None:
    assert keep(kit, ("order:1.a", "one")) == [True]

    assert swept(kit) == ["one"]
    assert swept(kit) == []
    kit.advance(6)
    assert swept(kit) == ["one"]

    [entry] = kit.owed()
    kit.store.confirm_events(kit.keys.tag_of_entry(entry), [entry])
    kit.advance(6)
    assert swept(kit) == []
    assert [*kit.dump()] == [f"{tag}:lease" for tag in kit.keys.tags]


def test_the_same_message_is_there_once_and_another_one_beside_it(kit: Kit) -> None:
    assert keep(kit, ("id", "one"), ("id", "two")) == [True, True]
    with kit.unchanged():
        assert keep(kit, ("id", "two"), ("id", "one")) == [True, True]

    assert sorted(swept(kit)) == ["one", "two"]


def test_a_full_outbox_takes_nothing_more_and_keeps_what_it_has(kit: Kit) -> None:
    events = [(f"id{number}", str(number)) for number in range(5)]

    assert keep(kit, *events, limit=3) == [True, True, True, False, False]
    with kit.unchanged():
        # Those that are there already are kept when they are asked for again.
        assert keep(kit, *reversed(events), limit=3) == [False, False] + [True] * 3
    [error] = spool_of(kit, 3).keep([("more", "x")])

    assert isinstance(error, UnavailableError)
    assert kit.store.count_owed_events() == 3


def test_events_are_spread_over_the_partitions(url: str) -> None:
    kit = Kit(url, partitions=4)
    ids = [f"order.{number}" for number in range(60)]

    assert all(keep(kit, *[(id, id) for id in ids]))

    sizes = [kit.client.zcard(f"{tag}:outbox:events") for tag in kit.keys.tags]
    assert sum(sizes) == kit.store.count_owed_events() == 60
    assert min(sizes) > 0
    assert sorted(swept(kit)) == sorted(ids)
    kit.close()


def test_many_events_are_several_calls(kit: Kit) -> None:
    events = [(f"id{number}", str(number)) for number in range(250)]

    assert all(keep(kit, *events))

    assert kit.store.count_owed_events() == 250


def test_a_server_without_memory_takes_nothing() -> None:
    with valkey_server(maxmemory="5mb") as server:
        kit = Kit(server.url)
        kit.server.repeats = False
        errors: list[Exception | None] = [None]
        kept = -1
        while errors == [None]:
            kept += 1
            errors = spool_of(kit).keep([(f"id{kept}", "x" * 10_000)])

        assert isinstance(errors[0], redis.OutOfMemoryError)
        assert kit.store.count_owed_events() == kept > 0
        kit.close()


def test_a_server_that_is_gone_is_asked_once() -> None:
    with valkey_server() as server:
        kit = Kit(server.url, partitions=4)
        server.kill()
        asked = 0

        class Counting:
            def call(self, *args: object) -> None:
                nonlocal asked
                asked += 1
                raise redis.ConnectionError("gone")

        events = [(f"id{number}", "x") for number in range(300)]
        outcomes = Spool(Counting(), kit.keys).keep(events)  # type: ignore[arg-type]

        assert asked == 1
        assert all(isinstance(error, redis.ConnectionError) for error in outcomes)
        kit.close()
