"""The leases that this process holds, and the thread that renews them."""

from __future__ import annotations

import threading
import time
import typing as t
from collections import defaultdict

from ..common.loops import Loop
from ..common.loops import moved
from ..common.processes import forget_after_fork
from ..common.safe_logging import get_logger
from ..redis.errors import log_failure
from ..store.replies import Lost
from ..store.run_store import RENEW_LIMIT
from ..store.run_store import RunStore
from .attempt_end import AttemptEnd
from .control import Copied
from .rota import Rota

if t.TYPE_CHECKING:
    from .attempt import Attempt

#: Renewals in the time of a lease, and in the same time while the server is away. After
#: an outage, or a jump of the server's clock, all leases are over at once, and the
#: sweepers' second look comes a third of a lease after their first. A renewal, and its
#: way to the server, have to fit between the two.
RENEWALS = 4
AFTER_FAILURE = 12

logger = get_logger(__name__)


class Leases:
    """Keeps every run that is being executed here.

    :param store: The store that renews the leases.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        # Without a rest: a server that answers again gets its renewals at once.
        self._rota = Rota(store.upkeep, longest_rest=0.0)
        self._lock = threading.Lock()
        self._held: set[Attempt] = set()
        #: Set while any attempt runs.
        self.busy = threading.Event()
        self.loop = Loop("durable-leases", self._turn, self._failed)
        forget_after_fork(self)

    def forget(self) -> None:
        """Stop the attempts, in a forked child: they are its parent's."""
        self._lock = threading.Lock()
        held, self._held = self._held, set()
        for attempt in held:
            attempt.ended = True
            # A thread that is not here may have held the lock of the old one.
            attempt.end = AttemptEnd()
            attempt.stop(Copied("a forked copy of the run's process"))

    def start(self) -> None:
        """Renew every quarter of a lease, on a thread of its own."""
        self.loop.start(self._store.lease / RENEWALS)

    def stop(self, timeout: float | None = None) -> None:
        """End the thread. A worker stops it last.

        :param timeout: Seconds to wait for it; ``None`` waits as long as it takes.
        """
        self.loop.stop(timeout)

    def add(self, attempt: Attempt) -> None:
        """Renew the lease of *attempt* from now on."""
        with self._lock:
            if not self._held:
                self.busy.set()
            self._held.add(attempt)

    def remove(self, attempt: Attempt) -> None:
        """Stop renewing the lease of *attempt*."""
        with self._lock:
            self._held.discard(attempt)
            if not self._held:
                self.busy.clear()

    def lost(self, attempt: Attempt) -> None:
        """Stop renewing the lease of *attempt*: it was given up."""
        self.remove(attempt)

    def came_back(self, attempt: Attempt) -> None:
        """Do nothing: a run that was given up stays so."""

    @property
    def held(self) -> list[Attempt]:
        """The attempts that run now."""
        with self._lock:
            return list(self._held)

    def renew(self) -> None:
        """Renew all leases, a batch a partition, and tell attempts that lost theirs.

        A partition that does not answer is asked after all others.

        :raises redis.RedisError: Some leases were not renewed.
        """
        by_tag: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.held:
            by_tag[self._store.keys.tag_of(attempt.run_id)].append(attempt)
        failures: list[Exception] = []
        self._rota.visit(
            by_tag, lambda tag: self._renew_all(tag, by_tag[tag]), failures.append
        )
        if failures:
            raise failures[0]

    def _renew_all(self, tag: str, attempts: list[Attempt]) -> None:
        for start in range(0, len(attempts), RENEW_LIMIT):
            moved()
            self._renew(tag, attempts[start : start + RENEW_LIMIT])

    def _renew(self, tag: str, attempts: list[Attempt]) -> None:
        sent = time.monotonic()
        replies = self._store.renew(
            tag, [(a.run_id, a.token, a.lease) for a in attempts]
        )
        for attempt, reply in zip(attempts, replies, strict=True):
            if isinstance(reply, Lost):
                attempt.lose(cancelled=reply.cancelled)
            else:
                attempt.renewed(sent)

    def _turn(self) -> float:
        self.renew()
        return self._store.lease / RENEWALS

    def _failed(self, error: BaseException) -> float:
        log_failure(logger, "renew leases", error)
        return self._store.lease / AFTER_FAILURE
