"""Sends the events that the application or a client hands over.

::

    checked ── no memory left, or nothing to confirm the state ──► failed
       │
    sealed ─── the blob store does not take what is large ───────► failed
       │       with what was added to it too large for the queue ► EventError, for good
       │
       ▼
    queue takes it ──────────────────────────► accepted ─┐ DURABLE_FSYNC="step":
       │ not within DURABLE_ACCEPT_TIMEOUT                 │ the barrier
       ▼                                                 │
    DURABLE_SPOOL: the outbox takes it ──────► spooled ──┤
       │ no, it is full, or the server is away           ├─► owned
       ▼                                                 │
    failed ◄───────────────────── not confirmed ─────────┘

An event is named ``accepted`` or ``spooled`` only when the queue or the outbox owns it.
One named ``failed`` may be owned nevertheless, if an answer was lost. Its id was fixed
before the first try, so sending it again makes no second run.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import replace

from ..common.interruption import shielded
from ..common.safe_logging import get_logger
from ..errors import EventError
from ..errors import PayloadUnavailable
from ..errors import UnavailableError
from ..messages import EVENT_QUEUE
from ..messages import EventMessage
from ..messages import MessageRefused
from ..messages import Outcome
from ..middleware import EventInfo
from ..middleware import MiddlewareChain
from ..middleware import SendInfo
from ..payloads.sealing import Payloads
from ..store.barrier import Barrier
from ..store.memory_guard import MemoryGuard
from ..store.spool import Spool
from .services import MessageQueue

logger = get_logger(__name__)


class EventSender:
    """Puts events on the event queue, or into the outbox.

    :param spool: The outbox for events that the queue does not take; ``None`` for none.
    :param group: The path of the value that events are grouped by, see
        :meth:`~flask_durable.messages.EventMessage.in_group`.
    :param write_through: True if an event is owned only when the state server has
        confirmed its writes (``DURABLE_FSYNC="step"``).
    """

    def __init__(
        self,
        queue: MessageQueue,
        payloads: Payloads,
        barrier: Barrier,
        memory: MemoryGuard,
        spool: Spool | None,
        middleware: MiddlewareChain,
        *,
        group: str | None = None,
        write_through: bool,
    ) -> None:
        self._queue = queue
        self._payloads = payloads
        self._barrier = barrier
        self._memory = memory
        self._spool = spool
        self._middleware = middleware
        self._group = group
        self._write_through = write_through

    def send(self, messages: t.Sequence[EventMessage]) -> list[Outcome]:
        """Send *messages*; return the owner of each, or why it has none.

        Any error is an answer: some events may be on the queue when it comes. Their ids
        are fixed, so the sender's repeat of all of them makes no second run.
        """
        if not messages:
            return []
        messages = [message.in_group(self._group) for message in messages]
        with shielded(), announced(self._middleware, messages) as (sending, traced):
            sending.outcomes = self._own(traced, sending)
        return list(sending.outcomes)

    def _own(
        self, messages: t.Sequence[EventMessage], sending: SendInfo
    ) -> list[Outcome]:
        try:
            self._memory.check()
            mark = self._barrier.mark() if self._write_through else None
            outcomes = self._seal_and_send(messages, sending)
            if self._write_through and any(isinstance(o, str) for o in outcomes):
                self._barrier.wait(mark)
        except Exception as error:
            return [error] * len(messages)
        return outcomes

    def _seal_and_send(
        self, messages: t.Sequence[EventMessage], sending: SendInfo
    ) -> list[Outcome]:
        sealed: list[tuple[str, str]] = []
        failed: dict[int, Outcome] = {}
        for number, message in enumerate(messages):
            try:
                sealed.append((message.id, self._payloads.seal_event(message)))
            except PayloadUnavailable as error:
                failed[number] = error
            else:
                # With its additions: headers, its group, its encryption.
                check_acceptable(self._queue, message, sealed[-1][1])
        sending.size = sum(len(text) for _, text in sealed)
        owned = iter(self._send_or_spool(sealed) if sealed else ())
        return [failed[n] if n in failed else next(owned) for n in range(len(messages))]

    def _send_or_spool(self, sealed: list[tuple[str, str]]) -> list[Outcome]:
        """Give events to the queue, otherwise to the spool.

        :param sealed: Id and text of each event.
        """
        errors = self._queue.send(EVENT_QUEUE, [text for _, text in sealed])
        outcomes: list[Outcome] = [
            _refused(id, error)
            if isinstance(error, MessageRefused)
            else error or "accepted"
            for (id, _), error in zip(sealed, errors, strict=True)
        ]
        refused = [
            number
            for number, error in enumerate(errors)
            # An event that the queue will never take would be tried for ever.
            if error is not None and self._queue.is_transient(error)
        ]
        if self._spool is None or not refused:
            return outcomes
        kept = self._spool.keep([sealed[number] for number in refused])
        for number, failure in zip(refused, kept, strict=True):
            outcomes[number] = _unowned(errors[number], failure) or "spooled"
        logger.warning(
            "The queue did not take %d event(s), and %d are kept in the outbox: %s",
            len(refused),
            outcomes.count("spooled"),
            errors[refused[0]],
            extra={"action": "event_spooled"},
        )
        return outcomes


def check_acceptable(queue: MessageQueue, message: EventMessage, text: str) -> None:
    """Check that *queue* may take an event.

    :param text: The event in the form that is sent.
    :raises EventError: The queue never takes it.
    """
    if (problem := queue.problem(text)) is not None:
        raise _refused(message.id, problem)


def _refused(id: str, problem: Exception) -> EventError:
    return EventError(
        f"The queue never takes the event {id}: {problem}.",
        errors=[{"field": "data", "message": f"is not taken by the queue: {problem}"}],
        hint="Send less data, or configure DURABLE_BLOB_URL for large events.",
    )


@contextlib.contextmanager
def announced(
    middleware: MiddlewareChain, messages: t.Sequence[EventMessage]
) -> t.Iterator[tuple[SendInfo, list[EventMessage]]]:
    """Surround the sending of *messages* with the hooks of middleware.

    :returns: The object that takes the outcomes, and the messages to be sent.
    """
    sending = SendInfo([event_info(message) for message in messages])
    with middleware.around_send(sending):
        if sending.headers:
            messages = [
                replace(message, headers={**message.headers, **sending.headers})
                for message in messages
            ]
        yield sending, list(messages)


def event_info(message: EventMessage) -> EventInfo:
    """Return the description of an event for middleware."""
    return EventInfo(message.name, message.id, message.at, message.headers)


def _unowned(queue: Exception | None, spool: Exception | None) -> Exception | None:
    """Return why neither took the event, or ``None`` if the spool did."""
    if spool is None:
        return None
    return UnavailableError(f"{queue}; and it is not spooled: {spool}")
