"""One Dramatiq broker for every kind of queue.

The parts that surround it know it by one role each::

    receivers ───── Intake ──────────► broker ◄── Processing ─── threads of Dramatiq
    acknowledger ── Intake.repeat ───►  │  │
    heartbeats ──── WaitingMessages ─►  │  └───── BrokerWorker ─► worker process
                                        └──────── MessageState ─► state server
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
import typing as t
import weakref
from collections import defaultdict

import dramatiq
from dramatiq.errors import QueueNotFound

from ..common.redelivery import pause_before
from ..common.safe_logging import get_logger
from ..common.safe_logging import SafeLogger
from ..errors import UnavailableError
from ..messages import decode
from ..messages import ForeignMessage
from ..messages import UndecodableMessage
from ..messages import UnknownForm
from .acknowledger import Acknowledger
from .acknowledger import MessageState
from .consumer import Inbox
from .consumer import LocalMessage
from .consumer import ProcessingMiddleware
from .consumer import QueueConsumer
from .delivery import Delivery
from .delivery import InFlightMessage
from .heartbeat import InFlight
from .receiver import RECEIVE_PAUSE_SECONDS
from .receiver import Receiver
from .sending import Sender
from .transport import QueueAway
from .transport import Received
from .window import ServiceTimes
from .window import Window

logger = get_logger(__name__)

#: Limits of the settled messages that wait to be carried out, and of the bytes of their
#: bodies. Above them receiving pauses. A barrier may take a second: many messages.
MAX_BACKLOG = 10_000
MAX_BACKLOG_SIZE = 8 * 1024 * 1024

#: Seconds that a message waits here for a run thread before it is handed back, and the
#: receive from which on it is no longer handed back.
MAX_THREAD_WAIT_SECONDS = 2.0
KEPT_FROM_RECEIVE = 5

#: Seconds between two reports that a queue is empty.
EMPTY_REPORT_SECONDS = 1.0

#: Seconds that Dramatiq's calls wait until settled messages are carried out.
FLUSH_SECONDS = 2.0


class BrokerWorker(t.Protocol):
    """The worker process whose run threads a broker feeds."""

    def found_empty(self, queue: str) -> None:
        """Note, at most once a second, that *queue* was seen empty."""

    def take_back(self, payloads: list[t.Any]) -> None:
        """Take back payloads that were handed over and will not be started."""


class DurableBroker(dramatiq.Broker):
    """Gives Dramatiq's worker the messages of any :class:`Transport`.

    It connects and starts threads only when they are needed. A message leaves its queue
    when its :class:`Delivery` is settled, or when the actor returns. The engine owns
    retries and time limits, so none of Dramatiq's middleware is used.

    :param sender: The queues, and how this process sends to them.
    :param window: The free run threads of this process.
    :param state: The state that messages lead to. It is made durable before messages
        are deleted, and nothing is received while it cannot be reached.
    :param middleware: Further Dramatiq middleware.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        window: Window,
        state: MessageState,
        middleware: t.Sequence[dramatiq.Middleware] = (),
    ) -> None:
        self._processing = ProcessingMiddleware(self)
        super().__init__(middleware=[self._processing, *middleware])
        self.logger = t.cast(logging.Logger, SafeLogger(self.logger))
        self.queues: set[str] = set()
        self.sender = sender
        self.transport = transport = sender.transport
        self.window = window
        self._worker: BrokerWorker | None = None
        self._state = state
        self._in_flight = InFlight(transport, self)
        self._service_times = ServiceTimes()
        self._acknowledger = Acknowledger(transport, self._in_flight, state, self)
        self._lock = threading.Lock()
        self._inboxes: dict[str, Inbox] = {}
        self._receivers: list[Receiver] = []
        # Weak: a message leaves it at the end of its processing, however that ended.
        self._waiting: weakref.WeakSet[LocalMessage] = weakref.WeakSet()
        #: Messages to be processed once more, of queues that Dramatiq does not read.
        self._repeated: dict[str, list[Delivery]] = defaultdict(list)
        #: The queues that were declared before the first receive.
        self._declared: set[str] = set()
        self._stopping = threading.Event()
        self._flush_until = math.inf
        self._seen_empty: dict[str, float] = {}

    def attach(self, worker: BrokerWorker) -> None:
        """Work for *worker* from now on: tell it of empty queues and unstarted runs."""
        self._worker = worker

    def declare_queue(self, queue_name: str) -> None:
        """Note that *queue_name* is used. It is made when it is first needed."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """Return the names of the queues that were declared."""
        return self.queues.copy()

    def enqueue(
        self, message: dramatiq.Message[t.Any], *, delay: int | None = None
    ) -> dramatiq.Message[t.Any]:
        """Send the event or run message that is the first argument of *message*.

        :param delay: Milliseconds before the message may be received.
        """
        self.emit_before("enqueue", message, delay)
        bodies = [message.args[0].encode()]
        [error] = self.sender.send(message.queue_name, bodies, (delay or 0) / 1000)
        if error is not None:
            raise error
        self.emit_after("enqueue", message, delay)
        return message

    def consume(
        self, queue_name: str, prefetch: int = 1, timeout: int = 30000
    ) -> QueueConsumer:
        """Return a consumer of *queue_name*; its receiver starts with the first one.

        :param prefetch: An unused number: the window limits the messages in flight.
        :param timeout: Milliseconds that the consumer waits for a message.
        """
        with self._lock:
            if queue_name not in self._inboxes:
                thread = self._processing.consumer_threads.get(queue_name)
                self._inboxes[queue_name] = Inbox(thread)
                self._start_receiver(queue_name)
        return QueueConsumer(self._inboxes[queue_name], timeout / 1000, self)

    def serves(self, queue_name: str) -> bool:
        """Return whether this process consumes *queue_name* and is not stopping."""
        return queue_name in self._inboxes and not self._stopping.is_set()

    def hand_over(self, queue_name: str, payload: t.Any) -> None:
        """Give *payload* to a run thread, past the queue and without I/O.

        The caller has reserved a slot of the window for it. If the process stops first,
        the worker takes it back, see :class:`BrokerWorker`.

        :raises dramatiq.errors.QueueNotFound: *queue_name* is not consumed here.
        """
        if queue_name not in self._inboxes:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]
        self._put(LocalMessage(queue_name, payload, self.window))

    def deliveries(self, queue: str, limit: int, wait: float) -> list[Delivery]:
        """Receive messages for a thread that is not Dramatiq's; no slot is taken.

        :param limit: The largest number of messages.
        :param wait: Seconds to wait for the first; the queue may wait less.
        :raises QueueAway: The queue cannot be reached.
        """
        if not self.may_receive():
            self._stopping.wait(min(wait, RECEIVE_PAUSE_SECONDS))
            return []
        with self._lock:
            if repeated := self._repeated.pop(queue, []):
                return repeated
        self.prepare(queue)
        received = self.transport.receive(queue, limit, wait)
        if not received:
            self.found_empty(queue)
        deliveries = self._open(queue, received)
        if self._stopping.is_set():
            for delivery in deliveries:
                delivery.release()
            return []
        return deliveries

    def prepare(self, queue: str) -> None:
        """Have *queue* made, and its options read, before its first receive."""
        if queue in self._declared:
            return
        try:
            self.transport.declare(queue)
        except Exception as error:
            if self.transport.is_transient(error):
                raise QueueAway(str(error)) from error
            raise
        self.sender.marks.check_queues(self.transport, [queue])
        self._declared.add(queue)

    def stop_receiving(self, until: float = math.inf) -> None:
        """Fetch nothing more, and hand back messages that were fetched and not started.

        :param until: The time until which Dramatiq's calls wait for settled messages to
            be carried out, on the monotonic clock.
        """
        self._flush_until = min(self._flush_until, until)
        self._stopping.set()
        with self._lock:
            waiting = list(self._waiting)
            repeated = list(itertools.chain(*self._repeated.values()))
            self._repeated.clear()
        self.give_back(waiting)
        for delivery in repeated:
            delivery.release()

    def flush_settled(self, timeout: float) -> bool:
        """Wait until every settled message is deleted, released or dead-lettered.

        :param timeout: Seconds to wait.
        :returns: True if all of them are.
        """
        return self._acknowledger.flush(timeout)

    def flush_a_moment(self) -> None:
        """Wait a moment until settled messages are carried out."""
        left = self._flush_until - time.monotonic()
        self.flush_settled(max(0.0, min(FLUSH_SECONDS, left)))

    def close(self, timeout: float = FLUSH_SECONDS) -> None:
        """Stop receiving, carry out settlements, and close the connections.

        :param timeout: Seconds to wait for the settlements.
        """
        self.stop_receiving()
        deadline = time.monotonic() + timeout + 0.5
        if self.transport.longest_wait <= FLUSH_SECONDS:
            # So that messages of a read that ends now are handed back. A longer read is
            # left alone: its messages become visible again by themselves.
            for receiver in self._receivers:
                receiver.loop.join(max(0.0, deadline - time.monotonic()))
        self._acknowledger.close(timeout)
        self._in_flight.close()
        self.transport.close()

    def _start_receiver(self, queue: str) -> None:
        receiver = Receiver(
            queue,
            self.transport,
            self.window,
            self,
            self._stopping,
        )
        self._receivers.append(receiver)
        receiver.loop.start()

    def may_receive(self) -> bool:
        """Return whether receiving is allowed now."""
        if self._stopping.is_set():
            return False
        settled = self._acknowledger
        if settled.backlog > MAX_BACKLOG or settled.backlog_size > MAX_BACKLOG_SIZE:
            return False
        return self._state.reachable

    def accept(self, queue: str, received: list[Received]) -> None:
        """Give received messages to run threads; their slots are taken, and freed here.

        A message frees its own slot when it leaves, so that none is freed twice.
        """
        messages: list[LocalMessage] = []
        try:
            for delivery in self._open(queue, received):
                messages.append(LocalMessage(queue, delivery, self.window))
        finally:
            self.window.release(len(received) - len(messages))
        try:
            for message in messages:
                self._put(message)
        except Exception:
            # They are in flight here, and would stay hidden.
            self.give_back(messages)
            raise

    def _open(self, queue: str, received: list[Received]) -> list[Delivery]:
        """Return the messages that can be decoded, and settle the rest.

        Those of another release go back; other undecodable ones are dead letters.
        """
        deliveries = []
        settlements = self._acknowledger
        for item in received:
            try:
                message = decode(item.body)
                self.sender.marks.check(queue, message)
            except UndecodableMessage as error:
                refused = InFlightMessage(queue, item, settlements)
                self._in_flight.add([refused])
                if isinstance(error, ForeignMessage):
                    refused.unknown(str(error))
                elif isinstance(error, UnknownForm):
                    logger.warning(
                        "A message of %s is of another release, and goes back: %s",
                        queue,
                        error,
                        extra={"action": "message_unknown"},
                    )
                    refused.unknown(str(error))
                else:
                    refused.dead(str(error))
            except UnavailableError as error:
                logger.warning(
                    "A message of %s goes back: %s",
                    queue,
                    error,
                    extra={"action": "installation_unknown"},
                )
                refused = InFlightMessage(queue, item, settlements)
                self._in_flight.add([refused])
                refused.release(pause_before(item.receive_count))
            else:
                deliveries.append(Delivery(queue, item, settlements, message))
        self._in_flight.add(deliveries)
        return deliveries

    def repeat(self, messages: list[InFlightMessage]) -> list[InFlightMessage]:
        """Process *messages* once more; return those left over. They stay in flight."""
        queues: dict[str, list[Received]] = defaultdict(list)
        for message in messages:
            queues[message.queue].append(message.received)
        with self._lock:
            if self._stopping.is_set():
                return messages
            # A stop that begins now finds these messages, and hands them back.
            for queue in queues.keys() - self._inboxes.keys():
                self._repeated[queue] += self._open(queue, queues[queue])
        for queue in queues.keys() & self._inboxes.keys():
            self.window.take(len(queues[queue]))
            self.accept(queue, queues[queue])
        return []

    def _put(self, message: LocalMessage) -> None:
        with self._lock:
            self._waiting.add(message)
        self._inboxes[message.queue_name].put(message)
        if self._stopping.is_set():
            # It came after stop_receiving() looked at the waiting messages.
            self.give_back([message])

    def begin(self, message: LocalMessage) -> bool:
        """Return True if *message* may be processed now."""
        if self._stopping.is_set():
            # A thread that just became free must not begin what other workers could.
            self.give_back([message])
        return message.start()

    def ended(self, message: LocalMessage) -> None:
        """Note how long *message* kept its thread, for the estimate of its queue."""
        if message.began is not None:
            seconds = time.monotonic() - message.began
            self._service_times.took(message.queue_name, seconds)

    def ahead(self, queue: str) -> int:
        """Return the number of messages of *queue* to fetch beyond free threads."""
        return self._service_times.ahead(
            queue, self.window.size, self.transport.prefetch
        )

    def give_back_overdue(self) -> None:
        """Hand back messages that have waited longer than expected for a thread.

        A message that comes back again and again stays: no other worker has a thread
        for it either, and the queue counts its receives. While the state server is away
        nothing is handed back: no other worker could do more.
        """
        if not self._state.reachable:
            return
        before = time.monotonic() - MAX_THREAD_WAIT_SECONDS
        with self._lock:
            waiting = list(self._waiting)
        overdue = [
            message
            for message in waiting
            if message.began is None
            and message.came < before
            and message.delivery is not None
            and message.delivery.receive_count < self._kept_from(message.queue_name)
        ]
        if overdue:
            self._service_times.forget()
            self.give_back(overdue)

    def _kept_from(self, queue: str) -> int:
        """Return the receive from which on a message of *queue* is not handed back."""
        return min(KEPT_FROM_RECEIVE, self.transport.max_receives(queue))

    def give_back(self, messages: t.Iterable[LocalMessage]) -> None:
        """Hand back those of *messages* that no thread has begun."""
        unstarted = []
        for message in messages:
            if not message.withdraw():
                continue
            message.leave()
            if message.delivery is not None:
                message.delivery.release()
            else:
                unstarted.append(message.payload)
        if unstarted and self._worker is not None:
            self._worker.take_back(unstarted)

    def found_empty(self, queue: str) -> None:
        """Tell the worker, at most once a second, that *queue* was seen empty."""
        now = time.monotonic()
        if self._worker is None:
            return
        if (
            now - self._seen_empty.get(queue, -EMPTY_REPORT_SECONDS)
            >= EMPTY_REPORT_SECONDS
        ):
            self._seen_empty[queue] = now
            self._worker.found_empty(queue)
