"""The thread that receives from one queue while run threads are free, or soon are."""

from __future__ import annotations

import threading
import typing as t

from ..common.loops import Loop
from ..common.safe_logging import get_logger
from .transport import Received
from .transport import Transport
from .window import Window

logger = get_logger(__name__)

#: Seconds between two looks at whether receiving is allowed again.
PAUSE = 0.25

#: Seconds before the first repetition of a failed receive, and the longest such pause.
FIRST_BACKOFF = 0.1
MAX_BACKOFF = 5.0

#: The largest number of messages of one receive.
MOST = 10


class Receiver:
    """Receives as many messages as the window has room for.

    Waiting for a message reserves no slot: an idle queue would keep it from a busy one.

    :param queue: The queue's name.
    :param transport: The transport of the queue.
    :param declare: Has a queue made before its first receive.
    :param window: The free run threads.
    :param ahead: Returns the number of messages to fetch beyond free threads.
    :param allowed: Returns True while receiving is allowed.
    :param accept: Called with received messages whose slots are taken. It frees the
        slots, whatever happens.
    :param empty: Called when there was nothing to receive.
    :param stopping: Set when the thread is to end.
    """

    def __init__(
        self,
        queue: str,
        transport: Transport,
        window: Window,
        *,
        declare: t.Callable[[str], None],
        ahead: t.Callable[[str], int],
        allowed: t.Callable[[], bool],
        accept: t.Callable[[str, list[Received]], None],
        empty: t.Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        name = f"durable-receiver-{queue}"
        self.loop = Loop(name, self._turn, self._failed, stopping=stopping)
        self._queue = queue
        self._transport = transport
        self._window = window
        self._ahead = ahead
        self._allowed = allowed
        self._accept = accept
        self._empty = empty
        self._declare = declare
        self._backoff = FIRST_BACKOFF

    def _turn(self) -> float:
        ahead = self._ahead(self._queue)
        if not self._window.wait_free(PAUSE, ahead):
            return 0
        if not self._allowed():
            return PAUSE
        self._declare(self._queue)
        self._receive(ahead)
        self._backoff = FIRST_BACKOFF
        return 0

    def _failed(self, error: BaseException) -> float:
        logger.warning(
            "Cannot receive from %s: %s",
            self._queue,
            error,
            extra={"action": "queue_away"},
        )
        pause = self._backoff
        self._backoff = min(self._backoff * 2, MAX_BACKOFF)
        return pause

    def _receive(self, ahead: int) -> None:
        room = self._window.free + ahead
        limit = max(1, min(room, self._transport.waiting_limit))
        received = self._transport.receive(
            self._queue, limit, self._transport.longest_wait
        )
        if not received:
            self._empty(self._queue)
            return
        self._window.take(len(received))
        self._accept(self._queue, received)
        if self._transport.waiting_limit == 1:
            self._receive_more()

    def _receive_more(self) -> None:
        """Fill the window, without waiting for messages."""
        room = self._window.reserve(MOST)
        if not room:
            return
        received: list[Received] = []
        try:
            received = self._transport.receive(self._queue, room, 0)
        finally:
            self._window.release(room - len(received))
        if received:
            self._accept(self._queue, received)
