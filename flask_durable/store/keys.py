"""Names of keys: a run lives in the partition that its id is hashed onto."""

from __future__ import annotations

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

    @property
    def tags(self) -> list[str]:
        """The tags of all partitions."""
        return [self._tag(number) for number in range(self.partitions)]

    @property
    def root(self) -> str:
        """The tag of what belongs to the namespace as a whole."""
        return self._tag(0)

    def tag_of(self, run_id: str) -> str:
        """Return the tag of the partition that *run_id* lives in.

        What follows the first dot of an id does not count: a failure handler's run
        shares its parent's partition, so that one script can create it.
        """
        base = run_id.partition(".")[0]
        return self._tag(zlib.crc32(base.encode()) % self.partitions)

    def _tag(self, number: int) -> str:
        return f"{{{self.namespace}:{number}}}"
