"""The threads that execute runs: Dramatiq's worker, and what comes past the queue.

A run reaches a thread in one of two ways. A *run message* comes through its queue and
is claimed here; it is deleted as soon as the claim is durable, because from then on
the lease owns the run. A *claimed run* comes straight from this process's router.

A thread that is lost in a step's body (see ``engine.lost_threads``) is replaced by a
new one. Should it come back, it ends.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t

import dramatiq
from dramatiq.worker import Worker
from dramatiq.worker import WorkerThread

from ..engine.attempt import Attempt
from ..engine.claimed_run import ClaimedRun
from ..engine.executor import Executor
from ..queue.broker import DurableBroker
from ..queue.consumer import ACTOR
from ..queue.delivery import Delivery
from ..queue.envelope import RunMessage
from ..safe_logging import get_logger
from ..safe_logging import SafeLogger

#: Seconds between two looks at which threads have ended.
LOOK_INTERVAL = 0.25

#: Threads that a worker may lose at least before it is renewed. It may lose as many as
#: it has otherwise.
LEAST_LOST = 4

#: Milliseconds that Dramatiq may wait once more for its threads.
REST = 100

logger = get_logger(__name__)


class RunThreads:
    """The run threads of this process.

    :param queues: The queues whose runs are executed here.
    :param threads: How many runs are executed at once.
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
        # An error of the application's logging would leave a claimed run to its lease.
        actor.logger = t.cast(logging.Logger, SafeLogger(actor.logger))
        self._worker = Worker(broker, queues=set(queues), worker_threads=threads)
        self._worker.logger = t.cast(logging.Logger, SafeLogger(self._worker.logger))
        self._stopping = False
        self._lost = executor.lost_threads
        self._lost.keepers.append(self)
        self._most_lost = max(threads, LEAST_LOST)

    def start(self) -> None:
        """Start to receive run messages."""
        self._worker.start()

    def stop(self, until: float) -> bool:
        """Receive nothing more, and wait for the runs that are executed.

        Dramatiq's own wait takes the time so far off what is left at each thread: with
        many threads the last ones would get nearly none.

        :param until: When to wait no longer, on the monotonic clock.
        :returns: Whether all threads have ended.
        """
        self._stopping = True
        for thread in self._worker.workers:
            thread.stop()
        # Looked for each time: threads that are lost leave the list.
        while alive := [x for x in self._worker.workers if x.is_alive()]:
            left = until - time.monotonic()
            if left <= 0:
                break
            alive[0].join(min(left, LOOK_INTERVAL))
        self._worker.stop(timeout=REST)
        return not alive

    def ailing(self) -> dict[str, str]:
        """Return the threads that should run and do not: what is wrong with them."""
        if self._stopping:
            return {}
        threads: dict[str, threading.Thread]
        threads = {f"run thread {x.ident}": x for x in self._worker.workers}
        for queue, consumer in self._worker.consumers.items():
            threads[f"consumer of {queue}"] = consumer
        return {n: "is gone" for n, x in threads.items() if not x.is_alive()}

    def worn_out(self) -> str:
        """Return how many threads are lost, if they are too many, or an empty text."""
        lost = len(self._lost)
        return f"{lost} of its threads are lost" if lost >= self._most_lost else ""

    def serves(self, queue: str) -> bool:
        """Return whether runs of *queue* may be executed here, past the queue.

        None of a queue that orders them: it would overtake those that wait there.
        """
        return self._broker.serves(queue) and not self._broker.is_ordered(queue)

    def lost(self, attempt: Attempt) -> None:
        """Start a thread in the place of the one that executes *attempt*."""
        # Nobody waits for it at the end either.
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
        """Give back a thread that was not used."""
        self._broker.window.release()

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        """Have *run* executed by the thread that was taken."""
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
