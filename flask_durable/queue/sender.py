"""Sending with patience: a message the queue does not take is tried for a limited time.

A send ends when the queue has taken every message, has refused the rest for good, or
has taken none for as long as the caller is patient. Only time without success counts:
that many messages need many batches is no reason to give up. The messages are the same
at each try, ids included. So a message whose answer was lost is on the queue twice and
leads to one run.
"""

from __future__ import annotations

import random
import time
import typing as t
from dataclasses import dataclass

from ..common.processes import PerProcess
from .coalescer import Coalescer
from .coalescer import Unanswered
from .transport import Outcome
from .transport import Transport

#: Seconds before the second try, and the longest such pause; with jitter.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0


@dataclass
class _Patience:
    """The time for which one send goes on trying.

    :param left: Seconds that are left.
    """

    left: float
    pause: float = FIRST_PAUSE
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
        self.pause = min(self.pause * 2, LONGEST_PAUSE)
        return True


class Sender:
    """Sends messages for all threads of a process.

    :param transport: The queues.
    :param patience: The default patience of :meth:`send`, in seconds.
    """

    def __init__(self, transport: Transport, patience: float) -> None:
        self._transport = transport
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
        """Send *bodies*, and try again those that the queue does not take now.

        :param delay: Seconds before they may be received.
        :param patience: Seconds to go on while nothing is taken, if not the usual.
        """
        left = _Patience(self._patience if patience is None else patience)
        sizes = [len(body.encode()) for body in bodies]
        outcomes: list[Outcome] = [None] * len(bodies)
        for numbers in self._transport.send_limits.divide(range(len(bodies)), sizes):
            batch = [bodies[number] for number in numbers]
            # After a batch that was not taken for so long the others are not tried.
            error = left.error
            found = (
                [error] * len(batch) if error else self._send(queue, batch, delay, left)
            )
            for number, outcome in zip(numbers, found, strict=True):
                outcomes[number] = outcome
        return outcomes

    def is_transient(self, error: Exception) -> bool:
        """Return whether the queue may take the same message later."""
        return isinstance(error, Unanswered) or self._transport.is_transient(error)

    def _send(
        self, queue: str, bodies: list[str], delay: float, patience: _Patience
    ) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(bodies)
        left = list(range(len(bodies)))
        while left:
            began = time.monotonic()
            tried = [bodies[number] for number in left]
            found = self._try(queue, tried, delay)
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

    def _try(self, queue: str, bodies: list[str], delay: float) -> list[Outcome]:
        if delay or not self._transport.send_limits.coalesced:
            return self._transport.send(queue, bodies, delay)
        return self._coalescer(queue).send(bodies)

    def _coalescer(self, queue: str) -> Coalescer:
        coalescers = self._coalescers.get()
        found = coalescers.get(queue)
        if found is None:
            transport = self._transport
            made = Coalescer(
                lambda bodies: transport.send(queue, bodies),
                transport.send_limits,
                2 * transport.answer_within,
            )
            found = coalescers.setdefault(queue, made)
        return found
