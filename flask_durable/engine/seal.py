"""The end of an attempt, after which it writes nothing more."""

from __future__ import annotations

import threading

from ..store.large_writes import is_refusal
from .control import BrokenOff
from .control import Signal
from .stubborn import MAX_CATCHES
from .stubborn import stop_body


class Seal:
    """Holds the signal that ended an attempt; the first one stands.

    The attempt's own thread puts it on, or one that finds the run lost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: What ended the attempt, if it has ended.
        self.signal: Signal | None = None
        #: Whether it was broken off once, and reopened to write how it ended.
        self.was_broken_off = False
        self._raised = 0

    def check(self) -> None:
        """Raise again what ended the attempt, if something did.

        A body that catches it each time, in a loop, is stopped.
        """
        if self.signal is not None:
            self._raised += 1
            if self._raised > MAX_CATCHES:
                stop_body(self.signal, self._raised)
            raise self.signal

    def put(self, signal: Signal) -> Signal:
        """End the attempt by *signal*; return the one that stands."""
        with self._lock:
            if self.signal is None:
                self.signal = signal
            return self.signal

    def reopen(self) -> None:
        """Let an attempt that was broken off write how it ended.

        Once: if that cannot be written either, the run is given up.
        """
        with self._lock:
            if isinstance(self.signal, BrokenOff):
                self.signal, self.was_broken_off = None, True

    def reopen_if_refused(self, broken: BrokenOff, size: int) -> None:
        """Reopen the attempt where the server did not take a text for its size.

        :param size: Characters of the text.
        :raises Signal: It was broken off by something else.
        """
        if not is_refusal(broken.error, size):
            raise broken
        self.reopen()
        self.check()

    def release(self) -> None:
        """Drop what the signal leads to.

        It leads to the frames of the body, and to the error that was being handled,
        which lead here: without this they, and what they hold, would stay until the
        garbage collector comes.
        """
        if self.signal is not None:
            self.signal.__traceback__ = None
            self.signal.__context__ = self.signal.__cause__ = None
