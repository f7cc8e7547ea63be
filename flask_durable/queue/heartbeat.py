"""The messages in hand, and the thread that keeps them hidden from others."""

from __future__ import annotations

import threading
import time
import typing as t
from collections import defaultdict

from ..loops import Loop
from ..safe_logging import get_logger
from .delivery import Delete
from .delivery import Held
from .transport import ReceiptLost
from .transport import Transport

logger = get_logger(__name__)

#: Seconds between two beats, at most.
MAX_PAUSE = 0.5


class Hand:
    """What this process received and has not deleted or given back yet.

    A message whose visibility is a third over is extended, also while it waits to be
    deleted. One that another consumer has by then is marked lost.

    :param transport: Where the messages are from.
    :param each_beat: Called about once a second while anything is held.
    """

    def __init__(
        self, transport: Transport, each_beat: t.Callable[[], None] = lambda: None
    ) -> None:
        #: Held while visibilities change, so that an extension on its way cannot hide
        #: a message that was just released.
        self.changing = threading.Lock()
        self._transport = transport
        self._each_beat = each_beat
        self._held: set[Held] = set()
        self._queues: set[str] = set()
        self._pause = MAX_PAUSE
        self._lock = threading.Lock()
        self.loop = Loop("durable-heartbeat", self._turn, self._failed)

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: t.Iterable[Held]) -> None:
        """Answer for *held* from now on."""
        with self._lock:
            for one in held:
                self._held.add(one)
                if one.queue not in self._queues:
                    self._meet(one.queue)
            if not self.loop.started and self._held:
                self.loop.start(self._pause)

    def remove(self, held: t.Iterable[Held]) -> None:
        """Answer for *held* no longer."""
        with self._lock:
            self._held.difference_update(held)

    def doubt(self) -> None:
        """Let nothing that is held now be deleted: it is given back instead."""
        with self._lock:
            held = list(self._held)
        for one in held:
            one.doubt()

    def extend(self) -> None:
        """Extend what was last received or extended a third of its visibility ago."""
        queues: dict[str, list[Held]] = defaultdict(list)
        with self._lock:
            for held in self._held:
                queues[held.queue].append(held)
        now = time.monotonic()
        with self.changing:
            for queue, messages in queues.items():
                before = now - self._transport.visibility(queue) / 3
                self._extend(
                    queue,
                    [
                        held
                        for held in messages
                        if held.renewed <= before
                        and held.settlement in (None, Delete())
                    ],
                )

    def close(self) -> None:
        """Stop extending."""
        self.loop.stop(1)

    def _extend(self, queue: str, messages: list[Held]) -> None:
        if not messages:
            return
        now = time.monotonic()
        receipts = [held.received.receipt for held in messages]
        visibility = self._transport.visibility(queue)
        outcomes = self._transport.extend(queue, receipts, visibility)
        for held, error in zip(messages, outcomes, strict=True):
            if error is None:
                held.renewed = now
            elif isinstance(error, ReceiptLost):
                # What was deleted meanwhile is not there any more, which is no loss.
                held.lost = held.settlement is None
                self.remove([held])
            else:
                logger.warning(
                    "A message of %s was not extended: %s",
                    queue,
                    error,
                    extra={"action": "message_not_extended"},
                )

    def _meet(self, queue: str) -> None:
        self._queues.add(queue)
        # Half of the age at which a message is due: one that just missed a beat is
        # extended at half of its visibility, and twice more before it runs out.
        self._pause = min(self._pause, self._transport.visibility(queue) / 6)

    def _turn(self) -> float:
        try:
            self.extend()
        finally:
            self._each_beat()
        return self._pause

    def _failed(self, error: BaseException) -> float:
        logger.error(
            "A beat over the messages in hand failed",
            exc_info=error,
            extra={"action": "heartbeat_failed"},
        )
        return self._pause
