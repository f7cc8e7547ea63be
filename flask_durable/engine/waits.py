"""The waits of a run's steps, as hooks, logs and metrics see them.

A wait begins with the suspension of the run, and ends between two attempts: no process
is there. So its end is told by the first attempt that comes to the answer, which is the
one whose claim is the first after it. A process that dies before it does so tells
nothing, and no later attempt does.
"""

from __future__ import annotations

import typing as t

from ..common.durations import format_seconds
from ..common.safe_logging import get_logger
from ..middleware import StepInfo
from ..middleware import WaitInfo
from ..middleware import WaitOutcome
from ..store.memo import ANSWERED
from ..store.memo import Memo
from ..store.memo import POLL
from ..store.memo import WAITS
from .control import Suspended

if t.TYPE_CHECKING:
    from .attempt import Attempt

#: The kinds of waits that are told of. The length of a sleep is no news, and the
#: outcomes of branches are counted where they are read.
TOLD = WAITS - {"sleep", "group"}

logger = get_logger(__name__)


def wait_for(
    attempt: Attempt,
    kind: str,
    key: str,
    due: str,
    payload: str,
    what: str,
    *,
    signal: str = "",
) -> Memo:
    """Suspend the run until a step has its answer.

    :param what: The words for what is waited for.
    :returns: The memo, if the answer is there already.
    :raises Signal: The run is suspended, or is not ours any more.
    """
    info = StepInfo(attempt.info, key, kind, 1)
    with attempt.services.middleware.around_step(info):
        try:
            memo = attempt.suspend(
                kind, due, reason=kind, step=key, payload=payload, signal=signal
            )
        except Suspended:
            info.outcome = "waiting"
            logger.info(
                "Step %r of run %s waits for %s.",
                key,
                attempt.run_id,
                what,
                extra={"action": "wait_began"},
            )
            raise
        info.outcome = "completed"
    tell_end(attempt, key, memo)
    return memo


def tell_end(attempt: Attempt, key: str, memo: Memo) -> None:
    """Tell that a wait has ended, if no earlier attempt came to its answer."""
    wait = _ended(attempt, key, memo)
    if wait is not None:
        logger.info(
            "Step %r of run %s goes on after %s: %s.",
            key,
            attempt.run_id,
            format_seconds(wait.seconds),
            _WORDS[wait.outcome],
            extra={"action": "wait_ended"},
        )


def tell_end_of_branches(
    attempt: Attempt, key: str, memo: Memo, completed: int, failed: int
) -> None:
    """Do the same for a step with branches, with the numbers of those that ended."""
    wait = _ended(attempt, key, memo)
    if wait is not None:
        logger.info(
            "Step %r of run %s goes on after %s: %d of its branches completed, "
            "%d failed.",
            key,
            attempt.run_id,
            format_seconds(wait.seconds),
            completed,
            failed,
            extra={"action": "branches_ended"},
        )


def tell_end_of_poll(
    attempt: Attempt, key: str, seconds: float, outcome: WaitOutcome
) -> None:
    """Tell that a poll has ended, which is in the attempt of its last look."""
    attempt.info.waits.append(WaitInfo(key, POLL, seconds, outcome))
    logger.info(
        "Step %r of run %s goes on after %s: %s.",
        key,
        attempt.run_id,
        format_seconds(seconds),
        _WORDS[outcome],
        extra={"action": "wait_ended"},
    )


def _ended(attempt: Attempt, key: str, memo: Memo) -> WaitInfo | None:
    """Note the end of a wait.

    :returns: None if an earlier attempt came to the answer.
    """
    info, run = attempt.info, attempt.run
    known = run.memos.get(key, "").startswith(("done ", "failed "))
    # The run was suspended on its newest memo. The time tells of an attempt that came
    # this far, and ended without another one.
    new = memo.order == run.newest_order and memo.number >= run.resumed_since
    if known and not new:
        return None
    # A body that is replayed in this attempt comes to it once more.
    if any(wait.name == key for wait in info.waits):
        return None
    began = memo.tries[0].started if memo.tries else memo.number
    seconds = max(memo.number - began, 0) / 1000
    info.waits.append(WaitInfo(key, memo.kind, seconds, _outcome_of(memo)))
    return info.waits[-1]


_WORDS = {
    "completed": "it has its answer",
    "failed": "what it waited for has failed",
    "timeout": "its time was over",
}


def _outcome_of(memo: Memo) -> WaitOutcome:
    if memo.status == "failed":
        return "failed"
    return "timeout" if memo.kind in ANSWERED and not memo.answer else "completed"
