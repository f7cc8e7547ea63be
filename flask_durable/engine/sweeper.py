"""The sweeper: once a second, in every worker, it mends what lost its owner."""

from __future__ import annotations

import threading

from ..errors import RunNotFound
from ..loops import Loop
from ..loops import moved
from ..safe_logging import get_logger
from ..store.run_store import log_failure
from ..store.run_store import TRANSIENT
from .admin import RunAdmin
from .host import Host
from .objects import ObjectRemover
from .outbox import Outbox
from .schedule import Schedules

#: Seconds between two sweeps.
INTERVAL = 1.0

#: Sweeps of one partition in a row while there is more to do.
MAX_ROUNDS = 100

logger = get_logger(__name__)


class Sweeper:
    """Calls the sweep script on all partitions and does what it finds."""

    def __init__(self, host: Host, outbox: Outbox, admin: RunAdmin) -> None:
        self._host = host
        self._outbox = outbox
        self._admin = admin
        #: Removes what expired runs have in the blob store.
        self.objects = ObjectRemover(host.store, host.payloads)
        #: What a time of day starts.
        self.schedules = Schedules(host, outbox)
        self._lock = threading.Lock()
        self._empty: set[str] = set()
        self._loop = Loop("durable-sweeper", self._turn, self._failed)

    def start(self) -> None:
        """Sweep on a thread of its own."""
        self.objects.start()
        self._loop.start(INTERVAL)

    def stop_soon(self) -> None:
        """Let the thread end where it is: what is left is found by others' sweeps."""
        self._loop.stopping.set()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread, and confirm what was sent.

        :param timeout: Seconds to wait for it; ``None`` waits as long as it takes.
        """
        self._loop.stop(timeout)
        self.objects.stop()
        try:
            self._outbox.confirm()
        except TRANSIENT as error:
            logger.warning(
                "What was sent is not confirmed: %s",
                error,
                extra={"action": "send_unconfirmed"},
            )

    def saw_empty(self, queue: str) -> None:
        """Note that a receive found *queue* empty."""
        with self._lock:
            self._empty.add(queue)

    def sweep(self) -> None:
        """Sweep every partition once, and start what is scheduled.

        :raises redis.RedisError: The server did not answer.
        """
        with self._lock:
            empty, self._empty = self._empty, set()
        self._host.directory.current()
        for tag in self._host.store.keys.tags:
            for _ in range(MAX_ROUNDS):
                if self._is_over() or not self._sweep(tag, empty):
                    break
        if not self._is_over():
            self.schedules.look()

    def _sweep(self, tag: str, empty: set[str]) -> bool:
        swept = self._host.store.sweep(tag, empty)
        unsent = self._outbox.send_runs(swept.runs)
        sent = self._outbox.send_events(swept.events) and not unsent
        # Before the next round: a backlog that takes a slow queue longer than an entry
        # may stay unconfirmed would be sent again and again, and grow.
        self._outbox.confirm()
        for timer in swept.timeouts:
            if not self._is_over():
                self._time_out(timer)
        for run_id in swept.expired:
            if not self._is_over():
                self.objects.expire(run_id)
        # What a queue did not take is due again in some seconds; to fetch more of it
        # now would be in vain.
        return swept.more and sent

    def _time_out(self, timer: str) -> None:
        kind, _, run_id = timer.partition(":")
        unstarted = kind == "start"
        reason = "not started in time" if unstarted else "timeout"
        try:
            if self._admin.cancel(run_id, reason, only_unstarted=unstarted):
                logger.warning(
                    "Run %s is cancelled: %s.",
                    run_id,
                    reason,
                    extra={"action": "run_timeout"},
                )
        except RunNotFound:
            self._host.store.forget_timer(run_id, timer)
        except Exception as error:
            # The timer comes back; the others are not to wait for it.
            log_failure(logger, f"time out run {run_id}", error)

    def _is_over(self) -> bool:
        """Return whether a sweep is to end where it is: this process drains."""
        moved()
        return self._loop.stopping.is_set()

    def _turn(self) -> float:
        self.sweep()
        return INTERVAL

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "sweep", error)
        return INTERVAL
