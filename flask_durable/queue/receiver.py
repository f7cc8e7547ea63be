"""The thread that receives from one queue while run threads are free, or soon are."""

from __future__ import annotations

import threading
import typing as t

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from .delivery import InFlightMessage
from .transport import Received
from .transport import Transport
from .window import Window

logger = get_logger(__name__)

#: Seconds between two looks at whether receiving is allowed again.
RECEIVE_PAUSE_SECONDS = 0.25

#: Seconds before the first repetition of a failed receive, and the longest such pause.
FIRST_RECEIVE_BACKOFF_SECONDS = 0.1
MAX_RECEIVE_BACKOFF_SECONDS = 5.0

#: The largest number of messages of one receive.
RECEIVE_LIMIT = 10


class Intake(t.Protocol):
    """The way of messages from the queues to the run threads: the broker's."""

    def ahead(self, queue: str) -> int:
        """Return the number of messages of *queue* to fetch beyond free threads."""

    def may_receive(self) -> bool:
        """Return whether receiving is allowed now."""

    def prepare(self, queue: str) -> None:
        """Have *queue* made, and its options read, before its first receive."""

    def accept(self, queue: str, received: list[Received]) -> None:
        """Give received messages to run threads.

        Their slots of the window are taken. They are freed here, whatever happens.
        """

    def found_empty(self, queue: str) -> None:
        """Note that there was nothing to receive from *queue*."""

    def repeat(self, messages: list[InFlightMessage]) -> list[InFlightMessage]:
        """Have *messages*, which stay in flight, processed once more.

        :returns: The messages that are not taken, to be released.
        """


class Receiver:
    """Receives as many messages as the window has room for.

    Waiting for a message reserves no slot: an idle queue would keep it from a busy one.

    :param queue: The queue's name.
    :param transport: The transport of the queue.
    :param window: The free run threads.
    :param intake: The way of messages to the run threads.
    :param stopping: Set when the thread is to end.
    """

    def __init__(
        self,
        queue: str,
        transport: Transport,
        window: Window,
        intake: Intake,
        stopping: threading.Event,
    ) -> None:
        name = f"durable-receiver-{queue}"
        self.loop = Loop(name, self._turn, self._failed, stopping=stopping)
        self._queue = queue
        self._transport = transport
        self._window = window
        self._intake = intake
        self._backoff = FIRST_RECEIVE_BACKOFF_SECONDS

    def _turn(self) -> float:
        ahead = self._intake.ahead(self._queue)
        if not self._window.wait_free(RECEIVE_PAUSE_SECONDS, ahead):
            return 0
        if not self._intake.may_receive():
            return RECEIVE_PAUSE_SECONDS
        self._intake.prepare(self._queue)
        self._receive(ahead)
        self._backoff = FIRST_RECEIVE_BACKOFF_SECONDS
        return 0

    def _failed(self, error: BaseException) -> float:
        logger.warning(
            "Cannot receive from %s: %s",
            self._queue,
            error,
            extra={"action": "queue_away"},
        )
        pause = self._backoff
        self._backoff = min(self._backoff * 2, MAX_RECEIVE_BACKOFF_SECONDS)
        return pause

    def _receive(self, ahead: int) -> None:
        room = self._window.free + ahead
        limit = max(1, min(room, self._transport.waiting_limit))
        received = self._transport.receive(
            self._queue, limit, self._transport.longest_wait
        )
        if not received:
            self._intake.found_empty(self._queue)
            return
        self._window.take(len(received))
        self._intake.accept(self._queue, received)
        if self._transport.waiting_limit == 1:
            self._receive_more()

    def _receive_more(self) -> None:
        """Fill the window, without waiting for messages."""
        room = self._window.reserve(RECEIVE_LIMIT)
        if not room:
            return
        received: list[Received] = []
        try:
            received = self._transport.receive(self._queue, room, 0)
        finally:
            self._window.release(room - len(received))
        if received:
            self._intake.accept(self._queue, received)
