"""The numbers of runs that began and ended, counted by the scripts that do that.

So they are exact, whichever process dies: for each function ``started`` is the sum of
``completed``, ``failed``, ``cancelled`` and the unfinished runs. A run that is retried
counts as started once more, since it will end once more. Hours are those of the
server's clock.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from collections import defaultdict

from ...redis.client import ask_holder
from ..keys import Keys
from ..server import StateServer

#: The counts of a function.
RUN_COUNTS = ("started", "completed", "failed", "cancelled")
Counts = Counter[str]


class RunCounts:
    """Reads the counts of one namespace.

    :param server: The state server.
    :param keys: The key names of the namespace.
    """

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def totals(self) -> dict[str, Counts]:
        """Return the counts by function, since the namespace began.

        :raises redis.RedisError: The server did not answer.
        """
        return self._read(["totals"])

    def since(self, hours: int) -> dict[str, Counts]:
        """Return the counts by function, of this hour and *hours* before it.

        :param hours: The number of hours; at most 191 are kept.
        :raises redis.RedisError: The server did not answer.
        """
        now = int(ask_holder(self._server.client, self._keys.root, "TIME")[0]) // 3600
        return self._read([f"counts:{now - back}" for back in range(hours + 1)])

    def _read(self, names: t.Sequence[str]) -> dict[str, Counts]:
        pipeline = self._server.client.pipeline(transaction=False)
        for tag in self._keys.tags:
            for name in names:
                pipeline.hgetall(f"{tag}:{name}")
        found: defaultdict[str, Counts] = defaultdict(Counter)
        for counted in pipeline.execute():
            for field, count in counted.items():
                function, _, what = field.rpartition(":")
                found[function][what] += int(count)
        return dict(found)
