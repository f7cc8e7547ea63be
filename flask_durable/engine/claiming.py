"""The rare ways of a run message before its run is claimed.

===========================  =====================================================
the message …                the run …
===========================  =====================================================
is of code that is not here  is set aside for a worker that has it, later PAUSED
is a dead letter moved back  is queued again, if it still has the letter's failure
===========================  =====================================================
"""

from __future__ import annotations

from ..common.ids import ancestors_of
from ..common.safe_logging import get_logger
from ..messages import RunMessage
from ..store.children import ORPHANED
from ..store.replies import Changed
from ..store.replies import Deferred
from ..store.replies import Missing
from ..store.replies import NotFailed
from ..store.replies import NotQueued
from ..store.replies import OutcomeUnknown
from ..store.replies import Paused
from ..store.replies import WrongState
from .services import EngineServices

logger = get_logger(__name__)


def park(services: EngineServices, message: RunMessage, until: float) -> None:
    """Set aside a run whose code is not here.

    :param until: The moment, on the monotonic clock, to give up at while the state
        server does not answer.
    """
    reply = services.retry_until_answered(
        lambda: services.store.park(message.run), until=until
    )
    match reply:
        case Deferred():
            state = "deferred"
        case Paused():
            state = "paused"
        case NotQueued():
            state = reply.status or "gone"
    logger.warning(
        "The code of %r is not here: run %s is %s.",
        message.function,
        message.run,
        state,
        extra={"action": "run_deferred"},
    )


def cancel_orphan(services: EngineServices, run_id: str, until: float) -> None:
    """Cancel a branch that its run does not wait for any more.

    A child of a map is left to a sweep, which sends the events of its end.

    :param until: The moment, on the monotonic clock, to give up at while the state
        server does not answer.
    """
    if not ancestors_of(run_id):
        return
    services.retry_until_answered(
        lambda: services.store.admin(run_id, "orphaned", reason=ORPHANED), until=until
    )
    logger.info("Branch %s is cancelled.", run_id, extra={"action": "branch_orphaned"})


def revive(
    services: EngineServices, run_id: str, generation: int, until: float
) -> None:
    """Queue a failed run again whose dead letter was moved back.

    Only the generation that the letter names is revived: a letter that is moved back
    twice, or received again later, changes nothing.

    :param until: The moment, on the monotonic clock, to give up at while the state
        server does not answer.
    """
    reply = services.retry_until_answered(
        lambda: services.store.admin(run_id, "retry", generation=generation),
        until=until,
    )
    match reply:
        case Changed():
            return
        case OutcomeUnknown():
            logger.error(
                "Run %s is not retried: its step %r runs at most once, and may have "
                "had its effect. To run it again, name it to runs.retry().",
                run_id,
                reply.step,
                extra={"action": "retry_refused"},
            )
            return
        case WrongState():
            state = reply.status
        case Missing():
            state = "missing"
        case NotFailed():
            raise AssertionError("a letter names no steps")
    logger.info(
        "The dead letter of run %s changes nothing: the run is %s.",
        run_id,
        state,
        extra={"action": "dead_letter_stale"},
    )
