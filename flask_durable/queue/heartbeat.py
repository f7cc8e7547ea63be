"""The messages in hand, and the thread that keeps them hidden from others."""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from collections import defaultdict

from .delivery import Delete
from .delivery import Held
from .transport import ReceiptLost
from .transport import Transport

logger = logging.getLogger(__name__)


class Hand:
    """What this process received and has not deleted or given back yet.

    A message whose visibility is a third over is extended, also while it waits to be
    deleted. One that another consumer has by then is marked lost.

    :param transport: Where the messages are from.
    :param visibility: Seconds that an extension hides a message.
    """

    def __init__(self, transport: Transport, visibility: float) -> None:
        #: Held while visibilities change, so that an extension on its way cannot hide
        #: a message that was just released.
        self.changing = threading.Lock()
        self._transport = transport
        self._visibility = visibility
        self._held: set[Held] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: t.Iterable[Held]) -> None:
        """Answer for *held* from now on."""
        with self._lock:
            self._held.update(held)
            if self._thread is None and self._held:
                self._thread = threading.Thread(
                    target=self._beat, name="durable-heartbeat", daemon=True
                )
                self._thread.start()

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
        before = time.monotonic() - self._visibility / 3
        with self._lock:
            due = [held for held in self._held if held.renewed <= before]
        with self.changing:
            queues: dict[str, list[Held]] = defaultdict(list)
            for held in due:
                if held.settlement in (None, Delete()):
                    queues[held.queue].append(held)
            for queue, messages in queues.items():
                self._extend(queue, messages)

    def close(self) -> None:
        """Stop extending."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(1)

    def _extend(self, queue: str, messages: list[Held]) -> None:
        now = time.monotonic()
        receipts = [held.received.receipt for held in messages]
        outcomes = self._transport.extend(queue, receipts, self._visibility)
        for held, error in zip(messages, outcomes, strict=True):
            if error is None:
                held.renewed = now
            elif isinstance(error, ReceiptLost):
                # What was deleted meanwhile is not there any more, which is no loss.
                held.lost = held.settlement is None
                self.remove([held])
            else:
                logger.warning("A message of %s was not extended: %s", queue, error)

    def _beat(self) -> None:
        # Half of the age at which a message is due: one that just missed a beat is
        # extended at half of its visibility, and twice more before it runs out.
        while not self._closed.wait(self._visibility / 6):
            try:
                self.extend()
            except Exception:
                logger.exception("Messages in hand were not extended")
