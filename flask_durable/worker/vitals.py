"""The watch over the threads that a worker cannot do without.

::

    each second: every thread is well ─────────────────────────► go on
                 one is gone, for LOOKS_GONE looks in a row ───► the worker ends
                 one has no file descriptors, or no
                 memory, for as many looks more ───────────────► the worker ends
    one stands still past its patience, and does
                 so for LOOKS_STILL more looks ────────────────► the worker ends

A worker that lost a thread, or has no file descriptors left, lives on and looks well,
but it takes no events, renews no leases, or hears no more of its queues. Once it ends,
it is started again. Looks are counted, not seconds: a process that was stopped and goes
on finds every thread late.
"""

from __future__ import annotations

import typing as t
from collections import Counter

from ..common.loops import STILL

#: Looks in a row: for a thread that is gone or lacks a resource, and for one that
#: stands still.
LOOKS_GONE = 2
LOOKS_STILL = 60


class Watched(t.Protocol):
    """A worker process, as far as its threads are watched."""

    def ailing(self) -> t.Mapping[str, str]:
        """Return the threads that should run and do not, each with its ailment."""

    def worn_out(self) -> str:
        """Return the reason to renew the process, or an empty text."""


class Vitals:
    """Counts the looks in a row that find a thread ailing.

    :param process: The process whose threads are watched.
    """

    def __init__(self, process: Watched) -> None:
        self._process = process
        self._looks: Counter[tuple[str, bool]] = Counter()

    def look(self) -> str:
        """Look once; return a reason to renew the process, or an empty text."""
        return self._ailment() or self._process.worn_out()

    def _ailment(self) -> str:
        found = self._process.ailing()
        late = {(name, what.startswith(STILL)) for name, what in found.items()}
        self._looks = Counter({key: self._looks[key] + 1 for key in late})
        for (name, is_late), looks in self._looks.items():
            if looks >= (LOOKS_STILL if is_late else LOOKS_GONE):
                return f"its thread {name} {found[name]}"
        return ""
