"""What all processes counted and timed, added up, for whoever reads it from here.

One hash has a field for each counter, and for each range of a duration. They only grow,
by commands that commute, so processes need no order among them. What is sent again
after a lost reply counts twice: a few of many.

Names of events come from outside, and may be many. Past :data:`MOST` fields what is new
is added to the field of the same metric in which every label is :data:`OTHER`: nothing
that was counted is missing from a sum.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from .keys import Keys
from .server import StateServer

#: Fields after which new ones are added up as one, and the labels of that.
MOST = 20_000
OTHER = "other"

# KEYS: the hash. ARGV: how many fields are too many; then for each sum its field, the
# field of the same metric for what is too much, and what to add.
_ADD = """
local room = tonumber(ARGV[1]) - redis.call('HLEN', KEYS[1])
for i = 2, #ARGV, 3 do
  local field = ARGV[i]
  if redis.call('HEXISTS', KEYS[1], field) == 0 then
    if room > 0 then room = room - 1 else field = ARGV[i + 1] end
  end
  redis.call('HINCRBYFLOAT', KEYS[1], field, ARGV[i + 2])
end
"""


@dataclass(frozen=True)
class Total:
    """What a sum is of.

    :param metric: The metric's name.
    :param labels: Names and values of its labels.
    :param part: Of a duration: ``"sum"``, or the number of its range; else empty.
    """

    metric: str
    labels: tuple[tuple[str, str], ...]
    part: str = ""

    def field(self) -> str:
        """Return what the sum is called in the hash."""
        return json.dumps([self.metric, self.part, *self.labels], ensure_ascii=False)

    def other(self) -> Total:
        """Return what this is added to if there are too many."""
        labels = tuple((name, OTHER) for name, _ in self.labels)
        return Total(self.metric, labels, self.part)

    @classmethod
    def of(cls, field: str) -> Total:
        """Return what the sum is of that is called *field*."""
        metric, part, *labels = json.loads(field)
        return cls(metric, tuple((name, value) for name, value in labels), part)


class MetricTotals:
    """The sums of one namespace.

    :param server: The state server.
    :param keys: The names of its keys.
    """

    def __init__(self, server: StateServer, keys: Keys) -> None:
        self._server = server
        self._key = f"{keys.root}:metrics:totals"

    def add(self, sums: t.Mapping[Total, float]) -> None:
        """Add *sums* to what is there.

        :raises redis.RedisError: The server did not take it.
        """
        arguments: list[str | int] = [MOST]
        for total, value in sums.items():
            arguments += [total.field(), total.other().field(), f"{value:.12g}"]
        self._server.client.eval(_ADD, 1, self._key, *arguments)

    def read(self) -> dict[Total, float]:
        """Return all sums.

        :raises redis.RedisError: The server did not answer.
        """
        found = t.cast("dict[str, str]", self._server.client.hgetall(self._key))
        return {Total.of(field): float(value) for field, value in found.items()}
