"""The end of an attempt, as service times, middleware and logs see it."""

from __future__ import annotations

import typing as t

from ..common.safe_logging import get_logger
from ..middleware import AttemptInfo
from ..store.measurements.service_times import Ending
from ..store.status import RunStatus
from .branches import owner_of
from .control import Ended
from .control import Signal
from .control import Suspended

if t.TYPE_CHECKING:
    from ..errors import Failure
    from .attempt import Attempt

logger = get_logger(__name__)

#: The reasons of a suspension that ends an attempt as its body meant it to.
WAITED = ("sleep", "child", "event", "signal", "url", "branches", "poll")


def ending_of(signal: Signal | None, *, progress: bool) -> Ending | None:
    """Return the end of a delivery if its time says how long such work takes.

    It is ``None`` if the delivery was cut off, lost the run, or only replayed memos.

    :param signal: The signal that ended the attempt, if any.
    :param progress: True if the attempt did more than replay.
    """
    if isinstance(signal, Ended):
        return "done" if str(signal) == RunStatus.COMPLETED.value else "failed"
    if not isinstance(signal, Suspended):
        return None
    reason = str(signal)
    if reason == "retry":
        return "failed"
    return "done" if reason in WAITED and progress else None


def tell(info: AttemptInfo, signal: Signal | None, ending: Ending | None) -> None:
    """Note in *info* how the attempt ended."""
    info.reason = str(signal)
    if isinstance(signal, Ended):
        info.outcome = "failed" if ending == "failed" else "completed"
        info.reason = ""
    elif isinstance(signal, Suspended):
        info.outcome = "suspended"


def log_failed(attempt: Attempt, error: BaseException, failure: Failure) -> None:
    """Log that a run, or a branch of one, failed for good."""
    if attempt.info.branch is None:
        logger.error(
            "Run %s of %s failed: %s: %s",
            attempt.run_id,
            attempt.function.id,
            failure.type,
            failure.message,
            exc_info=error,
            extra={"action": "run_failed"},
        )
    else:
        logger.error(
            "Branch %s of run %s failed: %s: %s",
            attempt.info.branch,
            owner_of(attempt.run)[0],
            failure.type,
            failure.message,
            exc_info=error,
            extra={"action": "branch_failed"},
        )


def log_completed(run_id: str, function: str) -> None:
    """Log that a run completed."""
    logger.info(
        "Run %s of %s completed.", run_id, function, extra={"action": "run_completed"}
    )
