"""Names of keys: a run lives in the partition that its id is hashed onto."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Keys:
    """The key names of one namespace.

    :param namespace: The prefix of every key.
    :param partitions: The number of hash tags; fixed for a namespace.
    """

    namespace: str
    partitions: int

    @functools.cached_property
    def tags(self) -> tuple[str, ...]:
        """The tags of all partitions."""
        numbers = range(self.partitions)
        return tuple(f"{{{self.namespace}:{number}}}" for number in numbers)

    @property
    def root(self) -> str:
        """The tag of the keys that belong to the namespace as a whole."""
        return self.tags[0]

    def tag_of(self, run_id: str) -> str:
        """Return the tag of the partition that *run_id* lives in.

        The part after the first dot of an id does not count: a failure handler's run
        shares the partition of the failed run, so that one script can create it.
        """
        return self._tag(run_id.partition(".")[0])

    def tag_of_event(self, event_id: str) -> str:
        """Return the tag of the partition whose outbox keeps the event *event_id*."""
        return self._tag(event_id)

    def tag_of_function(self, function: str) -> str:
        """Return the tag of the partition with the measured times of *function*."""
        return self._tag(function)

    def tag_of_entry(self, entry: str) -> str:
        """Return the tag of the partition whose outbox has *entry*.

        *entry* is ``run:<run>``, ``event:<run>:<generation>:<number>`` or
        ``spool:<digest>:<event>``.
        """
        kind, first, *_ = entry.split(":", 2)
        if kind == "spool":
            return self.tag_of_event(entry.split(":", 2)[2])
        return self.tag_of(first)

    def _tag(self, text: str) -> str:
        return self.tags[zlib.crc32(text.encode()) % self.partitions]
