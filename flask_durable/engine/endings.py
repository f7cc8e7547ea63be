"""How an attempt ended, as it is measured and as middleware is told."""

from __future__ import annotations

from ..middleware import AttemptInfo
from ..status import RunStatus
from ..store.service_times import Ending
from .control import Ended
from .control import Signal
from .control import Suspended


def ending_of(sealed: Signal | None, *, progress: bool) -> Ending | None:
    """Return how a delivery ended, as far as its service time tells anything.

    Not if it was cut off or lost the run, nor if it only replayed what is memoized.

    :param sealed: The end of its attempt.
    :param progress: Whether it did more than to replay.
    """
    if isinstance(sealed, Ended):
        return "done" if str(sealed) == RunStatus.COMPLETED.value else "failed"
    if not isinstance(sealed, Suspended):
        return None
    reason = str(sealed)
    if reason == "retry":
        return "failed"
    return "done" if reason == "sleep" and progress else None


def tell(info: AttemptInfo, sealed: Signal | None, ending: Ending | None) -> None:
    """Note in *info* how the attempt ended."""
    info.reason = str(sealed)
    if isinstance(sealed, Ended):
        info.outcome = "failed" if ending == "failed" else "completed"
        info.reason = ""
    elif isinstance(sealed, Suspended):
        info.outcome = "suspended"
