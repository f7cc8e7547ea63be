"""The errors of messages that could not be processed, noted while they are received.

A queue may move a message to its dead letters by itself, and tell only its receive
count. So each time that processing raises, the error is noted here under the subject of
the message. It is shown beside the dead letter, or beside the run that waits for its
message. Nothing depends on a note: it may be late, forgotten, or of an earlier message
on the same subject, which its time shows.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict
from dataclasses import dataclass

from ..common.ids import new_token
from .keys import Keys
from .server import Call
from .server import StateServer

#: Messages that are remembered in each partition: the last ones that failed.
MAX_NOTED = 5_000

#: Milliseconds that they are remembered: longer than dead letters are kept.
REMEMBERED = 15 * 86400 * 1000

#: Messages of one call of the script.
BATCH = 100


@dataclass(frozen=True)
class MessageFailure:
    """The last error of a message that could not be processed.

    :param error: The error that processing it raised last.
    :param at: The time of it: milliseconds since 1970, the server's clock.
    """

    error: str
    at: int


class MessageFailures:
    """Notes and reads the errors of messages."""

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def note(self, errors: t.Mapping[str, str]) -> None:
        """Remember *errors*, by the subjects of the messages.

        :raises Exception: The server did not answer, or has no room.
        """
        by_tag: dict[str, list[str]] = defaultdict(list)
        for about, error in errors.items():
            by_tag[self._tag(about)] += [about, error]
        calls: list[Call] = [
            ("failure_note", tag, [new_token(), MAX_NOTED, REMEMBERED, *part])
            for tag, pairs in by_tag.items()
            for part in _parts(pairs)
        ]
        for reply in self._server.call_many(calls):
            if isinstance(reply, Exception):
                raise reply

    def of(self, about: t.Collection[str]) -> dict[str, MessageFailure]:
        """Return the known errors of messages, by the subjects of the messages.

        :raises redis.RedisError: The server did not answer.
        """
        if not about:
            return {}
        pipeline = self._server.client.pipeline(transaction=False)
        for one in about:
            pipeline.hget(f"{self._tag(one)}:failures", one)
        found = zip(about, pipeline.execute(), strict=True)
        return {one: _parse(note) for one, note in found if note}

    def _tag(self, about: str) -> str:
        return self._keys.tag_of(about.partition(":")[2])


def _parts(pairs: list[str]) -> t.Iterator[list[str]]:
    size = 2 * BATCH
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def _parse(note: str) -> MessageFailure:
    head, _, error = note.partition("\n")
    return MessageFailure(error, int(head.split(" ")[0]))
