"""The runs above branches, as this process read them a moment ago.

A branch replays the body of its run, with the record and the memos of that. All the
branches of a step need the same ones, and there may be a thousand branches, and
megabytes of memos. So they are read once in a while and not with each claim.

The memos before the step have outcomes, which are never written over. A retry of the
run may remove some of them; then it comes to the step again, and begins it with another
token. So what was read counts for the branches that have the same token, ``by``. It is
good for two seconds, as the retry is a little earlier than the new beginning.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from dataclasses import field

#: Record and memos of each run above a branch, the nearest first.
Levels = tuple[tuple[dict[str, str], dict[str, str]], ...]

#: Seconds that what was read is good for.
GOOD = 2.0

#: Characters that are kept in all, and runs.
MAX_SIZE = 32 * 1024 * 1024
MAX_RUNS = 100


@dataclass(frozen=True)
class Known:
    """The runs above the branches of one step.

    :param by: The token of the beginning of the step that asked for the branches.
    :param until: The moment, on the monotonic clock, until which they are good.
    :param size: Their number of characters.
    """

    by: str
    levels: Levels = field(repr=False)
    until: float
    size: int


class RunsAbove:
    """Keeps what was read of the runs above branches, for all threads of a process."""

    def __init__(self) -> None:
        #: By the id of the run that has the branches, the oldest first.
        self._known: dict[str, Known] = {}

    def find(self, run_id: str) -> Known | None:
        """Return what is known of the run that has the branches, and those above it."""
        known = self._known.get(run_id)
        return known if known and time.monotonic() < known.until else None

    def keep(self, run_id: str, by: str, levels: Levels, read: float) -> None:
        """Keep what was read at the moment *read*, on the monotonic clock."""
        size = sum(
            [len(x) for level in levels for part in level for x in part.values()]
        )
        self._known.pop(run_id, None)
        self._known[run_id] = Known(by, levels, read + GOOD, size)
        # Without a lock: a fork could leave it locked, and nothing here needs it.
        found, now = list(self._known.items()), time.monotonic()
        total, number = sum([known.size for _, known in found]), len(found)
        for id, known in found:
            if total > MAX_SIZE or number > MAX_RUNS or known.until < now:
                self._known.pop(id, None)
                total, number = total - known.size, number - 1
