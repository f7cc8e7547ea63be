"""Push workers: another program receives the messages and passes them to this process.

Elastic Beanstalk's daemon does so over HTTP (``web/push.py``), Lambda by calling a
function (``lambda_handler``). Both come here, and from here to the same router,
executor and leases that a pulling worker has. Two things differ: who receives, and how
long an attempt goes on.

::

    event message ──► router ──► runs ──┐ one of them in place
                                        ▼
    run message ────► claim ──────────► slice: steps until the time is over,
                                        │      then the run is handed back
        "done", to be deleted ◄── barrier

See ``messages`` for the handling of one message.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import sys
import threading
import time
import typing as t
from datetime import datetime

from ...app.state import AppState
from ...common.ids import new_process_name
from ...common.processes import PerProcess
from ...common.safe_logging import get_logger
from ...engine.executor import Executor
from ...engine.leases import Leases
from ...engine.sweeper import Sweeper
from ...messages import EVENT_QUEUE
from ...observe.formats import set_up_pushed
from ..beat import Beat
from ..real_threads import check_threads
from .messages import is_away
from .messages import PushedMessage
from .messages import PushedMessages

T = t.TypeVar("T")

#: Seconds between two calls after which connections are no longer trusted, where
#: processes are frozen in between.
SHORT_REST = 1.0

#: Seconds that the threads have to end in when their process does.
STOP_SECONDS = 10.0

logger = get_logger(__name__)


class PushWorker:
    """Serves messages that this process does not receive itself.

    Threads that renew leases, sweep and beat are started with the first message. Where
    processes are frozen between calls, as Lambda's are, only the leases have a thread;
    sweeping is left to :meth:`tick`.

    :param state: The services of the app.
    :param lives_on: True if the process runs between two messages.
    """

    def __init__(self, state: AppState, *, lives_on: bool) -> None:
        self.state = state
        self._lives_on = lives_on
        services = state.services
        self._leases = Leases(state.store)
        executor = Executor(services, state.outbox, self._leases)
        self._messages = PushedMessages(state, executor)
        self._sweeper = Sweeper(services, state.outbox, state.admin)
        id = new_process_name()
        self._beat = Beat(state, id, state.functions.queues(), threads=0)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._started = False
        self._rest = _Rest()

    def handle(self, messages: t.Sequence[PushedMessage], until: float) -> list[str]:
        """Serve *messages*; return the ids of those that are to be delivered again.

        :param until: The time until which a step may begin, on the monotonic clock. A
            step that takes longer runs to its end.
        """
        try:
            return self._durably(lambda: self._messages.serve(messages, until), until)
        except Exception as error:
            what = f"{len(messages)} message(s) will be delivered again"
            if is_away(error):
                logger.warning("%s: %s", what, error, extra={"action": "push_deferred"})
                return self._messages.put_off(messages)
            logger.error("%s.", what, exc_info=error, extra={"action": "push_failed"})
            return [message.id for message in messages]

    def tick(
        self, until: float, function_id: str = "", instant: datetime | None = None
    ) -> None:
        """Do all work that is due: timers, lost leases, unsent messages, schedules.

        :param until: The time to give up while a server does not answer, on the
            monotonic clock.
        :param function_id: The function to start, if it has a schedule.
        :param instant: The time that the function is started for. It is started once
            for it, however often this is called.
        :raises Exception: The work could not be done, or may be lost; doing it again is
            harmless.
        """
        self._durably(lambda: self._tick(function_id, instant, until), until)

    def stop(self) -> None:
        """Sign off and end the threads, as the end of the process does.

        A thread that does not end within ten seconds, as where a log handler hangs, is
        left to the end of the process.
        """
        deadline = time.monotonic() + STOP_SECONDS
        atexit.unregister(self.stop)
        with self._lock:
            started, self._started = self._started, False
        # After a fork the threads and the worker belong to the parent.
        if not started or self._pid != os.getpid():
            return
        if self._lives_on:
            self._beat.stop(max(0.0, deadline - time.monotonic()))
            self._sweeper.stop(max(0.0, deadline - time.monotonic()))
            self.state.services.run_logs.close()
        self._leases.stop(max(0.0, deadline - time.monotonic()))

    def _durably(self, work: t.Callable[[], T], until: float) -> T:
        """Return the result of *work* once the state that it wrote is durable."""
        state = self.state
        if not self._lives_on and self._rest.is_over():
            # The network may have dropped the connections silently, and each would
            # cost a whole timeout of the time that is left.
            state.reconnect()
        try:
            return self._do_durably(work, until)
        finally:
            self._rest.begin()

    def _do_durably(self, work: t.Callable[[], T], until: float) -> T:
        state = self.state
        state.services.retry_until_answered(self._start, until=until)
        waits = state.settings.fsync != "off"
        mark = state.barrier.mark() if waits else 0
        # A context of its own: runs see neither a request nor what it set.
        result = contextvars.Context().run(work)
        if not self._lives_on:
            state.outbox.confirm()
            state.services.run_logs.flush()
            for metrics in state.metrics:
                metrics.flush()
        if waits:
            state.barrier.wait(mark)
        return result

    def _start(self) -> None:
        with self._lock:
            if self._started:
                return
            check_threads()
            self.state.directory.claim_namespace(self.state.app.name)
            self.state.barrier.promise()
            set_up_pushed(self.state.app.logger)
            sender = self.state.message_sender
            queues = [EVENT_QUEUE, *self.state.functions.queues()]
            sender.marks.check_queues(sender.transport, queues)
            if self._lives_on and not _threads_run():
                logger.warning(
                    "uWSGI was started without --enable-threads: leases are not "
                    "renewed and sleeping runs not woken between requests.",
                    extra={"action": "threads_disabled"},
                )
            self._beat.publish()
            self._leases.start()
            if self._lives_on:
                self._sweeper.start()
                self.state.services.run_logs.start()
                self._beat.start()
                atexit.register(self.stop)
            self._started = True

    def _tick(self, function_id: str, instant: datetime | None, until: float) -> None:
        self._beat.publish()
        schedules = self._sweeper.schedules
        if instant is not None and not schedules.start(function_id, instant):
            logger.debug(
                "The task %r is no function with a schedule.",
                function_id,
                extra={"action": "task_without_schedule"},
            )
        self._look_for_empty_queues()
        self._sweeper.sweep()
        if (relay := self.state.database.relay) is not None:
            relay.tick()
        if not self._lives_on:
            while time.monotonic() < until and self._sweeper.objects.work():
                pass

    def _look_for_empty_queues(self) -> None:
        """Tell the sweeper which queues are empty, as a receiving worker does.

        Otherwise a run whose message vanished would wait until another one passes
        through its queue.
        """
        for queue in self.state.functions.queues():
            try:
                counts = self.state.transport.counts(queue)
            except Exception as error:
                logger.warning(
                    "What %s holds is not known: %s",
                    queue,
                    error,
                    extra={"action": "queue_away"},
                )
            else:
                if not counts.waiting:
                    self._sweeper.saw_empty(queue)


class _Rest:
    """The time between two calls, in which the process may have stood still.

    Each clock may stand still too, or jump: the one that shows more counts.
    """

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None

    def begin(self) -> None:
        self._began = time.monotonic(), time.time()

    def is_over(self) -> bool:
        """Return whether the rest was long enough for connections to be dropped."""
        if self._began is None:
            return False
        monotonic, wall = self._began
        return max(time.monotonic() - monotonic, time.time() - wall) > SHORT_REST


def _threads_run() -> bool:
    """Return whether threads go on between requests: uWSGI does that on request."""
    options = getattr(sys.modules.get("uwsgi"), "opt", None)
    if options is None:
        return True
    # As uWSGI does: an option that is present counts, whatever its value.
    return "enable-threads" in options or "threads" in options


def push_worker(state: AppState, *, lives_on: bool) -> PushWorker:
    """Return the push worker that *state* has in this process."""
    make = PerProcess(lambda: PushWorker(state, lives_on=lives_on))
    holder: PerProcess[PushWorker] = vars(state).setdefault("push_worker", make)
    return holder.get()
