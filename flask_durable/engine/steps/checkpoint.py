"""The checkpoint of a step's body: the place that its next call goes on from.

::

    none ──► begun ─────────┐        the memo of the step: it stays unfinished, and a
    tried k ──► tried k ────┼──►     checkpoint is a line of it
    intent ──► intent ──────┘
       │
       ├─ the body fails, and is to be tried again: run_suspend writes tried k+1 and the
       │  newest checkpoint in one memo
       ├─ it is interrupted: the newest checkpoint is written, then the run handed back
       └─ the step is done or failed: step_commit writes over it

A checkpoint is an owner's write: a worker that lost the run is refused, and its body
ends. What a dead worker had not written yet is lost, at most the last second of it. The
next call then goes on from what is stored, as if the body had been slower.

It is encrypted as a result is, but never an object in the blob store: each would stay
until the run is removed.
"""

from __future__ import annotations

import math
import threading
import time
import typing as t

from ...common.interruption import shielded
from ...errors import StepUsageError
from ...serialization import PLAIN
from ...serialization import UnserializableValue
from ...store.memo import with_checkpoint
from ...store.replies import Full

if t.TYPE_CHECKING:
    from ..attempt import Attempt

#: Bytes of JSON that a checkpoint may have.
MAX_BYTES = 64 * 1024

#: Seconds between two writes of checkpoints that are not forced.
INTERVAL = 1.0


def refuse_late(step: str) -> t.NoReturn:
    """Refuse the checkpoint of a thread that the body of *step* left behind."""
    raise StepUsageError(
        f"Step {step!r} has ended, so it takes no checkpoint.",
        hint="Wait in the step's body for the threads that it starts.",
    )


class Checkpoint:
    """The checkpoint of the step whose body is running.

    Threads that the body started may use it too.

    :param step: The step's key.
    :param number: The number of its attempt.
    :param payload: The payload of its memo, as it is without a new checkpoint.
    :param stored: The JSON text of the checkpoint in the memo; empty if there is none.
    :param interruptible: True if a drain may end the body at a checkpoint.
    """

    def __init__(
        self,
        attempt: Attempt,
        step: str,
        number: int,
        payload: str,
        *,
        stored: str = "",
        interruptible: bool = True,
    ) -> None:
        self._attempt = attempt
        self._step = step
        self._number = number
        self._payload = payload
        self._interruptible = interruptible
        self._lock = threading.Lock()
        self._newest = self._stored = stored
        self._written = -math.inf
        #: The value that the body goes on from.
        self.resumed_from = PLAIN.load(stored) if stored else None

    def take(self, value: t.Any, *, force: bool) -> None:
        """Keep *value*, and end the body here if its run goes on elsewhere.

        :raises StepUsageError: The value cannot be stored.
        :raises Signal: The run is not ours any more, or is handed back.
        """
        attempt = self._attempt
        attempt.check()
        self._newest = self._dump(value)
        with shielded():
            if self._leaves():
                attempt.hand_back()  # which writes the checkpoint
            if force or time.monotonic() - self._written >= INTERVAL:
                self.save()

    def save(self) -> None:
        """Write the newest value, if it is not stored yet.

        :raises Signal: The run is not ours any more, or has reached its limit.
        """
        with self._lock:
            newest = self._newest
            if newest == self._stored:
                return
            self._write(with_checkpoint(self._payload, self._seal(newest)))
            self._stored = newest
            self._written = time.monotonic()

    @property
    def sealed(self) -> str:
        """The newest value as it is stored; empty if there is none."""
        return self._seal(self._newest) if self._newest else ""

    def _write(self, payload: str) -> None:
        attempt = self._attempt
        store = attempt.services.store
        head = (attempt.run_id, attempt.token, self._step, self._number)
        reply = attempt.as_owner(lambda: store.checkpoint(*head, payload))
        if isinstance(reply, Full):
            attempt.fail_over_limit(reply.limit)

    def _seal(self, text: str) -> str:
        return self._attempt.services.payloads.seal_text(text)

    def _leaves(self) -> bool:
        """Return whether the worker drains, and may end the body here.

        Only the body's own thread ends it: while another thread did, it would go on
        beside the call of the next worker.
        """
        return (
            self._interruptible
            and self._attempt.services.draining.is_set()
            and threading.get_ident() == self._attempt.thread
        )

    def _dump(self, value: t.Any) -> str:
        try:
            text = PLAIN.dump(value)
        except UnserializableValue as error:
            raise StepUsageError(
                f"The checkpoint{error.path} of step {self._step!r} {error.message}",
                hint="Give it text, numbers, lists and objects with text as keys.",
            ) from None
        if len(text) * 4 > MAX_BYTES and len(text.encode()) > MAX_BYTES:
            raise StepUsageError(
                f"The checkpoint of step {self._step!r} is larger than "
                f"{MAX_BYTES // 1024} KiB.",
                hint="Keep the data in a file or a database, and its place here.",
            )
        return text
