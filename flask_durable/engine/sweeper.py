"""The sweeper: once a second, in every worker, it takes up work without an owner.

Partitions are swept in turns, one round each, until none has more. So neither a
partition that hangs nor one with very much to do holds up another. Each worker begins
with a different partition.
"""

from __future__ import annotations

import random
import threading

from ..common.loops import Loop
from ..common.loops import moved
from ..common.safe_logging import get_logger
from ..errors import RunNotFound
from ..redis.errors import log_failure
from ..store.children import ORPHANED
from .admin import RunAdmin
from .expiry import ObjectRemover
from .outbox import Outbox
from .rota import Rota
from .schedule import Schedules
from .services import EngineServices
from .waiting import WaitingSteps

#: Seconds between two sweeps.
INTERVAL = 1.0

#: Sweeps of one partition in a row while there is more to do.
MAX_ROUNDS = 100

#: Most seconds that a state server that does not answer is left alone.
LONGEST_REST = 10.0

#: Why a run is cancelled that a sweep names, by the kind of its timer.
_REASONS = {"start": "not started in time", "timeout": "timeout", "orphan": ORPHANED}

logger = get_logger(__name__)


class Sweeper:
    """Calls the sweep script on all partitions and acts on its findings."""

    def __init__(
        self, services: EngineServices, outbox: Outbox, admin: RunAdmin
    ) -> None:
        self._services = services
        self._outbox = outbox
        self._admin = admin
        self._waiting = WaitingSteps(services, outbox)
        #: Removes the objects of expired runs from the blob store.
        self.objects = ObjectRemover(services.store, services.payloads)
        #: Creates the runs of cron schedules.
        self.schedules = Schedules(services, outbox)
        self._lock = threading.Lock()
        self._empty: set[str] = set()
        self._loop = Loop("durable-sweeper", self._turn, self._failed)
        self._rota = Rota(services.store.upkeep, LONGEST_REST)
        self._first = random.randrange(len(services.store.keys.tags))

    def start(self) -> None:
        """Sweep on a thread of its own."""
        self.objects.start()
        self._outbox.start()
        self._loop.start(INTERVAL)

    def stop_soon(self) -> None:
        """Let the thread end where it is: other workers' sweeps find what is left."""
        self._loop.stopping.set()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread, and confirm the messages that were sent.

        :param timeout: Seconds to wait for it; ``None`` waits as long as it takes.
        """
        self._loop.stop(timeout)
        self.objects.stop()
        try:
            self._outbox.confirm()
        except Exception as error:
            logger.warning(
                "Sent messages are not confirmed: %s",
                error,
                extra={"action": "send_unconfirmed"},
            )

    def saw_empty(self, queue: str) -> None:
        """Note that a receive found *queue* empty."""
        with self._lock:
            self._empty.add(queue)

    def sweep(self) -> None:
        """Sweep every partition, and start the scheduled runs that are due.

        :raises redis.RedisError: Some partition did not answer. The others were swept.
        """
        with self._lock:
            empty, self._empty = self._empty, set()
        failures: list[Exception] = []
        tags = self._services.store.keys.tags
        waiting = [*tags[self._first :], *tags[: self._first]]
        for _ in range(MAX_ROUNDS):
            more = self._rota.visit(
                waiting, lambda tag: self._sweep(tag, empty), failures.append
            )
            waiting = [tag for tag in waiting if more.get(tag)]
            if not waiting:
                break
        # Last: schedules are in one partition, and the due work of others does not
        # wait.
        self._rota.visit([tags[0]], lambda tag: self._look(), failures.append)
        if failures:
            raise failures[0]

    def _look(self) -> None:
        self._services.directory.current()
        if not self._is_over():
            self.schedules.look()

    def _sweep(self, tag: str, empty: set[str]) -> bool:
        """Sweep a partition once; return whether there is more to do at once."""
        if self._is_over():
            return False
        swept = self._services.store.sweep(tag, empty, self._outbox.resting)
        self._outbox.send_swept(swept.runs, swept.events)
        # Before the next round. Otherwise a backlog that keeps a slow queue busy for
        # longer than an entry may stay unconfirmed would be sent again, and grow.
        self._outbox.confirm()
        for timer in swept.timeouts:
            if not self._is_over():
                self._time_out(timer)
        for run_id in swept.expiring:
            if not self._is_over():
                self.objects.expire(run_id)
        # Messages that a queue did not take would be refused again now.
        return swept.more or not self._outbox.resting.issuperset(swept.behind)

    def _time_out(self, timer: str) -> None:
        kind, _, run_id = timer.partition(":")
        if kind == "due":
            self._deliver(*run_id.split(" "))
            return
        if (reason := _REASONS.get(kind)) is None:
            return  # of another release: the sweep script has put it off
        try:
            if self._admin.cancel(run_id, reason, timer=kind):
                logger.warning(
                    "Run %s is cancelled: %s.",
                    run_id,
                    reason,
                    extra={"action": "run_timeout"},
                )
        except RunNotFound:
            self._services.store.forget_timer(run_id, timer)
        except Exception as error:
            # The timer comes back; the others are not to wait for it.
            log_failure(logger, f"time out run {run_id}", error)

    def _deliver(self, name: str, event_id: str) -> None:
        try:
            self._waiting.deliver_due(name, event_id)
        except Exception as error:
            # The timer comes back; the others are not to wait for it.
            log_failure(logger, f"deliver event {event_id}", error)

    def _is_over(self) -> bool:
        """Return True if a sweep is to end where it is, as this process drains."""
        moved()
        return self._loop.stopping.is_set()

    def _turn(self) -> float:
        self.sweep()
        return INTERVAL

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "sweep", error)
        return INTERVAL
