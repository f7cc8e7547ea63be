"""Finds the run that kills its process, and blames no other one.

A claim counts against a run until it makes progress, and a run that was claimed too
often is PAUSED. When a process dies, all of its runs have lost a claim, and at most one
of them is to blame. Hosts are lost and processes are killed, so one loss says nothing:
the runs go on elsewhere, all at once. A run that comes back after a second loss without
progress is a *suspect*. In each process suspects are tried one at a time:

==================================  ================================================
a run begins, and …                 then
==================================  ================================================
it is no suspect                    it begins; while a suspect is on trial, it is
                                    excused
it is a suspect, none is on trial   it is on trial; all others of the process are
                                    excused
it is a suspect, one is on trial    it is handed back, which takes its claim back too
==================================  ================================================

To be *excused* is to have no claim counted: such a run is no suspect the next time. A
trial ends when the run makes progress or ends; otherwise when it has lasted as long as
its process lived with it the last time. The run did not kill for that long, and the
next suspect is tried beside it.

So each death of a process counts against one run, the one on trial. The run that is to
blame is on trial when it kills its process, since its trial lasts as long as that took
before. It is PAUSED after ``DURABLE_MAX_DISPATCHES``; the runs beside it are not. All
this costs nothing while there is no suspect.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ..common.safe_logging import get_logger
from ..store.excuses import excuse
from .leases import Leases
from .services import EngineServices

if t.TYPE_CHECKING:
    from .attempt import Attempt

#: The number of claims without progress, this one included, that makes a run a suspect.
#: With two, one lost host would have its long runs go on one after the other.
SUSPECT = 3

#: Seconds until a suspect that had to wait may try again, at least and at most.
MIN_DELAY = 0.5
MAX_DELAY = 5.0

logger = get_logger(__name__)


class Probation:
    """Tries the suspects among the runs of one process, one at a time.

    :param leases: The runs of the process.
    """

    def __init__(self, services: EngineServices, leases: Leases) -> None:
        self._services = services
        self._leases = leases
        self._lock = threading.Lock()
        self._on_trial: Attempt | None = None
        self._until = 0.0

    def begin(self, attempt: Attempt) -> None:
        """Let the run of *attempt* begin, or hand it back; called before its body.

        :raises Signal: The run was handed back: another suspect is on trial.
        """
        suspect = int(attempt.record.get("dispatches", "1")) >= SUSPECT
        if not suspect and self._on_trial is None:
            return
        with self._lock:
            left = self._left(attempt)
            if suspect and not left:
                self._on_trial = attempt
                lived = int(attempt.record.get("lived", "0")) / 1000
                self._until = time.monotonic() + lived + self._services.store.lease / 3
        if not suspect:
            self._excuse([attempt] if left else [])
        elif not left:
            self._excuse([held for held in self._leases.held if held is not attempt])
        else:
            logger.info(
                "Run %s waits: another run that may have ended a process is tried.",
                attempt.run_id,
                extra={"action": "suspect_waits"},
            )
            delay = min(max(left, MIN_DELAY), MAX_DELAY)
            attempt.hand_back(delay, reason="another suspect is tried")

    def _left(self, attempt: Attempt) -> float:
        """Return the seconds that another run's trial lasts at most; 0 for none."""
        tried = self._on_trial
        if tried is None:
            return 0.0
        left = self._until - time.monotonic()
        if tried.ended or tried.committed or left <= 0:
            self._on_trial = None
            return 0.0
        # In development the same run has several attempts in one claim.
        return 0.0 if tried.token == attempt.token else left

    def _excuse(self, attempts: t.Sequence[Attempt]) -> None:
        held = [(attempt.run_id, attempt.token) for attempt in attempts]
        if held:
            self._services.retry_until_answered(
                lambda: excuse(self._services.store, held)
            )
