"""Queues that runs were left on: no code names them now, and no worker serves them.

A run stays on the queue that its function had when the run was created. If a release
gives the function another queue, runs that sleep, wait for a retry or lost their worker
are queued on the old one. A worker that was told no queues *adopts* it::

    unserved ──(runs of its functions wait there, no living worker has it)──► adopted
    adopted  ──(the process ends)──► unserved

An adopted queue stays with the process: runs that still sleep come back to it. Several
workers may adopt one queue at a time, as with any queue. A worker that was told its
queues adopts none, and warns.

Only runs of functions whose code is here are looked at: a worker of another release, or
of other functions, may be about to start.
"""

from __future__ import annotations

import math
import time
import typing as t
from collections import Counter

from ..app.state import AppState
from ..common.safe_logging import get_logger
from ..redis.errors import log_failure
from ..store.run_reader import told_strays

#: Seconds between two looks.
STRAYS_LOOK_SECONDS = 10.0

logger = get_logger(__name__)


class Adopter(t.Protocol):
    """The threads of a process that execute runs, and may serve further queues."""

    def serve(self, queue: str) -> bool:
        """Serve *queue* as well; return whether it is served."""


class Strays:
    """Looks for stray queues on behalf of one worker process.

    :param queues: The queues that the process serves; adopted ones are added.
    :param adopter: The threads that may serve further queues; ``None`` for a process
        that was told its queues.
    """

    def __init__(
        self,
        state: AppState,
        queues: list[str],
        adopter: Adopter | None,
    ) -> None:
        self._state = state
        self._queues = queues
        self._adopter = adopter
        self._named = {*state.functions.queues(), *queues}
        #: The queues that were warned of.
        self._told: set[str] = set()
        self._looked = -math.inf

    def look(self) -> None:
        """Look, if the last look is some seconds ago. Errors are logged."""
        if time.monotonic() - self._looked < STRAYS_LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            strays = self._strays()
            for queue in sorted({queue for queue, _ in strays}):
                self._found(queue, strays)
        except Exception as error:
            log_failure(logger, "look for queues that no worker serves", error)

    def _strays(self) -> Counter[tuple[str, str]]:
        """Return the runs that wait on stray queues, by queue and function."""
        waiting = self._state.store.waiting(but={*self._named, *self._queues})
        if not any(self._is_here(function) for _, function in waiting):
            return Counter()
        # Read after the runs: who took the queue over by now has said so before.
        served = {q for w in self._state.directory.workers() for q in w["queues"]}
        return Counter(
            {
                (queue, function): count
                for (queue, function), count in waiting.items()
                if self._is_here(function) and queue not in served
            }
        )

    def _is_here(self, function: str) -> bool:
        return self._state.functions.get(function) is not None

    def _found(self, queue: str, strays: Counter[tuple[str, str]]) -> None:
        waiting = {job: n for job, n in strays.items() if job[0] == queue}
        if self._adopter is None:
            if queue not in self._told:
                self._told.add(queue)
                detail = told_strays(waiting)
                logger.warning("%s.", detail, extra={"action": "queue_unserved"})
        elif self._adopter.serve(queue):
            self._queues.append(queue)
            logger.warning(
                "%d run(s) wait on %r, which no worker serves: this one does so now.",
                sum(waiting.values()),
                queue,
                extra={"action": "queue_adopted"},
            )
