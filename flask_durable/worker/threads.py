"""The threads that execute runs: Dramatiq's worker, and runs that skip the queue.

A run reaches a thread in one of two ways. A *run message* comes through its queue and
is claimed here; it is deleted as soon as the claim is durable, because from then on
the lease owns the run. A *claimed run* comes straight from this process's router.

A thread that is lost in a step's body (see ``engine.lost_threads``) is replaced by a
new one. If it comes back, it ends.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t

import dramatiq
from dramatiq.worker import Worker
from dramatiq.worker import WorkerThread

from ..common.safe_logging import get_logger
from ..common.safe_logging import SafeLogger
from ..engine.attempt import Attempt
from ..engine.claimed_run import ClaimedRun
from ..engine.executor import Executor
from ..messages import RunMessage
from ..queue.broker import DurableBroker
from ..queue.consumer import ACTOR
from ..queue.delivery import Delivery

#: Seconds between two looks for threads that have ended.
LOOK_INTERVAL = 0.25

#: Lost threads at which a worker with few threads is renewed. One with more threads is
#: renewed once it has lost as many as it has.
LEAST_LOST = 4

#: Milliseconds of Dramatiq's own wait for its threads, after ours.
DRAMATIQ_STOP_MS = 100

logger = get_logger(__name__)


class RunThreads:
    """The run threads of this process.

    :param queues: The queues whose runs are executed here.
    :param threads: The number of runs that are executed at once.
    """

    def __init__(
        self,
        broker: DurableBroker,
        executor: Executor,
        *,
        queues: t.Sequence[str],
        threads: int,
    ) -> None:
        self._broker = broker
        self._executor = executor
        for queue in queues:
            broker.declare_queue(queue)
        make = dramatiq.actor(actor_name=ACTOR, queue_name=queues[0], broker=broker)
        actor = make(self._execute)
        # An error in the application's logging would leave a claimed run to its lease.
        actor.logger = t.cast(logging.Logger, SafeLogger(actor.logger))
        self._worker = Worker(broker, queues=set(queues), worker_threads=threads)
        self._worker.logger = t.cast(logging.Logger, SafeLogger(self._worker.logger))
        self._stopping = False
        #: Held while a queue is added, which a stop in the middle would not see.
        self._adding = threading.Lock()
        self._lost = executor.lost_threads
        self._lost.keepers.append(self)
        self._most_lost = max(threads, LEAST_LOST)

    def start(self) -> None:
        """Start to receive run messages."""
        self._worker.start()

    def serve(self, queue: str) -> bool:
        """Receive the run messages of a further queue, from now on.

        :returns: True if it is served; ``False`` if this process stops.
        """
        with self._adding:
            if self._stopping:
                return False
            allowed = self._worker.consumer_whitelist
            assert allowed is not None, "this worker is told its queues"
            allowed.add(queue)
            self._broker.declare_queue(queue)  # Dramatiq starts its consumer
            return True

    def stop(self, until: float) -> bool:
        """Receive nothing more, and wait for the runs that are executed.

        Dramatiq's own wait subtracts the elapsed time again at each thread: with many
        threads the last ones would get nearly none.

        :param until: The time to stop waiting, on the monotonic clock.
        :returns: True if all threads have ended.
        """
        with self._adding:
            self._stopping = True
        for thread in self._worker.workers:
            thread.stop()
        # The list is read each time: lost threads leave it.
        while alive := [x for x in self._worker.workers if x.is_alive()]:
            left = until - time.monotonic()
            if left <= 0:
                break
            alive[0].join(min(left, LOOK_INTERVAL))
        self._worker.stop(timeout=DRAMATIQ_STOP_MS)
        return not alive

    def ailing(self) -> dict[str, str]:
        """Return the threads that should run and do not, each with its ailment."""
        if self._stopping:
            return {}
        threads: dict[str, threading.Thread]
        threads = {f"run thread {x.ident}": x for x in self._worker.workers}
        for queue, consumer in [*self._worker.consumers.items()]:
            threads[f"consumer of {queue}"] = consumer
        return {n: "is gone" for n, x in threads.items() if not x.is_alive()}

    def worn_out(self) -> str:
        """Return the number of lost threads as text if it is too high, or ``""``."""
        lost = len(self._lost)
        return f"{lost} of its threads are lost" if lost >= self._most_lost else ""

    def serves(self, queue: str) -> bool:
        """Return whether runs of *queue* may be executed here, past the queue.

        False for a queue that orders its runs: they would overtake those that wait.
        """
        return self._broker.serves(queue) and not self._broker.transport.is_ordered(
            queue
        )

    def lost(self, attempt: Attempt) -> None:
        """Start a thread in the place of the one that executes *attempt*."""
        # The drain does not wait for it either.
        self._worker.workers = [
            thread for thread in self._worker.workers if thread.ident != attempt.thread
        ]
        if not self._stopping:
            self._worker._add_worker()
        self._broker.window.release()

    def came_back(self, attempt: Attempt) -> None:
        """End the calling thread, which was replaced."""
        self._broker.window.take(1)  # its message frees the slot a second time
        thread = threading.current_thread()
        if isinstance(thread, WorkerThread):
            thread.stop()

    def reserve(self) -> bool:
        """Take a free thread; return whether there was one."""
        return self._broker.window.reserve(1) == 1

    def release(self) -> None:
        """Free a thread that was reserved and not used."""
        self._broker.window.release()

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        """Have *run* executed by the thread that was reserved."""
        self._broker.hand_over(queue, run)

    def _execute(self, payload: t.Any) -> None:
        if isinstance(payload, ClaimedRun):
            return self._executor.execute(payload)
        delivery: Delivery = payload
        if not isinstance(delivery.message, RunMessage):
            return delivery.dead("not a run")
        run = self._executor.claim(delivery.message)
        delivery.done()
        if run is not None:
            self._executor.execute(run)
