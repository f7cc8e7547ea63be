"""What all processes counted and timed, added up, for whoever reads it from here.

One hash has a field for each counter, and for each range of a duration. They only grow,
by commands that commute, so processes need no order among them. What is sent again
after a lost reply counts twice: a few of many.

Names of events come from outside, and may be many. So what is counted under a name that
the app does not declare has a hash of its own: it takes no room from the app's
functions, queues and events. Past :data:`MOST` fields of a hash what is new is added to
the field of the same metric in which every label is :data:`OTHER`: nothing that was
counted is missing from a sum.
"""

from __future__ import annotations

import json
import typing as t
from collections import defaultdict
from dataclasses import dataclass

from .keys import Keys
from .server import StateServer

#: Fields of the app's own sums, and of those under names from outside, after which new
#: ones are added up as one; and the labels of that. A function has about a hundred.
MOST = 100_000
MOST_FROM_OUTSIDE = 20_000
OTHER = "other"

# KEYS: the hash of the app's own sums; that of sums under names from outside.
# ARGV: for each of them how many fields are too many; then for each sum the number of
# its hash, its field, the field of the same metric for what is too much, and what to
# add. Bounded by the sums of one call. A repeat adds again: a few of many.
_ADD = """
local room = {}
for i, key in ipairs(KEYS) do
  room[i] = tonumber(ARGV[i]) - redis.call('HLEN', key)
end
for i = #KEYS + 1, #ARGV, 4 do
  local number, field = tonumber(ARGV[i]), ARGV[i + 1]
  if redis.call('HEXISTS', KEYS[number], field) == 0 then
    if room[number] > 0 then
      room[number] = room[number] - 1
    else
      field = ARGV[i + 2]
    end
  end
  redis.call('HINCRBYFLOAT', KEYS[number], field, ARGV[i + 3])
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
    :param declares: Tells of an event's name whether the app's code has it.
    """

    def __init__(
        self, server: StateServer, keys: Keys, declares: t.Callable[[str], bool]
    ) -> None:
        self._server = server
        self._keys = (f"{keys.root}:metrics:totals", f"{keys.root}:metrics:outside")
        self._declares = declares

    def add(self, sums: t.Mapping[Total, float]) -> None:
        """Add *sums* to what is there.

        :raises redis.RedisError: The server did not take it.
        """
        arguments: list[str | int] = [MOST, MOST_FROM_OUTSIDE]
        for total, value in sums.items():
            number = 2 if self._is_from_outside(total) else 1
            arguments += [number, total.field(), total.other().field(), f"{value:.12g}"]
        self._server.client.eval(_ADD, len(self._keys), *self._keys, *arguments)

    def read(self) -> dict[Total, float]:
        """Return all sums.

        :raises redis.RedisError: The server did not answer.
        """
        sums: defaultdict[Total, float] = defaultdict(float)
        for key in self._keys:
            found = t.cast("dict[str, str]", self._server.client.hgetall(key))
            for field, value in found.items():
                # A name may be declared later than it was counted first.
                sums[Total.of(field)] += float(value)
        return dict(sums)

    def _is_from_outside(self, total: Total) -> bool:
        name = dict(total.labels).get("event")
        return name is not None and not self._declares(name)
