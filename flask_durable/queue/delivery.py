"""A received message, and its settlement."""

from __future__ import annotations

import threading
import time
import typing as t
from dataclasses import dataclass

from ..common.redelivery import pause_before
from ..messages import Message
from .transport import Received

#: Characters of a reason that are kept.
MAX_REASON = 500


@dataclass(frozen=True)
class Delete:
    """The message is done with."""


@dataclass(frozen=True)
class Release:
    """The message is handed back, to be received again after *delay* seconds."""

    delay: float


@dataclass(frozen=True)
class Leave:
    """The message is left where it is: it is no longer in flight here."""


@dataclass(frozen=True)
class Repeat:
    """The message is processed once more: the state that it led to may be lost."""


@dataclass(frozen=True)
class DeadLetter:
    """The message goes to the dead-letter queue, with *reason*."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """Processing it raised *error*: it is handed back, or dead after the last receive.

    :param about: The subject of the message; ``""`` if that is not known.
    """

    delay: float
    error: str
    about: str


Settlement = Delete | Release | Leave | Repeat | DeadLetter | Failed


def kept(reason: str) -> str:
    """Return the part of *reason* that is kept.

    It may quote a message: any text, of any length.
    """
    return reason[:MAX_REASON].encode("utf-8", "replace").decode()


class Settlements(t.Protocol):
    """The settled messages that are not carried out yet: the acknowledger."""

    def put(self, message: InFlightMessage) -> None:
        """Take over *message*, whose settlement is set. Does no I/O, cannot fail."""


class InFlightMessage:
    """A received message that this process answers for until it is settled.

    Settling it does no I/O and cannot fail: the acknowledger carries it out. The first
    settlement counts, later ones do nothing.

    :param queue: The queue that it came from.
    :param received: The message as the transport gave it.
    :param settlements: The taker of this object once it is settled.
    """

    def __init__(
        self, queue: str, received: Received, settlements: Settlements
    ) -> None:
        self.queue = queue
        self.received = received
        self.settlement: Settlement | None = None
        #: True if its visibility ran out: another consumer has it, or may have it.
        self.lost = False
        #: The time when it was received or extended last, on the monotonic clock.
        self.renewed = time.monotonic()
        self._settlements = settlements
        self._doubted = False
        self._lock = threading.Lock()

    @property
    def receive_count(self) -> int:
        """The number of times the message was received, this time included."""
        return self.received.receive_count

    def done(self) -> None:
        """Delete the message once everything written so far is durable.

        A doubted message is processed once more instead.
        """
        self._decide(Delete())

    def doubt(self) -> None:
        """Never delete the message: its effect may be written and lost."""
        with self._lock:
            self._doubted = True
            self.settlement = self._undoubted(self.settlement)

    def release(self, delay: float = 0.0) -> None:
        """Hand the message back, to be received again after *delay* seconds."""
        self._decide(Release(delay))

    def dead(self, reason: str) -> None:
        """Move the message to the dead-letter queue, with *reason* beside it."""
        self._decide(DeadLetter(kept(reason)))

    def leave(self) -> None:
        """Do nothing about the message: its visibility ran out before it was begun.

        It is visible again, or another consumer has it. Deleting or releasing it by a
        receipt that SQS may still take would lose the message, or deliver it twice.
        """
        self._decide(Leave())

    def unknown(self, why: str) -> None:
        """Hand the message back for a process of the release that knows its form.

        After its last receive it goes to the dead-letter queue, with *why*.
        """
        self._decide(Failed(pause_before(self.receive_count), kept(why), ""))

    def _decide(self, settlement: Settlement) -> None:
        with self._lock:
            if self.settlement is not None:
                return
            if self.lost and isinstance(settlement, (Release, Failed)):
                settlement = Leave()
            self.settlement = self._undoubted(settlement)
        self._settlements.put(self)

    def _undoubted(self, settlement: Settlement | None) -> Settlement | None:
        if self._doubted and settlement == Delete():
            return Repeat()
        return settlement


class Delivery(InFlightMessage):
    """A received message of ours, decoded.

    :param message: The decoded message.
    """

    def __init__(
        self,
        queue: str,
        received: Received,
        settlements: Settlements,
        message: Message,
    ) -> None:
        super().__init__(queue, received, settlements)
        self.message = message

    @property
    def text(self) -> str:
        """The message as it was received."""
        body = self.received.body
        return body if isinstance(body, str) else body.decode()

    def failed(self, error: BaseException, delay: float = 0.0) -> None:
        """Hand the message back after *delay* seconds, since processing it raised.

        After its last receive it goes to the dead-letter queue at once, with *error* in
        the reason: SQS, which would move it, does not know the error.
        """
        what = kept(f"{type(error).__name__}: {error}")
        self._decide(Failed(delay, what, self.message.key))

    def __repr__(self) -> str:
        kind = type(self.message).__name__
        return f"<Delivery {kind} from {self.queue!r}, receive {self.receive_count}>"
