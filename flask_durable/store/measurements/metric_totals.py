"""The counts and times of all processes, added up on the state server.

One hash has a field for each counter, and for each range of a duration. They only grow,
by commands that commute, so processes need no order among them. A sum that is sent
again after a lost reply counts twice: a few of many.

Names of events come from outside, and may be many. So the counts under names that the
app does not declare have a hash of their own: they take no room from the app's
functions, queues and events. Past :data:`MOST` fields of a hash, a new sum is added to
the field of the same metric in which every label is :data:`OTHER`: the total over all
labels stays right.
"""

from __future__ import annotations

import json
import typing as t
from collections import defaultdict
from dataclasses import dataclass

from ..keys import Keys
from ..server import StateServer

#: Fields of the app's own sums, and of those under names from outside, after which new
#: ones are added up as one; and the labels of that one. A function has about a hundred.
MOST = 100_000
MOST_FROM_OUTSIDE = 20_000
OTHER = "other"

# KEYS: the hash of the app's own sums; that of sums under names from outside.
# ARGV: for each of them the number of fields that is too many; then for each sum the
# number of its hash, its field, the field of the same metric for the rest, and the
# number to add. Bounded by the sums of one call. A repeat adds again: a few of many.
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
    """The identity of a sum.

    :param metric: The metric's name.
    :param labels: Names and values of its labels.
    :param part: For a duration ``"sum"``, or the number of its range; otherwise empty.
    """

    metric: str
    labels: tuple[tuple[str, str], ...]
    part: str = ""

    def field(self) -> str:
        """Return the name of the sum in the hash."""
        return json.dumps([self.metric, self.part, *self.labels], ensure_ascii=False)

    def other(self) -> Total:
        """Return the sum that this one is added to if there are too many."""
        labels = tuple((name, OTHER) for name, _ in self.labels)
        return Total(self.metric, labels, self.part)

    @classmethod
    def of(cls, field: str) -> Total:
        """Return the sum with the name *field* in the hash."""
        metric, part, *labels = json.loads(field)
        return cls(metric, tuple((name, value) for name, value in labels), part)


class MetricTotals:
    """The sums of one namespace.

    :param server: The state server.
    :param keys: The key names of the namespace.
    :param declares: Returns True for an event's name that the app's code has.
    """

    def __init__(
        self, server: StateServer, keys: Keys, declares: t.Callable[[str], bool]
    ) -> None:
        self._server = server
        self._keys = (f"{keys.root}:metrics:totals", f"{keys.root}:metrics:outside")
        self._declares = declares

    def add(self, sums: t.Mapping[Total, float]) -> None:
        """Add *sums* to the stored ones.

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
                # A name may be declared later than its first count.
                sums[Total.of(field)] += float(value)
        return dict(sums)

    def _is_from_outside(self, total: Total) -> bool:
        name = dict(total.labels).get("event")
        return name is not None and not self._declares(name)
