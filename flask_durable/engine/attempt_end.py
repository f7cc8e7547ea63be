"""The end of an attempt, after which it writes nothing more."""

from __future__ import annotations

import threading

from ..store.large_writes import is_refusal
from .control import BranchEnded
from .control import BrokenOff
from .control import Signal
from .stubborn import MAX_CATCHES
from .stubborn import stop_body


class AttemptEnd:
    """Holds the signal that ended an attempt; the first one stands.

    The attempt's own thread sets it, or a thread that finds the run lost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The signal that ended the attempt, if it has ended.
        self.signal: Signal | None = None
        #: True once it was broken off and reopened to write its end.
        self.was_broken_off = False
        self._raised = 0

    def check(self) -> None:
        """Raise the signal again that ended the attempt, if one did.

        A body that catches it each time, in a loop, is stopped.
        """
        if self.signal is not None:
            self._raised += 1
            if self._raised > MAX_CATCHES:
                stop_body(self.signal, self._raised)
            raise self.signal

    def put(self, signal: Signal) -> Signal:
        """End the attempt by *signal*; return the signal that stands."""
        with self._lock:
            if self.signal is None:
                self.signal = signal
            return self.signal

    def reopen(self) -> None:
        """Let an attempt that was broken off write its end.

        This happens once: if the end cannot be written either, the run is given up.
        """
        with self._lock:
            if isinstance(self.signal, BrokenOff):
                self.signal, self.was_broken_off = None, True

    def reopen_after(self, ended: BranchEnded) -> None:
        """Let the attempt of a branch write its outcome, out of the body."""
        with self._lock:
            if self.signal is ended:
                self.signal = None

    def reopen_if_refused(self, broken: BrokenOff, size: int) -> None:
        """Reopen the attempt if the server refused a text for its size.

        :param size: Characters of the text.
        :raises Signal: The attempt was broken off for another reason.
        """
        if not is_refusal(broken.error, size):
            raise broken
        self.reopen()
        self.check()

    def release(self) -> None:
        """Drop the references of the signal.

        They lead to the frames of the body and to the error that was being handled,
        which lead here. Without this they, and all they hold, would stay until the
        garbage collector comes.
        """
        if self.signal is not None:
            self.signal.__traceback__ = None
            self.signal.__context__ = self.signal.__cause__ = None
