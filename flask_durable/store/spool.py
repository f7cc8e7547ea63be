"""Events that the queue did not take, kept in the outbox of a partition.

::

    sent ── the queue takes it ──────────────────────────────────► queue
      │                                                             ▲
      └─ it does not ──► outbox entry ── a sweep of any worker ──► sent ──► confirmed
                            ▲                                       │
                            └──────── not confirmed for 5 s ────────┘

From the script that writes the entry to the one that removes it after the queue took
the message, the outbox owns the event.
"""

from __future__ import annotations

import hashlib
import typing as t
from collections import defaultdict

import redis

from ..errors import UnavailableError
from ..redis.exchange import Argument
from .keys import Keys
from .server import StateServer

#: Events in the outbox of one partition from which on no more are spooled.
SPOOL_LIMIT = 10_000

#: Events of one script call.
BATCH = 100


class Spool:
    """Keeps events for a queue that does not take them.

    :param server: The state server, over a connection that does not wait for long.
    :param limit: The number of events that a partition's outbox may hold.
    """

    def __init__(
        self, server: StateServer, keys: Keys, *, limit: int = SPOOL_LIMIT
    ) -> None:
        self._server = server
        self._keys = keys
        self._limit = limit

    def keep(self, events: t.Sequence[tuple[str, str]]) -> list[Exception | None]:
        """Keep *events*; return for each ``None``, or the error why it is not kept.

        :param events: The id and the encoded message of each event.
        """
        by_tag: dict[str, list[int]] = defaultdict(list)
        for number, (event_id, _) in enumerate(events):
            by_tag[self._keys.tag_of_event(event_id)].append(number)
        outcomes: list[Exception | None] = [None] * len(events)
        unreachable: Exception | None = None
        for tag, numbers in by_tag.items():
            for start in range(0, len(numbers), BATCH):
                batch = numbers[start : start + BATCH]
                # After one call without an answer the others are not made.
                found = [unreachable] * len(batch)
                if unreachable is None:
                    found = self._keep(tag, [events[number] for number in batch])
                for number, outcome in zip(batch, found, strict=True):
                    outcomes[number] = outcome
                    if isinstance(outcome, redis.RedisError):
                        unreachable = outcome
        return outcomes

    def _keep(self, tag: str, events: list[tuple[str, str]]) -> list[Exception | None]:
        args: list[Argument] = [self._limit]
        for event_id, message in events:
            args += [_entry(event_id, message), message]
        try:
            kept = self._server.call("spool", tag, *args)
        except redis.RedisError as error:
            return [error] * len(events)
        full = UnavailableError(f"The outbox holds {self._limit} events already.")
        return [None if one else full for one in kept]


def _entry(event_id: str, message: str) -> str:
    digest = hashlib.blake2b(message.encode(), digest_size=8).hexdigest()
    return f"spool:{digest}:{event_id}"
