"""The private signals that end an attempt without ending its run.

They derive from :class:`BaseException`, because a function that says
``except Exception`` around a step means the step's errors, not its own suspension. Not
even a bare ``except:`` may stop a signal. So an attempt that raised one is stopped:
every later step raises it again, and the body's result is thrown away.
"""

from __future__ import annotations

from ..common.interruption import Interrupt


class Signal(BaseException):
    """Base class of the signals. Code that meets one lets it pass."""


class Suspended(Signal):
    """The run was suspended or handed back; a timer, an event or a worker wakes it."""


class OwnershipLost(Signal):
    """Another worker owns the run, or it was cancelled: nothing more may be written."""


class Copied(Signal):
    """This process is a forked copy of the one that owns the run."""


class Ended(Signal):
    """The run was ended or paused from inside a step."""


class GivenUp(Signal):
    """A step's body did not end: the attempt was settled from another thread."""


class Replayed(Signal):
    """The body is called again from the top, to show its effects outside steps."""


class BrokenOff(Signal):
    """Storing a step's outcome failed, so the result of the step is lost.

    As an error of the step it could be caught, and the body would go on as if the step
    had failed. So it ends the attempt, and counts as a failure of it.

    :param error: The error of the store, the queue or the payload code.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"broken off by {type(error).__name__}")
        self.error = error


class BranchEnded(Signal):
    """The callable of a branch has ended: its outcome is the branch's.

    :param outcome: Its result, as JSON text.
    :param error: Its error, if it has no result.
    """

    def __init__(self, outcome: str = "", error: BaseException | None = None) -> None:
        super().__init__("the branch has ended")
        self.outcome = outcome
        self.error = error


class LossInterrupt(Interrupt):
    """The run is not this worker's any more: it was cancelled, or taken over."""
