"""The progress that a run shows while it goes on.

It is a field of the run's record, ``<time> <fraction> <message>``, which its owner
writes: at most once a second, and once more when a step or the attempt ends, if a value
was held back. A worker that lost the run is refused.
"""

from __future__ import annotations

import math
import threading
import time
import typing as t

from ..common.interruption import shielded
from ..errors import StepUsageError

if t.TYPE_CHECKING:
    from .attempt import Attempt

#: Seconds between two writes.
INTERVAL = 1.0

#: Characters of a message that are kept.
MAX_MESSAGE = 200


class Progress:
    """Shows the progress of the run that an attempt owns.

    Threads that a step's body started may use it too.
    """

    __slots__ = ("_attempt", "_lock", "_newest", "_stored", "_written", "held_back")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        #: True if a value is not written yet. Each step looks at it.
        self.held_back = False
        self._lock = threading.Lock()
        self._newest: tuple[float, str] | None = None
        self._stored: tuple[float, str] | None = None
        self._written = -math.inf

    def report(self, fraction: float, message: str) -> None:
        """Show *fraction* and *message*, at once or within a second.

        :raises StepUsageError: The fraction is no number.
        :raises Signal: The run is not ours any more.
        """
        attempt = self._attempt
        attempt.check()
        if attempt.context is not None and attempt.context.replaying:
            return  # it would go back to its beginning
        if not isinstance(fraction, (int, float)) or math.isnan(fraction):
            raise StepUsageError(
                f"A progress of {fraction!r} is no number.",
                hint="Give the part that is done, from 0 to 1.",
            )
        words = " ".join(str(message).split())[:MAX_MESSAGE]
        words = words.encode("utf-8", "backslashreplace").decode()
        self._newest = min(max(float(fraction), 0.0), 1.0), words
        self.held_back = True
        if time.monotonic() - self._written >= INTERVAL:
            with shielded():
                self.flush()

    def flush(self) -> None:
        """Write the newest value, if it was held back.

        :raises Signal: The run is not ours any more.
        """
        with self._lock:
            newest = self._newest
            if newest is None or newest == self._stored:
                self.held_back = False
                return
            attempt, (fraction, message) = self._attempt, newest
            store = attempt.services.store
            sealed = attempt.services.payloads.seal_text(message)
            text = f"{attempt.server_time} {fraction:.4f} {sealed}"
            attempt.as_owner(
                lambda: store.note_progress(attempt.run_id, attempt.token, text)
            )
            self._stored = newest
            self._written = time.monotonic()
            # Another thread may have given a newer one: after this line it says so
            # itself.
            self.held_back = self._newest is not newest

    def adopt(self, other: Progress) -> None:
        """Go on from *other*, of an attempt whose thread is lost."""
        self._newest, self._stored = other._newest, other._stored
        self.held_back = other.held_back
