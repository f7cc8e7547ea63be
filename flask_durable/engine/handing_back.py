"""Hands back all runs that a process still owns when it has to end, in one go.

::

    RUNNING ──► one pipeline of run_suspend ──► QUEUED, or SUSPENDED until the process
                        │                       is gone
                        └─► one barrier ─► the attempts are stopped, messages are sent

A process with many threads has a moment for all of its runs. One after the other, each
with a barrier of its own, they would take longer, and the last ones would be left to
their leases with their claims counted. A step that ends at the same time either commits
before the script, or is refused by it: the token decides.
"""

from __future__ import annotations

import typing as t

from ..common.safe_logging import get_logger
from ..store.hand_backs import hand_back
from ..store.replies import Lost
from ..store.replies import Queued
from ..store.replies import Suspension
from ..store.run_store import after
from .attempt import Attempt
from .claimed_run import ClaimedRun
from .control import OwnershipLost
from .control import Suspended
from .outbox import Outbox
from .services import EngineServices

#: The reason that a run carries when a process hands it back because it ends.
REASON = "worker shutdown"

logger = get_logger(__name__)


def hand_back_attempts(
    services: EngineServices,
    outbox: Outbox,
    attempts: t.Sequence[Attempt],
    delay: float,
    until: float,
) -> None:
    """Hand back the runs of *attempts*, whose bodies have not ended, and stop them.

    :param delay: Seconds before which another process may not start them.
    :param until: The moment, on the monotonic clock, to give up at; the leases that
        are left run out then.
    """
    replies = _hand_back(services, outbox, [a.run for a in attempts], delay, until)
    for attempt, reply in zip(attempts, replies, strict=True):
        if isinstance(reply, Exception):
            continue  # it was reported
        if isinstance(reply, Lost):
            attempt.stop(OwnershipLost("cancelled" if reply.cancelled else "lost"))
        else:
            attempt.stop(Suspended(REASON))
            logger.warning(
                "Run %s is handed back while its step still runs.",
                attempt.run_id,
                extra={"action": "run_handed_back"},
            )


def hand_back_unstarted(
    services: EngineServices, outbox: Outbox, runs: t.Sequence[ClaimedRun], until: float
) -> None:
    """Hand back runs that were claimed for threads that never took them.

    :param until: The moment, on the monotonic clock, to give up at; the leases that
        are left run out then.
    """
    _hand_back(services, outbox, runs, 0, until)


def _hand_back(
    services: EngineServices,
    outbox: Outbox,
    runs: t.Sequence[ClaimedRun],
    delay: float,
    until: float,
) -> t.Sequence[Suspension | Lost | Exception]:
    """Return the reply for each run, or the error."""
    if not runs:
        return []
    owned = [(run.run_id, run.token) for run in runs]
    try:
        mark = services.barrier_mark()
        replies = services.retry_until_answered(
            lambda: hand_back(services.store, owned, after(delay), REASON), until=until
        )
        # One barrier for all. A message about a state that is not durable yet would be
        # answered "not queued", and deleted.
        services.wait_durable(mark, until=until)
    except Exception as error:
        replies = [error] * len(runs)
    queued = []
    for run, reply in zip(runs, replies, strict=True):
        if isinstance(reply, Exception):
            # Its lease runs out, and the sweeper of another process takes it.
            logger.warning(
                "Run %s may not be handed back: %s",
                run.run_id,
                reply,
                extra={"action": "run_not_handed_back"},
            )
        elif isinstance(reply, Queued):
            record = run.record
            queued.append((run.run_id, record["function"], record["queue"], reply.time))
    outbox.send_runs(queued)
    return replies
