"""Answers to the addresses that runs make with ``step.create_url``.

::

    GET  ──► the memo of the address, and if it has an answer ──► a page
    POST ──► the same ──► signal_put ──► the step that waits, or the run's inbox

A ``GET`` only reads. An answer is accepted once for an address: its id in the inbox is
derived from the address, and the inbox keeps a mark of what it says. So a repeat of the
same answer is told that it was accepted, also after the end, and another answer is
refused. The state server's clock decides if an answer came in time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import typing as t
from dataclasses import dataclass

from ..common.times import now_milliseconds
from ..errors import UnavailableError
from ..functions.address import Page
from ..functions.address import signal_of
from ..redis.errors import is_transient
from ..store.barrier import Barrier
from ..store.inbox import AddressState
from ..store.inbox import Inbox
from ..store.inbox import inbox_of
from ..store.inbox import InboxFull
from ..store.inbox import OtherMark
from ..store.memory_guard import MemoryGuard
from ..store.replies import Taken
from ..store.replies import Woken
from ..store.status import RunStatus
from .outbox import Outbox
from .services import EngineServices

T = t.TypeVar("T")

#: ``open`` takes an answer; ``answered`` has one; ``over`` takes none any more.
State = t.Literal["open", "answered", "over"]


@dataclass(frozen=True)
class ShownAddress:
    """An address as its page shows it.

    :param page: The texts of the page; ``None`` if they are gone.
    """

    state: State
    page: Page | None = None


class Answers:
    """Shows addresses, and takes answers to them, for code that is no run.

    :param inbox: The inboxes, over a connection that does not wait for long.
    :param within: Seconds for which an answer is tried, ``DURABLE_ACCEPT_TIMEOUT``.
    """

    def __init__(
        self,
        services: EngineServices,
        outbox: Outbox,
        inbox: Inbox,
        barrier: Barrier,
        memory: MemoryGuard,
        within: float,
    ) -> None:
        self._services = services
        self._outbox = outbox
        self._inbox = inbox
        self._barrier = barrier
        self._memory = memory
        self._within = within

    def look(self, run_id: str, step: str, token: str) -> ShownAddress:
        """Return the state of an address. Nothing is changed.

        :param run_id: The run that the address names.
        :param step: The step that the address names.
        :param token: The last part of the address.
        :raises UnavailableError: The state server does not answer.
        :raises PayloadError: The address is stored, and cannot be read here.
        """
        found = self._ask(lambda: self._inbox.look(run_id, step, signal_of(token)))
        known = self._read(found, token)
        if known is None:
            return ShownAddress("over")
        page, ends = known
        if found.answered:
            return ShownAddress("answered", page)
        finished = found.status is None or RunStatus(found.status).finished
        # By this host's clock. Only a page depends on it, and no answer.
        if finished or now_milliseconds() >= ends:
            return ShownAddress("over", page)
        return ShownAddress("open", page)

    def give(
        self, run_id: str, step: str, token: str, answer: dict[str, t.Any]
    ) -> t.Literal["accepted", "other", "over"]:
        """Give an answer to the run that made an address; it is the run's from then on.

        :param answer: An object of JSON.
        :returns: ``accepted``, now or before; ``other`` if another answer was; ``over``
            if the address takes none any more.
        :raises UnavailableError: It was not taken in time. It may have been all the
            same: giving it again is harmless.
        :raises PayloadError: The address is stored, and cannot be read here.
        """
        self._memory.check()
        signal = signal_of(token)
        found = self._ask(lambda: self._inbox.look(run_id, step, signal))
        known = self._read(found, token)
        if known is None:
            return "over"
        text = json.dumps(answer, sort_keys=True, separators=(",", ":"))
        # Nobody can tell from the mark what was answered, without the address.
        mark = hmac.digest(token.encode(), text.encode(), hashlib.sha256).hex()
        sealed = self._services.payloads.seal_text(text)
        barrier = self._barrier.mark() if self._services.write_through else None
        owner = inbox_of(run_id)
        reply = self._ask(
            lambda: self._inbox.put(
                owner, signal, signal, sealed, mark=mark, until=known[1]
            )
        )
        match reply:
            case Woken():
                queued = (reply.run, reply.function, reply.queue, reply.time)
                self._outbox.send_runs([queued])
                self._outbox.confirm_at_once()
            case Taken():
                pass
            case OtherMark():
                return "other"
            case InboxFull():
                raise UnavailableError("The run has as many signals as it may have.")
            case _:
                return "over"
        if barrier is not None:
            self._barrier.wait(barrier)
        return "accepted"

    def _ask(self, call: t.Callable[[], T]) -> T:
        """Call the state server until it answers, or the time is over."""
        until = time.monotonic() + self._within
        try:
            return self._services.retry_until_answered(call, until=until)
        except Exception as error:
            if not is_transient(error):
                raise
            raise UnavailableError(
                f"The state server does not answer: {error}"
            ) from error

    def _read(self, found: AddressState, token: str) -> tuple[Page, int] | None:
        """Return page and end of an address; ``None`` if the step has made another.

        A run that was removed, and started again for the same event, has other
        addresses than before.
        """
        if found.memo is None:
            return None
        payloads = self._services.payloads
        href = payloads.open(found.memo.answer)
        if not hmac.compare_digest(href.rpartition("/")[2].encode(), token.encode()):
            return None
        about = json.loads(payloads.open(found.memo.about))
        return Page(about["title"], about["text"], about["button"]), about["ends"]
