"""The newest log lines of each run, kept beside it and removed with it."""

from __future__ import annotations

import typing as t

from ..common.ids import new_token
from .keys import Keys
from .server import Call
from .server import StateServer

#: Bytes of lines that a run keeps, in their stored form.
MAX_LOG_BYTES = 16 * 1024

#: Runs whose lines are written in one pipeline.
BATCH = 100


class RunLogStore:
    """Writes and reads lines as opaque text.

    :param lines: The number of lines that a run keeps; 0 keeps none.
    """

    def __init__(self, server: StateServer, keys: Keys, lines: int) -> None:
        self._server = server
        self._keys = keys
        self.lines = lines

    def append(self, batches: t.Sequence[tuple[str, t.Sequence[str]]]) -> None:
        """Add lines to runs; those of a run that is gone are dropped.

        :param batches: The id of each run and its lines, oldest first.
        :raises redis.RedisError: The server did not answer, or has no room.
        """
        calls: list[Call] = [
            (
                "run_log",
                self._keys.tag_of(run_id),
                [run_id, new_token(), self.lines, MAX_LOG_BYTES, *lines],
            )
            for run_id, lines in batches
        ]
        for start in range(0, len(calls), BATCH):
            for reply in self._server.call_many(calls[start : start + BATCH]):
                if isinstance(reply, Exception):
                    raise reply

    def read(self, run_id: str) -> list[tuple[int, str]] | None:
        """Return each line and its number; ``None`` if there is no such run.

        :raises redis.RedisError: The server did not answer.
        """
        tag = self._keys.tag_of(run_id)
        pipeline = self._server.client.pipeline(transaction=False)
        pipeline.exists(f"{tag}:run:{run_id}")
        pipeline.lrange(f"{tag}:log:{run_id}", 0, -1)
        there, entries = pipeline.execute()
        if not there:
            return None
        return [_parsed(entry) for entry in entries]


def _parsed(entry: str) -> tuple[int, str]:
    number, _, line = entry.split(" ", 2)
    return int(number), line
