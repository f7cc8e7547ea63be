"""Sends of many threads in few calls, without making a single one wait.

The first caller's call goes at once. Callers that come while a call is under way form
the next batch. It goes when a call ends, when it is full, or a tenth of a second later.
The first caller of a batch makes its call, and the others wait for the outcome: there
is no thread, and nothing to stop.

::

    no call ── send ──► under way ── call ends ──► no call
                          │  ▲
                    send  ▼  │  full, a call ended, or LONGEST_HOLD
                         open batch

A batch is closed under the lock before its call is made, so no caller joins one that
has been sent. Whatever happens to the caller that makes the call, an interrupt
included, the others get an answer. If it is not known that a message was sent, the
answer is a failure to be repeated, which is harmless.
"""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import Future

from .transport import Outcome
from .transport import SendLimits

#: Seconds that a batch waits for the call that is under way.
LONGEST_HOLD = 0.1


class Unanswered(Exception):
    """Raised if it is not known that the queue took a message; a repeat is harmless."""


class _Batch:
    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.size = 0
        #: Set when the batch is closed and may go.
        self.goes = threading.Event()
        self.outcomes: Future[list[Outcome]] = Future()

    def add(self, bodies: t.Sequence[str], size: int) -> slice:
        start = len(self.bodies)
        self.bodies += bodies
        self.size += size
        return slice(start, len(self.bodies))


class Coalescer:
    """Makes batches of the messages that several threads send to one queue.

    :param call: Sends one batch, and returns one outcome an entry.
    :param limits: The limits of one call.
    :param longest: Seconds after which a call without an answer has failed.
    """

    def __init__(
        self,
        call: t.Callable[[list[str]], list[Outcome]],
        limits: SendLimits,
        longest: float = 60.0,
    ) -> None:
        self._call = call
        self._limits = limits
        self._longest = longest
        self._lock = threading.Lock()
        self._open: _Batch | None = None
        #: The number of calls under way. If an interrupt spoiled it, batches would wait
        #: for LONGEST_HOLD, or not at all.
        self._under_way = 0

    def send(self, bodies: t.Sequence[str]) -> list[Outcome]:
        """Send *bodies* in one call, not more than it takes.

        The wait for another thread's call is as long as an own call could take: given
        up earlier, a message that is being sent would be sent again.

        :returns: The outcome of each body, in order.
        """
        size = sum(len(body.encode()) for body in bodies)
        leads, batch, outcomes = False, None, None
        try:
            with self._lock:
                batch, leads = self._batch_for(len(bodies), size)
                own = batch.add(bodies, size)
                if self._under_way <= 0 or not self._has_room(batch, 1, 1):
                    self._close(batch)
            if leads:
                outcomes = self._lead(batch)
        finally:
            # Also after an interrupt, which is meant for this thread alone.
            if leads and batch is not None:
                self._end(batch, outcomes)
        # Twice the limit, since the batch's leader may come to run late.
        longest = LONGEST_HOLD + 2 * self._longest
        try:
            return batch.outcomes.result(longest)[own]
        except TimeoutError:
            error = Unanswered("the call of another thread was not answered in time")
            return [error] * len(bodies)

    def _batch_for(self, entries: int, size: int) -> tuple[_Batch, bool]:
        """Return the batch to join, and whether the caller is its first."""
        batch = self._open
        if batch is not None:
            if self._has_room(batch, entries, size):
                return batch, False
            self._close(batch)
        batch = self._open = _Batch()
        return batch, True

    def _has_room(self, batch: _Batch, entries: int, size: int) -> bool:
        return (
            len(batch.bodies) + entries <= self._limits.entries
            and batch.size + size <= self._limits.size
        )

    def _close(self, batch: _Batch) -> None:
        """Close *batch* to further callers, and let it go. The lock is held."""
        if not batch.goes.is_set():
            if self._open is batch:
                self._open = None
            self._under_way += 1
            batch.goes.set()

    def _lead(self, batch: _Batch) -> list[Outcome]:
        """Make the call of *batch* for all that wait for it."""
        batch.goes.wait(LONGEST_HOLD)
        with self._lock:
            self._close(batch)
        try:
            return self._call(batch.bodies)
        except Exception as error:
            return [error] * len(batch.bodies)

    def _end(self, batch: _Batch, outcomes: list[Outcome] | None) -> None:
        """Set the outcomes of *batch*, however its call ended."""
        with self._lock:
            self._close(batch)
            self._under_way -= 1
            if self._open is not None:
                self._close(self._open)
        interrupted = Unanswered("the thread that sent it was interrupted")
        batch.outcomes.set_result(outcomes or [interrupted] * len(batch.bodies))
