"""One worker process, from its start to the end of its drain.

::

    SIGTERM ─► stop receiving ─► each run reaches its next step boundary, and is handed
               back ─► (3 s before the end of the grace) bodies that still run are
               interrupted ─► what is left is handed back from here ─► deletes are
               flushed ─► heartbeats stop ─► exit

Heartbeats stop last: a run that is still being finished must not look abandoned.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import typing as t
import uuid

from ..app_state import AppState
from ..engine.claimed_run import ClaimedRun
from ..engine.control import ShutdownInterrupt
from ..engine.control import Signal
from ..engine.executor import Executor
from ..engine.leases import Leases
from ..engine.router import Router
from ..engine.sweeper import Sweeper
from ..safe_logging import get_logger
from ..store.run_store import after
from ..store.run_store import Refused
from ..store.run_store import TRANSIENT
from .beat import Beat
from .gauges import Gauges
from .real_threads import check_threads
from .router_thread import RouterThread
from .task_protection import AGENT
from .task_protection import TaskProtection
from .threads import RunThreads

#: Seconds before the end of the grace at which bodies are interrupted.
INTERRUPT_BEFORE = 3.0

#: Seconds that interrupted bodies have to end.
INTERRUPT_GRACE = 1.0

#: Seconds before which a run that was cut off may not start elsewhere: this process is
#: gone by then.
HANDBACK_DELAY = 1.0

logger = get_logger(__name__)


class WorkerProcess:
    """Everything that one worker process runs.

    :param state: The app's collaborators.
    :param queues: The queues whose runs are executed here.
    :param threads: How many runs are executed at once.
    :param grace: Seconds from :meth:`stop` until the process must be gone.
    """

    def __init__(
        self,
        state: AppState,
        *,
        queues: t.Sequence[str],
        threads: int,
        grace: float,
    ) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.state = state
        self.queues = list(queues)
        self.grace = grace
        state.window.add(threads)
        host = state.host
        self._leases = Leases(state.store)
        executor = Executor(host, state.outbox, self._leases)
        self._threads = RunThreads(
            state.broker, executor, queues=self.queues, threads=threads
        )
        self._router = RouterThread(
            state.broker, Router(host, state.outbox, self._threads), state.failures
        )
        self._sweeper = Sweeper(host, state.outbox, state.admin)
        self._beat = Beat(state, self.id, self.queues, threads)
        self._protection = self._task_protection()
        statsd = state.statsd
        self._gauges = Gauges(state, statsd) if statsd is not None else None
        state.broker.on_empty = self._sweeper.saw_empty
        state.broker.on_unstarted = self._hand_back_unstarted

    def start(self) -> None:
        """Publish this process's functions, and start to work.

        :raises ConfigurationError: The namespace is another app's, the state server may
            lose what it is given, or threads are not real ones.
        :raises redis.RedisError: The state server cannot be reached.
        """
        check_threads()
        self.state.directory.claim_namespace(self.state.app.name)
        self.state.barrier.promise()
        self._beat.publish()
        self._leases.start()
        self._sweeper.start()
        self.state.host.run_logs.start()
        self._beat.start()
        if self._gauges is not None:
            self._gauges.start()
        if self._protection is not None:
            self._protection.start()
        self._threads.start()
        self._router.start()

    def stop(self) -> bool:
        """Drain: hand back what is not finished, within the grace.

        :returns: Whether every thread has ended; if not, the process has to exit hard.
        """
        deadline = time.monotonic() + self.grace
        logger.info("Draining.", extra={"action": "worker_drain"})
        self.state.host.draining.set()
        self.state.broker.stop_receiving()
        patience = max(deadline - INTERRUPT_BEFORE - time.monotonic(), 0)
        interrupter = threading.Timer(patience, self._interrupt)
        interrupter.daemon = True
        interrupter.start()
        self._router.stop(patience)
        self._threads.stop(
            max(deadline - INTERRUPT_BEFORE + INTERRUPT_GRACE - time.monotonic(), 0.1)
        )
        interrupter.cancel()
        ended = not self._leases.held
        self._hand_back_rest()
        if self._protection is not None:
            self._protection.stop()
        self._beat.stop()
        self._sweeper.stop()
        if self._gauges is not None:
            self._gauges.stop()
        for metrics in self.state.metrics:
            metrics.flush()
        self.state.host.run_logs.close()
        self.state.broker.close()
        self._leases.stop()
        return ended

    def _task_protection(self) -> TaskProtection | None:
        agent = os.environ.get(AGENT)
        if not agent or not self.state.settings.ecs_protection:
            return None
        workers = self.state.directory.workers
        return TaskProtection(
            agent,
            self._leases.busy,
            # A worker's unit is its container's host, which a task has one of.
            lambda: sum(w["unit"] == self._beat.unit for w in workers()) > 1,
        )

    def _interrupt(self) -> None:
        for attempt in self._leases.held:
            body = attempt.body
            if body is not None:
                logger.warning(
                    "Run %s is interrupted by the shutdown.",
                    attempt.run_id,
                    extra={"action": "run_interrupted"},
                )
                body.interrupt(ShutdownInterrupt)

    def _hand_back_rest(self) -> None:
        """Hand back the runs whose bodies did not end: they are inside C code."""
        for attempt in self._leases.held:
            try:
                attempt.hand_back(HANDBACK_DELAY)
            except Signal:
                logger.warning(
                    "Run %s is handed back while its step still runs.",
                    attempt.run_id,
                    extra={"action": "run_handed_back"},
                )

    def _hand_back_unstarted(self, payload: t.Any) -> None:
        """Give back a run that was claimed for a thread that never took it."""
        run: ClaimedRun = payload
        try:
            reply = self.state.store.suspend(
                run.run_id, run.token, "handback", after(0), reason="worker shutdown"
            )
        except (Refused, *TRANSIENT) as error:
            # Its lease runs out, and the sweeper of another worker takes it.
            logger.warning(
                "Run %s is not handed back: %s",
                run.run_id,
                error,
                extra={"action": "run_not_handed_back"},
            )
            return
        record = run.record
        self.state.outbox.send_runs(
            [(run.run_id, record["function"], record["queue"], reply[1])]
        )
