"""Push workers: somebody else receives the messages, and hands them to this process.

Elastic Beanstalk's daemon does it over HTTP (``push_endpoint``), Lambda by calling a
function (``lambda_handler``). Both come here, and from here to the router, the executor
and the leases that a pulling worker has: what differs is who receives, and how long an
attempt goes on.

::

    event message ──► router ──► runs ──┐ one of them in place
                                        ▼
    run message ────► claim ──────────► slice: steps until the time is over,
                                        │      then the run is handed back
        "done", to be deleted ◄── barrier

A message that was not understood is put into the dead letters, and then is done. One
that could not be served *now* fails, and comes again. However often a message comes, it
leads to the same run, and a run to one owner.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import socket
import threading
import time
import typing as t
import uuid
from dataclasses import dataclass
from datetime import datetime

from ..app_state import AppState
from ..engine.attempt import ClaimedRun
from ..engine.executor import Executor
from ..engine.leases import Leases
from ..engine.router import Router
from ..engine.sweeper import Sweeper
from ..errors import UnavailableError
from ..queue.envelope import decode
from ..queue.envelope import EVENT_QUEUE
from ..queue.envelope import EventMessage
from ..queue.envelope import RunMessage
from ..queue.envelope import UndecodableMessage
from ..queue.process import PerProcess
from ..queue.transport import MAX_RECEIVES
from ..store.run_store import is_transient
from .beat import Beat

T = t.TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushedMessage:
    """A message of a queue, as it was handed to this process.

    :param id: What the queue calls it.
    :param body: Its text.
    :param receive_count: How often it was received, this time included.
    :param ordered: Whether nothing behind it may be done before it (a FIFO queue).
    """

    id: str
    body: str | bytes
    receive_count: int = 1
    ordered: bool = False

    @property
    def text(self) -> str:
        """The body of a message that could be decoded, as text."""
        return self.body if isinstance(self.body, str) else self.body.decode()


class PushWorker:
    """What one process needs to serve messages that it does not receive itself.

    Threads that renew leases, sweep and beat are started with the first message. Where
    processes are frozen between calls, as Lambda's are, only the leases have a thread;
    sweeping is left to :meth:`tick`.

    :param state: The app's collaborators.
    :param lives_on: Whether the process runs between two messages.
    """

    def __init__(self, state: AppState, *, lives_on: bool) -> None:
        self.state = state
        self._lives_on = lives_on
        host = state.host
        self._leases = Leases(state.store)
        self._executor = Executor(host, state.outbox, self._leases)
        self._sweeper = Sweeper(host, state.outbox, state.admin)
        id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._beat = Beat(state, id, state.functions.queues(), threads=0)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._started = False

    def handle(self, messages: t.Sequence[PushedMessage], until: float) -> list[str]:
        """Serve *messages*; return the ids of those that are to be delivered again.

        :param until: When the last step may begin, on the monotonic clock. A step that
            takes longer runs to its end.
        """
        try:
            return self._durably(lambda: self._handle_all(messages, until), until)
        except Exception as error:
            _log(error, f"{len(messages)} message(s) will be delivered again")
            return [message.id for message in messages]

    def tick(
        self, until: float, function_id: str = "", instant: datetime | None = None
    ) -> None:
        """Do what is due now: timers, lost leases, unsent messages, schedules.

        :param until: When to give up, on the monotonic clock, while the state server
            does not answer.
        :param function_id: The function to start, if it has a schedule.
        :param instant: The time that it is started for: once, however often this is
            called.
        :raises Exception: It could not be done, or may be lost; doing it again is
            harmless.
        """
        self._durably(lambda: self._tick(function_id, instant), until)

    def stop(self) -> None:
        """Sign off and end the threads, as is done when the process exits."""
        atexit.unregister(self.stop)
        with self._lock:
            started, self._started = self._started, False
        # What a fork has copied is the parent's to end.
        if not started or self._pid != os.getpid():
            return
        if self._lives_on:
            self._beat.stop()
            self._sweeper.stop()
        self._leases.stop()

    def _durably(self, work: t.Callable[[], T], until: float) -> T:
        """Return what *work* does once the state that it led to is durable."""
        state = self.state
        state.host.insist(self._start, until=until)
        waits = state.settings.fsync != "off"
        mark = state.barrier.mark() if waits else 0
        # A context of its own: neither a request nor what it set is seen by runs.
        result = contextvars.Context().run(work)
        if not self._lives_on:
            state.outbox.confirm()
        if waits:
            state.barrier.wait(mark)
        return result

    def _start(self) -> None:
        with self._lock:
            if self._started:
                return
            self.state.directory.claim_namespace(self.state.app.name)
            self.state.barrier.promise()
            self._beat.publish()
            self._leases.start()
            if self._lives_on:
                self._sweeper.start()
                self._beat.start()
                atexit.register(self.stop)
            self._started = True

    def _tick(self, function_id: str, instant: datetime | None) -> None:
        self._beat.publish()
        schedules = self._sweeper.schedules
        if instant is not None and not schedules.start(function_id, instant):
            logger.debug("The task %r is no function with a schedule.", function_id)
        self._sweeper.sweep()

    def _handle_all(
        self, messages: t.Sequence[PushedMessage], until: float
    ) -> list[str]:
        failed: list[str] = []
        for number, message in enumerate(messages):
            now = time.monotonic()
            share = (until - now) / (len(messages) - number)
            try:
                # The first one is served in any case: each call gets something done.
                late = number > 0 and now >= until
                self._handle(message, now + max(share, 0), late=late)
            except Exception as error:
                _log(error, f"The message {message.id} will be delivered again")
                failed.append(message.id)
                if message.ordered or _is_away(error):
                    return failed + [left.id for left in messages[number + 1 :]]
        return failed

    def _handle(self, message: PushedMessage, until: float, *, late: bool) -> None:
        try:
            decoded = decode(message.body)
        except UndecodableMessage as error:
            return self._dead(EVENT_QUEUE, message, str(error))
        queue = self._queue_of(decoded)
        if message.receive_count > MAX_RECEIVES:
            reason = f"received {message.receive_count} times"
            return self._dead(queue, message, reason)
        if isinstance(decoded, EventMessage):
            return self._route(message, decoded, until, late=late)
        if late and queue != EVENT_QUEUE:
            return self._send_again(queue, decoded)
        run = self._executor.claim(decoded, until=until)
        if run is not None:
            self._executor.execute(run, until=until)

    def _route(
        self, message: PushedMessage, event: EventMessage, until: float, *, late: bool
    ) -> None:
        place = _Place(free=0 if late else 1)
        delivery = _Delivery(event, message.text)
        try:
            router = Router(self.state.host, self.state.outbox, place)
            router.route([delivery], until=until)
        finally:
            for run in place.runs:
                self._executor.execute(run, until=until)
        if delivery.reason is not None:
            self._dead(EVENT_QUEUE, message, delivery.reason)
        elif delivery.error is not None:
            raise delivery.error

    def _send_again(self, queue: str, message: RunMessage) -> None:
        """Leave a run to the next one, as a message that was never received.

        Failed instead, it would count a receive: behind long steps of others a run's
        message would end among the dead letters.
        """
        [error] = self.state.broker.send(queue, [message.encode()])
        if error is not None:
            raise error

    def _dead(self, queue: str, message: PushedMessage, reason: str) -> None:
        self.state.broker.send_dead(
            queue, message.body, reason, receives=message.receive_count
        )
        logger.warning(
            "The message %s of %s was dead-lettered: %s",
            message.id,
            queue,
            reason,
            extra={"action": "message_dead"},
        )

    def _queue_of(self, message: EventMessage | RunMessage) -> str:
        """Return the queue that a message came from, as far as it is known here."""
        if isinstance(message, EventMessage):
            return EVENT_QUEUE
        function = self.state.functions.get(message.function)
        return EVENT_QUEUE if function is None else function.queue


def push_worker(state: AppState, *, lives_on: bool) -> PushWorker:
    """Return the push worker that *state* has in this process."""
    make = PerProcess(lambda: PushWorker(state, lives_on=lives_on))
    holder: PerProcess[PushWorker] = vars(state).setdefault("push_worker", make)
    return holder.get()


class _Place:
    """Where the router hands claimed runs to: the thread that serves the message."""

    def __init__(self, free: int) -> None:
        self.runs: list[ClaimedRun] = []
        self._free = free

    def serves(self, queue: str) -> bool:
        return True

    def reserve(self) -> bool:
        free, self._free = self._free, 0
        return free > 0

    def release(self) -> None:
        self._free = 1

    def hand_over(self, queue: str, run: ClaimedRun) -> None:
        self.runs.append(run)


class _Delivery:
    """An event in hand, for the router, and what it decided."""

    def __init__(self, message: EventMessage, text: str) -> None:
        self.message = message
        self.text = text
        self.error: Exception | None = None
        self.reason: str | None = None

    def done(self) -> None:
        pass

    def failed(self, error: Exception, delay: float = 0.0) -> None:
        self.error = error

    def dead(self, reason: str) -> None:
        self.reason = reason


def _is_away(error: Exception) -> bool:
    """Return whether the next message would meet the same *error*."""
    return isinstance(error, UnavailableError) or is_transient(error)


def _log(error: Exception, what: str) -> None:
    if _is_away(error):
        logger.warning("%s: %s", what, error)
    else:
        logger.error("%s.", what, exc_info=error)
