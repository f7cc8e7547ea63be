"""Sending with patience: a message the queue does not take is tried for a limited time.

A send ends when the queue has taken every message, has refused the rest for good, or
has taken none for as long as the caller is patient. Only time without success counts:
that many messages need many batches is no reason to give up. The messages are the same
at each try, ids included. So a message whose answer was lost is on the queue twice and
leads to one run.

The sends of many threads share calls, and a single one does not wait.

The first caller's call goes at once. Callers that come while a call is under way form
the next batch. It goes when a call ends, when it is full, or a tenth of a second later.
The first caller of a batch makes its call, and the others wait for the outcome: there
is no thread, and nothing to stop.

::

    no call ── send ──► under way ── call ends ──► no call
                          │  ▲
                    send  ▼  │  full, a call ended, or LONGEST_HOLD_SECONDS
                         open batch

A batch is closed under the lock before its call is made, so no caller joins one that
has been sent. Whatever happens to the caller that makes the call, an interrupt
included, the others get an answer. If it is not known that a message was sent, the
answer is a failure to be repeated, which is harmless.
"""

from __future__ import annotations

import random
import threading
import time
import typing as t
from concurrent.futures import Future
from dataclasses import dataclass

from ..common.processes import PerProcess
from .delivery import kept
from .marks import Home
from .marks import Marks
from .transport import Outcome
from .transport import SendLimits
from .transport import Transport

#: Seconds before the second try, and the longest such pause; with jitter.
FIRST_SEND_PAUSE_SECONDS = 0.02
LONGEST_SEND_PAUSE_SECONDS = 1.0

#: Seconds that a send goes on while the queue takes nothing, unless told otherwise.
SEND_PATIENCE_SECONDS = 5.0


@dataclass
class _Patience:
    """The time for which one send goes on trying.

    :param left: Seconds that are left.
    """

    left: float
    pause: float = FIRST_SEND_PAUSE_SECONDS
    #: The reason why no time is left.
    error: Exception | None = None

    def wait(self, took: float, error: Exception) -> bool:
        """Wait before another try; return whether there is time for one.

        :param took: Seconds that the last failed try took. The next one may take as
            long, so it is begun only if that much time is left.
        """
        pause = self.pause * random.uniform(0.5, 1.5)
        self.left -= took + pause
        if self.left < took:
            self.error = error
            return False
        time.sleep(pause)
        self.pause = min(self.pause * 2, LONGEST_SEND_PAUSE_SECONDS)
        return True


class Sender:
    """Sends messages for all threads of a process, whether or not it receives any.

    :param transport: The queues.
    :param patience: The default patience of :meth:`send`, in seconds.
    :param home: The installation that this process is of; ``None`` where queues are on
        its own state server, which has no messages of other installations.
    """

    def __init__(
        self,
        transport: Transport,
        patience: float = SEND_PATIENCE_SECONDS,
        home: Home | None = None,
    ) -> None:
        self.transport = transport
        self.marks = Marks(home)
        self._patience = patience
        # Locks and batches of the parent process would never be released.
        self._coalescers: PerProcess[dict[str, Coalescer]] = PerProcess(dict)

    def send(
        self,
        queue: str,
        bodies: t.Sequence[str],
        delay: float = 0,
        *,
        patience: float | None = None,
    ) -> list[Outcome]:
        """Send encoded messages, and again those that the queue does not take now.

        :param delay: Seconds before they may be received, at most 900.
        :param patience: Seconds to go on while nothing is taken, if not the usual.
        :returns: One entry a body: ``None`` if it was sent, else the error.
        """
        bodies = self.marks.put_on(bodies)
        left = _Patience(self._patience if patience is None else patience)
        sizes = [len(body.encode()) for body in bodies]
        outcomes: list[Outcome] = [None] * len(bodies)
        for numbers in self.transport.send_limits.divide(range(len(bodies)), sizes):
            batch = [bodies[number] for number in numbers]
            # After a batch that was not taken for so long the others are not tried.
            error = left.error
            found = (
                [error] * len(batch)
                if error
                else self._send_batch(queue, batch, delay, left)
            )
            for number, outcome in zip(numbers, found, strict=True):
                outcomes[number] = outcome
        return outcomes

    def is_transient(self, error: Exception) -> bool:
        """Return whether the queue may take the same message later."""
        return isinstance(error, Unanswered) or self.transport.is_transient(error)

    def problem(self, body: str) -> Exception | None:
        """Return why the queues never take *body*, as far as is known here."""
        return self.transport.problem(*self.marks.put_on([body]))

    def is_ordered(self, queue: str) -> bool:
        """Return whether *queue* orders its messages: a FIFO queue of SQS."""
        return self.transport.is_ordered(queue)

    def send_dead(
        self, queue: str, body: str | bytes, reason: str, *, receives: int = 0
    ) -> None:
        """Put a message that was not received from *queue* into its dead letters.

        :param reason: Any text; its first 500 characters are kept.
        :param receives: How often it was tried, wherever that was.
        :raises Exception: The queue did not take it, or nobody knows; a second letter
            is harmless.
        """
        self.transport.send_dead(queue, body, kept(reason), receives=receives)

    def _send_batch(
        self, queue: str, bodies: list[str], delay: float, patience: _Patience
    ) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(bodies)
        left = list(range(len(bodies)))
        while left:
            began = time.monotonic()
            tried = [bodies[number] for number in left]
            found = self._send_once(queue, tried, delay)
            open_errors = {}
            for number, error in zip(left, found, strict=True):
                outcomes[number] = error
                if error is not None and self.is_transient(error):
                    open_errors[number] = error
            left = list(open_errors)
            if left:
                took = time.monotonic() - began
                if not patience.wait(took, open_errors[left[0]]):
                    break
        return outcomes

    def _send_once(self, queue: str, bodies: list[str], delay: float) -> list[Outcome]:
        if delay or not self.transport.send_limits.coalesced:
            return self.transport.send(queue, bodies, delay)
        return self._coalescer(queue).send(bodies)

    def _coalescer(self, queue: str) -> Coalescer:
        coalescers = self._coalescers.get()
        found = coalescers.get(queue)
        if found is None:
            transport = self.transport
            made = Coalescer(
                lambda bodies: transport.send(queue, bodies),
                transport.send_limits,
                2 * transport.answer_within,
            )
            found = coalescers.setdefault(queue, made)
        return found


#: Seconds that a batch waits for the call that is under way.
LONGEST_HOLD_SECONDS = 0.1


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
        #: for LONGEST_HOLD_SECONDS, or not at all.
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
        longest = LONGEST_HOLD_SECONDS + 2 * self._longest
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
        batch.goes.wait(LONGEST_HOLD_SECONDS)
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
