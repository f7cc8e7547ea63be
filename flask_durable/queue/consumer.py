"""The local queue from which Dramatiq's worker reads messages, without any I/O."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
import typing as t

from dramatiq import Message
from dramatiq import Middleware
from dramatiq.broker import Broker
from dramatiq.broker import Consumer
from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage

from ..common.safe_logging import SafeLogger
from .delivery import Delivery
from .window import Window

if t.TYPE_CHECKING:
    from dramatiq.worker import ConsumerThread
    from dramatiq.worker import WorkerThread

#: The name of the one actor that all messages are for.
ACTOR = "execute"

#: Seconds after which a message whose processing raised is received again: this number
#: times two to the power of its earlier receives.
FIRST_REDELIVERY_SECONDS = 1.0
MAX_REDELIVERY_SECONDS = 30.0

#: Numbers of messages. Dramatiq's own ids are random: asking the system for random
#: bytes releases the interpreter's lock, which a busy process gets back late.
_numbers = itertools.count(1)


class LocalMessage(MessageProxy):
    """A message on its way to a run thread; it has a slot of the window.

    :param queue_name: The queue whose consumer gives it to Dramatiq.
    :param payload: The actor's argument: a :class:`Delivery`, or a payload handed over.
    :param window: The window that its slot belongs to.
    """

    def __init__(self, queue_name: str, payload: t.Any, window: Window) -> None:
        message: Message[t.Any] = Message(
            queue_name=queue_name,
            actor_name=ACTOR,
            args=(payload,),
            kwargs={},
            options={},
            message_id=str(next(_numbers)),
        )
        super().__init__(message)
        self.payload = payload
        #: The error of its processing, if that raised.
        self.error: Exception | None = None
        #: The times when it came and when a run thread took it, on the monotonic clock.
        self.came = time.monotonic()
        self.began: float | None = None
        self._window = window
        self._lock = threading.Lock()
        self._decided = False
        self._left = False

    # A proxy compares by its message, which makes it unhashable.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def delivery(self) -> Delivery | None:
        """The delivery that it carries, if it came from a queue."""
        return self.payload if isinstance(self.payload, Delivery) else None

    def start(self) -> bool:
        """Return True if it may be processed; then it can no longer be withdrawn."""
        if self.delivery is not None and self.delivery.lost:
            return False
        self.began = time.monotonic()
        return self._decide()

    def withdraw(self) -> bool:
        """Return True if it may be handed back; then it can no longer be started."""
        return self._decide()

    def leave(self) -> None:
        """Free its slot, the first time this is called."""
        with self._lock:
            left, self._left = self._left, True
        if not left:
            self._window.release()

    def _decide(self) -> bool:
        with self._lock:
            decided, self._decided = self._decided, True
        return not decided


class Inbox:
    """One queue's messages on their way to the run threads.

    Dramatiq's consumer thread would be woken for each message only to put it on the
    queue of the run threads. Once that thread runs, the caller of :meth:`put` puts the
    message there instead.

    :param thread: Dramatiq's consumer thread of the queue; ``None`` where messages are
        read by another one.
    """

    def __init__(self, thread: ConsumerThread | None) -> None:
        self._thread = thread
        self._running = False
        self._early: queue.SimpleQueue[LocalMessage] = queue.SimpleQueue()

    def put(self, message: LocalMessage) -> None:
        """Give *message* to a run thread."""
        if self._thread is not None and self._running:
            self._thread.handle_message(message)
        else:
            self._early.put(message)

    def get(self, timeout: float) -> LocalMessage | None:
        """Return a message that was not given to a run thread directly.

        :param timeout: Seconds to wait for one.
        """
        # The first read shows that the thread has its consumer, through which run
        # threads settle their messages.
        self._running = True
        try:
            return self._early.get(timeout=timeout)
        except queue.Empty:
            return None


class Processing(t.Protocol):
    """The broker, as Dramatiq's threads call it through the classes below."""

    def begin(self, message: LocalMessage) -> bool:
        """Return whether *message* may be processed now."""

    def ended(self, message: LocalMessage) -> None:
        """Note that the processing of *message* ended, however it did."""

    def give_back(self, messages: t.Iterable[LocalMessage]) -> None:
        """Hand back those of *messages* that no thread has begun."""

    def flush_a_moment(self) -> None:
        """Wait a moment until settled messages are carried out."""

    def stop_receiving(self) -> None:
        """Fetch nothing more, and hand back messages that were not started."""


class QueueConsumer(Consumer):
    """Reads one queue's inbox, which lives on the broker.

    Dramatiq makes a new consumer after any error, and settles messages of the old one
    through it. So nothing is kept here.

    :param inbox: The messages of the queue.
    :param timeout: Seconds to wait for a message.
    :param processing: The broker, which hands back and settles messages.
    """

    def __init__(self, inbox: Inbox, timeout: float, processing: Processing) -> None:
        self._inbox = inbox
        self._timeout = timeout
        self._processing = processing

    def __next__(self) -> LocalMessage | None:
        return self._inbox.get(self._timeout)

    def ack(self, message: MessageProxy) -> None:
        local = t.cast(LocalMessage, message)
        local.leave()
        if local.delivery is not None:
            if local.began is None and local.delivery.lost:
                # Skipped. It may be visible, and its receipt would delete it then.
                local.delivery.leave()
            local.delivery.done()

    def nack(self, message: MessageProxy) -> None:
        local = t.cast(LocalMessage, message)
        local.leave()
        if local.delivery is not None:
            earlier = min(local.delivery.receive_count - 1, 10)
            delay = min(FIRST_REDELIVERY_SECONDS * 2**earlier, MAX_REDELIVERY_SECONDS)
            if local.error is None:
                local.delivery.release(delay)
            else:
                local.delivery.failed(local.error, delay)

    def requeue(self, messages: t.Iterable[MessageProxy]) -> None:
        self._processing.give_back(t.cast("t.Iterable[LocalMessage]", messages))
        self._processing.flush_a_moment()

    def close(self) -> None:
        self._processing.flush_a_moment()


class ProcessingMiddleware(Middleware):
    """Starts messages, hands back those that raised, and stops receiving in time.

    :param processing: The broker, which decides and takes note.
    """

    def __init__(self, processing: Processing) -> None:
        self._processing = processing
        #: Dramatiq's consumer threads by the names of their queues.
        self.consumer_threads: dict[str, ConsumerThread] = {}

    def after_worker_thread_boot(self, broker: Broker, thread: WorkerThread) -> None:
        # An error in the application's logging would end a thread of Dramatiq's.
        thread.logger = t.cast(logging.Logger, SafeLogger(thread.logger))

    def after_consumer_thread_boot(
        self, broker: Broker, thread: ConsumerThread
    ) -> None:
        thread.logger = t.cast(logging.Logger, SafeLogger(thread.logger))
        self.consumer_threads[thread.queue_name] = thread

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if not self._processing.begin(t.cast(LocalMessage, message)):
            raise SkipMessage("It was given back, or another consumer has it.")

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: t.Any = None,
        exception: BaseException | None = None,
    ) -> None:
        self._processing.ended(t.cast(LocalMessage, message))
        # Without this Dramatiq acknowledges a message whose actor raised.
        if exception is not None:
            # Otherwise it was interrupted, and nothing is wrong with it.
            if isinstance(exception, Exception):
                t.cast(LocalMessage, message).error = exception
            message.fail()

    def before_worker_shutdown(self, broker: Broker, worker: t.Any) -> None:
        # Dramatiq's consumers go on fetching until its last worker thread is done.
        self._processing.stop_receiving()
