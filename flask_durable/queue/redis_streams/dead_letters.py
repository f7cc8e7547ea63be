"""Dead letters of queues on Redis Streams: a stream beside each queue's own.

Looking takes nothing and hides nothing. A letter goes back by one script.
"""

from __future__ import annotations

import typing as t

import redis

from ..transport import Outcome
from ..transport import reaching
from ..transport import StoredLetter

#: The number of letters in one call.
LETTER_BATCH = 100

Entry = tuple[bytes, dict[bytes, bytes]]


class Streams(t.Protocol):
    """The streams of all queues: the transport's."""

    @property
    def client(self) -> redis.Redis:
        """This process's client, whose replies are bytes."""

    def run(self, name: str, keys: list[str], arguments: t.Sequence[str]) -> t.Any:
        """Run one of the queues' scripts."""

    def keys(self, queue: str) -> tuple[str, str]:
        """Return the keys of the stream of *queue* and of that of its dead letters."""


class RedisDeadLetters:
    """The dead letters of all queues of one transport.

    :param streams: The streams of the queues.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def count(self, queue: str) -> int:
        with reaching(queue, redis.RedisError):
            return int(self._streams.client.xlen(self._streams.keys(queue)[1]))

    def open_cursor(self, queue: str, hold: float) -> RedisDeadLetterCursor:
        return RedisDeadLetterCursor(self._streams, queue)

    def purge(self, queue: str) -> bool:
        # Otherwise letters would go too that came since the caller counted.
        return False


class RedisDeadLetterCursor:
    """One pass, from the oldest letter to the one that was newest when it began."""

    def __init__(self, streams: Streams, queue: str) -> None:
        self.complete = False
        self._streams = streams
        self._queue = queue
        self._keys = keys = streams.keys(queue)
        self._next = "-"
        with reaching(queue, redis.RedisError):
            newest = t.cast("list[Entry]", streams.client.xrevrange(keys[1], count=1))
        self._last = newest[0][0].decode() if newest else None

    def next(self, limit: int) -> list[StoredLetter]:
        if self._last is None:
            self.complete = True
            return []
        with reaching(self._queue, redis.RedisError):
            found = t.cast(
                "list[Entry]",
                self._streams.client.xrange(
                    self._keys[1], self._next, self._last, min(limit, LETTER_BATCH)
                ),
            )
        if not found:
            self.complete = True
            return []
        self._next = f"({found[-1][0].decode()}"
        return [_letter(id.decode(), values) for id, values in found]

    def move_back(self, letters: t.Sequence[StoredLetter]) -> list[Outcome]:
        return self._each(
            letters, lambda ids: self._streams.run("q_redrive", [*self._keys], ids)
        )

    def delete(self, letters: t.Sequence[StoredLetter]) -> list[Outcome]:
        return self._each(
            letters, lambda ids: self._streams.client.xdel(self._keys[1], *ids)
        )

    def close(self) -> None:
        pass

    def _each(
        self, letters: t.Sequence[StoredLetter], call: t.Callable[[list[str]], object]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(letters), LETTER_BATCH):
            ids = [letter.id for letter in letters[start : start + LETTER_BATCH]]
            error: Outcome = None
            try:
                call(ids)
            except redis.RedisError as problem:
                error = problem
            outcomes += [error] * len(ids)
        return outcomes


def _letter(id: str, values: dict[bytes, bytes]) -> StoredLetter:
    dead = int(id.partition("-")[0])
    return StoredLetter(
        id=id,
        body=values.get(b"body", b""),
        reason=values.get(b"reason", b"").decode("utf-8", "replace"),
        receives=int(values.get(b"receives", 0)),
        sent=int(values.get(b"sent", dead)),
        dead=dead,
    )
