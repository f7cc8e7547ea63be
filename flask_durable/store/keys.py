"""Names of keys: a run lives in the partition that its id is hashed onto."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Keys:
    """The key names of one namespace.

    :param namespace: The prefix of every key.
    :param partitions: How many hash tags there are; fixed for a namespace.
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
        """The tag of what belongs to the namespace as a whole."""
        return self.tags[0]

    def tag_of(self, run_id: str) -> str:
        """Return the tag of the partition that *run_id* lives in.

        What follows the first dot of an id does not count: a failure handler's run
        shares its parent's partition, so that one script can create it.
        """
        base = run_id.partition(".")[0]
        return self.tags[zlib.crc32(base.encode()) % self.partitions]


def queue_tag(namespace: str, queue: str) -> str:
    """Return the hash tag of a queue's keys: all of them live in one slot."""
    return f"{{{namespace}:q:{queue}}}"
