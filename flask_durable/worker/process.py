"""One worker process, from its start to the end of its drain.

::

    SIGTERM ─► stop receiving ─► each run reaches its next step boundary, and is handed
               back ─► (3 s before the end of the grace) bodies that still run are
               interrupted ─► (1 s later) what is left is handed back from here, in one
               go ─► deletes are flushed ─► heartbeats stop ─► exit, hard

Heartbeats stop last: a run that is still being finished must not look abandoned. A run
that is handed back while its body goes on may not start elsewhere before this process
is gone for certain. Every wait has a limit, and so has every loop that is waited for.
"""

from __future__ import annotations

import math
import os
import threading
import time
import typing as t

from ..app.state import AppState
from ..common.ids import new_process_name
from ..common.interruption import ShutdownInterrupt
from ..common.loops import ailing
from ..common.safe_logging import get_logger
from ..engine.claimed_run import ClaimedRun
from ..engine.executor import Executor
from ..engine.handing_back import hand_back_attempts
from ..engine.handing_back import hand_back_unstarted
from ..engine.leases import Leases
from ..engine.router import Router
from ..engine.sweeper import Sweeper
from ..queue.broker import FLUSH_SECONDS
from ..redis.errors import log_failure
from .beat import Beat
from .lifeline import Lifeline
from .real_threads import check_threads
from .router_thread import RouterThread
from .statsd_reporter import Gauges
from .strays import Strays
from .task_protection import AGENT
from .task_protection import TaskProtection
from .threads import RunThreads

#: Seconds before the end of the grace at which bodies are interrupted.
INTERRUPT_BEFORE = 3.0

#: Seconds that interrupted bodies have to end.
INTERRUPT_GRACE = 1.0

#: Seconds past the grace after which the process exits whatever it is doing.
LAST_RESORT = 2.0

#: Seconds that the end of the process may take once all work is done.
EXIT_PATIENCE = 1.0

#: Seconds that each thread gets to end, however little time is left.
LEAST_END_SECONDS = 0.1

logger = get_logger(__name__)


class WorkerProcess:
    """Everything that one worker process runs.

    :param state: The services of the app.
    :param queues: The queues whose runs are executed here.
    :param threads: The number of runs that are executed at once.
    :param grace: Seconds from :meth:`stop` until the process must be gone.
    :param adopts: True to serve further queues that no worker serves, see
        :mod:`~.strays`.
    """

    def __init__(
        self,
        state: AppState,
        *,
        queues: t.Sequence[str],
        threads: int,
        grace: float,
        adopts: bool = False,
    ) -> None:
        self.id = new_process_name()
        self.state = state
        self.queues = list(queues)
        self.grace = grace
        #: The time when a drain has to be over, on the monotonic clock.
        self._deadline = math.inf
        state.window.add(threads)
        services = state.services
        self._leases = Leases(state.store)
        self._lifeline = Lifeline(state.store)
        executor = Executor(services, state.outbox, self._leases)
        self._threads = RunThreads(
            state.broker, executor, queues=self.queues, threads=threads
        )
        self._router = RouterThread(
            state.broker, Router(services, state.outbox, self._threads), state.failures
        )
        self._sweeper = Sweeper(services, state.outbox, state.admin)
        self._relay = state.database.relay
        self._protection = self._task_protection()
        strays = Strays(state, self.queues, self._threads if adopts else None)
        self._beat = Beat(
            state, self.id, self.queues, threads, self._protection, strays
        )
        statsd = state.statsd
        self._gauges = Gauges(state, statsd) if statsd is not None else None
        state.broker.attach(self)

    def start(self) -> None:
        """Publish this process's functions, and start to work.

        :raises ConfigurationError: The namespace is another app's, the state server may
            lose data, or threads are not real ones.
        :raises redis.RedisError: The state server cannot be reached.
        """
        check_threads()
        self.state.directory.claim_namespace(self.state.app.name)
        self.state.barrier.promise()
        self._beat.publish()
        self._leases.start()
        self._lifeline.start()
        self._sweeper.start()
        self.state.services.run_logs.start()
        self._beat.start()
        if self._relay is not None:
            self._relay.start()
        if self._gauges is not None:
            self._gauges.start()
        if self._protection is not None:
            self._protection.start()
        self._threads.start()
        self._router.start()

    def stop(self, grace: float | None = None) -> None:
        """Drain: hand back unfinished runs within the grace.

        Threads of bodies that do not end, and what a step left behind, may still be
        there afterwards: the process has to exit hard.

        :param grace: Seconds until the process must be gone, if not the usual number.
        """
        deadline = time.monotonic() + (self.grace if grace is None else grace)
        self._deadline = deadline
        interrupt_at = deadline - INTERRUPT_BEFORE
        self.state.services.draining.set()
        # Other workers sweep. A long sweep here would take time that steps need.
        self._sweeper.stop_soon()
        if self._relay is not None:
            self._relay.stop_soon()
        self.state.broker.stop_receiving(until=deadline)
        interrupter = call_later(_left(interrupt_at), self._interrupt)
        # Told last: a handler of the application that hangs would keep all of it.
        logger.info("Draining.", extra={"action": "worker_drain"})
        self._router.stop(_left(interrupt_at))
        self._threads.stop(interrupt_at + INTERRUPT_GRACE)
        interrupter.cancel()
        self._hand_back_rest()
        self._stop_rest()

    def ailing(self) -> dict[str, str]:
        """Return the threads that should run and do not, each with its ailment."""
        lacking = self.state.services.lacks.ailing()
        return {**ailing(), **self._threads.ailing(), **lacking}

    def worn_out(self) -> str:
        """Return the reason to renew the process, or an empty text.

        Each lost thread keeps what its body holds, and another thread takes its place.
        Above some number of them a new process is better.
        """
        return self._threads.worn_out()

    def _stop_rest(self) -> None:
        """End what runs no longer need, each part for as long as there is time.

        A thread that does not end is left to the end of the process.
        """
        deadline = self._deadline
        ends: list[tuple[str, t.Callable[[], object]]] = [
            ("beat", lambda: self._beat.stop(_left(deadline))),
            ("sweeper", lambda: self._sweeper.stop(_left(deadline))),
            ("queues", lambda: self.state.broker.close(_flush_time(deadline))),
            *(("metrics", metrics.flush) for metrics in self.state.metrics),
            ("run logs", self.state.services.run_logs.close),
            ("lifeline", lambda: self._lifeline.stop(_left(deadline))),
            ("leases", lambda: self._leases.stop(_left(deadline))),
        ]
        if (gauges := self._gauges) is not None:
            ends.insert(2, ("gauges", lambda: gauges.stop(_left(deadline))))
        if (relay := self._relay) is not None:
            ends.insert(0, ("relay", lambda: relay.stop(_left(deadline))))
        if (protection := self._protection) is not None:
            ends.insert(0, ("protection", lambda: protection.stop(_left(deadline))))
        for name, end in ends:
            # One part that a server refuses is no reason to leave out the others.
            try:
                end()
            except Exception as error:
                log_failure(logger, f"end the worker's {name}", error)

    def _task_protection(self) -> TaskProtection | None:
        agent = os.environ.get(AGENT)
        if not agent or not self.state.settings.ecs_protection:
            return None
        return TaskProtection(agent, self._leases.busy, self._shares)

    def _shares(self, task: str) -> bool:
        """Return whether another worker process may be in the same *task* of ECS.

        Host names do not tell tasks apart: tasks on the network of their host share
        one, and containers of one task have several. A worker that does not know its
        task yet may be in this one.
        """
        workers = self.state.directory.workers()
        tasks = {w.get("task") for w in workers if w.get("id") != self.id} - {None}
        return not tasks.isdisjoint({task, ""}) if task else bool(tasks)

    def _interrupt(self) -> None:
        interrupted = []
        for attempt in self._leases.held:
            body = attempt.body
            if body is not None:
                body.interrupt(ShutdownInterrupt)
                interrupted.append(attempt.run_id)
        for run_id in interrupted:
            logger.warning(
                "Run %s is interrupted by the shutdown.",
                run_id,
                extra={"action": "run_interrupted"},
            )

    def _hand_back_rest(self) -> None:
        """Hand back the runs whose bodies did not end because they are inside C code.

        They go on as long as this process does: until then no other worker may start
        them.
        """
        services, outbox = self.state.services, self.state.outbox
        gone_in = _left(self._deadline) + LAST_RESORT + EXIT_PATIENCE
        held = self._leases.held
        hand_back_attempts(services, outbox, held, gone_in, self._deadline)

    def found_empty(self, queue: str) -> None:
        """Note that *queue* was seen empty: runs whose messages are lost get new ones.

        The broker's receivers call this, see :class:`~.queue.broker.BrokerWorker`.
        """
        self._sweeper.saw_empty(queue)

    def take_back(self, payloads: list[t.Any]) -> None:
        """Hand back runs that were claimed for threads that never took them."""
        runs: list[ClaimedRun] = payloads
        services, outbox = self.state.services, self.state.outbox
        hand_back_unstarted(services, outbox, runs, self._deadline)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), LEAST_END_SECONDS)


def _flush_time(deadline: float) -> float:
    return min(_left(deadline), FLUSH_SECONDS)


def call_later(
    seconds: float, call: t.Callable[..., object], *args: object
) -> threading.Timer:
    """Return a timer that calls *call* on a thread of its own, if one can start.

    Steps may have taken all threads that the system allows. The worker ends all the
    same, if less gently.
    """
    timer = threading.Timer(seconds, call, args)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError as error:
        logger.warning(
            "A part of the drain is left out: %s",
            error,
            extra={"action": "drain_timer_missing"},
        )
    return timer
