"""Removes the objects of expired runs from the blob store, and then the runs.

The blob store may take its time, and a sweep, which takes over the runs of dead
workers, does not wait for it. ::

    sweep marks the run ─► its objects go ─► run_expire removes the run

A process that dies on the way leaves the mark. A sweep names the run again a minute
later.
"""

from __future__ import annotations

import math
import queue
import time

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from ..errors import PayloadUnavailable
from ..payloads.sealing import Payloads
from ..redis.errors import log_failure
from ..store.run_store import RunStore

#: Most runs that wait here. The others come with a later sweep.
MAX_WAITING = 1000

#: Seconds that a run may wait here: half of the time after which a sweep names it
#: again. Another process may then remove it, and the same run may be created again.
PATIENCE = 30.0

#: Seconds between two looks for runs that wait.
INTERVAL = 1.0

#: Seconds to wait for the thread when the worker stops.
JOIN = 2.0

logger = get_logger(__name__)


class ObjectRemover:
    """Removes the objects of runs that were marked, and the runs."""

    def __init__(self, store: RunStore, payloads: Payloads) -> None:
        self._store = store
        self._payloads = payloads
        self._waiting: queue.Queue[tuple[str, float]] = queue.Queue(MAX_WAITING)
        # Patient without end: only the removal waits for the blob store.
        self._loop = Loop(
            "durable-objects", self._turn, self._failed, patience=math.inf
        )

    def start(self) -> None:
        """Work on a thread of its own, if there is a blob store."""
        if self._payloads.has_blobs:
            self._loop.start(INTERVAL)

    def stop(self) -> None:
        """Let the thread end. A sweep names the runs that are left again."""
        # The blob store may hang for longer than a worker may take to stop.
        self._loop.stop(JOIN)

    def expire(self, run_id: str) -> None:
        """Queue a marked run for removal: first its objects, then the run itself.

        :raises redis.RedisError: The server did not answer.
        """
        if not self._payloads.has_blobs:
            # Otherwise the run would be kept until some worker has the setting again.
            logger.warning(
                "Objects of run %s stay: no DURABLE_BLOB_URL.",
                run_id,
                extra={"action": "run_objects_kept"},
            )
            self._store.expire(run_id)
            return
        try:
            self._waiting.put_nowait((run_id, time.monotonic()))
        except queue.Full:
            logger.info(
                "Run %s is removed later: many others wait.",
                run_id,
                extra={"action": "run_removal_deferred"},
            )

    def work(self) -> bool:
        """Remove one run that waits; return whether there was one."""
        try:
            run_id, since = self._waiting.get_nowait()
        except queue.Empty:
            return False
        if time.monotonic() - since < PATIENCE:
            self._remove(run_id)
        return True

    def _remove(self, run_id: str) -> None:
        try:
            self._payloads.remove_run(run_id)
            self._store.expire(run_id)
        except PayloadUnavailable as error:
            logger.warning(
                "Run %s is removed later: %s",
                run_id,
                error,
                extra={"action": "run_removal_deferred"},
            )
        except Exception as error:
            log_failure(logger, f"remove run {run_id}", error)

    def _turn(self) -> float:
        while self.work() and not self._loop.stopping.is_set():
            pass
        return INTERVAL

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "remove objects of runs", error)
        return INTERVAL
