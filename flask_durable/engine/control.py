"""The private signals that end an attempt without ending its run.

They derive from :class:`BaseException`, because a function that says
``except Exception`` around a step means the step's errors, not its own suspension. And
because even a bare ``except:`` must not be able to stop them, an attempt that raised
one is sealed: every later step raises it again, and what the body returns is thrown
away.
"""

from __future__ import annotations


class Signal(BaseException):
    """Base class of the signals. Let it pass."""


class Suspended(Signal):
    """The run was let go of; something else will wake it."""


class OwnershipLost(Signal):
    """The run is somebody else's, or was cancelled: nothing more may be written."""


class Ended(Signal):
    """The run was ended or paused from inside a step."""


class GivenUp(Signal):
    """A step's body did not end: the attempt was settled from another thread."""


class Replayed(Signal):
    """The body is called again from the top, to show what it does outside steps."""


class BrokenOff(Signal):
    """A step could not be settled by what it needs of us: its result is not stored.

    As an error of the step it could be caught, and the body would go on as if the step
    had failed. So it ends the attempt, and counts as a failure of it.

    :param error: What went wrong.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"broken off by {type(error).__name__}")
        self.error = error


class Interrupt(BaseException):
    """Base class of what is raised into a step's body from another thread."""


class TimeoutInterrupt(Interrupt):
    """The step's body took longer than its timeout."""


class ShutdownInterrupt(Interrupt):
    """The worker has to exit before the step's body is done."""


class LossInterrupt(Interrupt):
    """The run is not this worker's any more: it was cancelled, or taken over."""
