"""Routing to waits: an event is given to each step that waits for it.

::

    event ──► event_deliver ──► waits, 500 at a time ──► run_wake ──► run messages
                   │                                         │
              new path sets: digests, again            waiters_remove

Every write can be repeated, so an event that is delivered again goes the same way and
wakes no run twice. An event that no step awaits costs nothing: the awaited names are a
part of the directory, and a router reads its version before it gives up an event.

To compare values the data has to be read. Encrypted data is opened here. Data in a blob
store is read here too, on a thread of its own and within some seconds, but only if a
wait for the name compares values. If it cannot be read, the event goes back to the
queue.
"""

from __future__ import annotations

import functools
import typing as t

from ..common.safe_logging import get_logger
from ..errors import PayloadMissing
from ..errors import UnavailableError
from ..messages import decode
from ..messages import EventMessage
from ..store.directory import Published
from ..store.replies import Woken
from ..store.waiters import Later
from ..store.waiters import NotTaken
from ..store.waiters import Paths
from ..store.waiters import Wait
from ..store.waiters import Waits
from .asking import Question
from .matching import content_at
from .outbox import Outbox
from .services import EngineServices

logger = get_logger(__name__)

#: Names whose path sets are remembered.
MAX_REMEMBERED = 1000


class WaitingSteps:
    """Gives events to the steps that wait for them."""

    def __init__(self, services: EngineServices, outbox: Outbox) -> None:
        self._services = services
        self._outbox = outbox
        #: The path sets of each name that were used last.
        self._paths: dict[str, tuple[str, ...]] = {}
        self._awaited: tuple[Published, frozenset[str]] = (
            Published(-1, {}),
            frozenset(),
        )

    def awaits(self, name: str, published: Published) -> bool:
        """Return whether steps wait for events called *name*, as far as is known."""
        if self._awaited[0] is not published:
            # The union: a function whose code is here counts even if the directory was
            # lost.
            own = {n for f in self._services.functions for n in f.awaits}
            self._awaited = (published, published.awaited | own)
        return name in self._awaited[1]

    def deliver(
        self, message: EventMessage, text: str, *, is_due: bool = False
    ) -> None:
        """Give an event to the steps that wait for it.

        :param text: The message as the queue had it.
        :param is_due: True if a sweep found that the event's time has come.
        :raises Exception: It was not given to all; it is to be delivered again.
        """
        after, limit = "0", ""
        paths = self._paths.get(message.name, ())
        digests = self._digests(message, paths)
        while True:
            reply = self._services.waiters.deliver(
                message.name,
                message.id,
                text,
                due=message.due,
                is_due=is_due,
                paths=paths,
                digests=digests,
                after=after,
                limit=limit,
            )
            match reply:
                case Later():
                    return
                case Paths():
                    paths = self._remember(message.name, reply.sets)
                    digests = self._digests(message, paths)
                case Waits():
                    came = message.id if is_due and not reply.next else ""
                    self._wake(message, text, reply, came)
                    if not reply.next:
                        return
                    after, limit = reply.next, reply.limit

    def deliver_due(self, name: str, event_id: str) -> None:
        """Give an event whose time has come to the steps that wait for it.

        :raises Exception: It was not given to all; its timer comes back.
        """
        text = self._services.waiters.coming(name, event_id)
        if text is None:
            self._services.waiters.remove(name, (), came=event_id)
            return
        message = decode(text)
        assert isinstance(message, EventMessage)
        self.deliver(message, text, is_due=True)

    def _remember(self, name: str, sets: tuple[str, ...]) -> tuple[str, ...]:
        if len(self._paths) >= MAX_REMEMBERED:
            self._paths.clear()
        self._paths[name] = sets
        return sets

    def _wake(self, message: EventMessage, text: str, reply: Waits, came: str) -> None:
        waiters = self._services.waiters
        answers = waiters.wake_all(
            message.name, reply.found, message.id, reply.seen, text
        )
        over: list[Wait] = []
        queued = []
        failure: Exception | None = None
        for wait, answer in zip(reply.found, answers, strict=True):
            match answer:
                case Exception():
                    failure = answer
                    continue
                case NotTaken(waits=True):
                    continue
                case Woken():
                    queued.append(
                        (wait.run, answer.function, answer.queue, answer.time)
                    )
            over.append(wait)
        self._outbox.send_runs(queued)
        # What is not removed is found again by the next event, and then settled.
        waiters.remove(message.name, over, came=came if failure is None else "")
        if failure is not None:
            raise failure

    def _digests(self, message: EventMessage, paths: t.Sequence[str]) -> list[str]:
        """Return the digests under which waits with these path sets may be found."""
        if not paths:
            return []
        opened = self._opened(message)
        if opened is None:
            return []
        contents = [content_at(each, opened.opened) for each in paths]
        return [
            digest
            for content in contents
            if content is not None
            for digest in self._services.payloads.index_digests(content)
        ]

    def _opened(self, message: EventMessage) -> EventMessage | None:
        """Return *message* with its data, ``None`` if that is lost.

        :raises UnavailableError: The data cannot be read now.
        """
        payloads = self._services.payloads
        if (opened := payloads.open_inline_event(message)) is not None:
            return opened
        read = functools.partial(payloads.open_event, message)
        [answer] = self._services.asker.ask([Question("data of an event", read)])
        if answer.late or answer.rests:
            raise UnavailableError(
                f"The blob store did not answer for event {message.id}."
            )
        if isinstance(answer.error, PayloadMissing):
            logger.error(
                "Event %s is given to no wait that compares values: %s",
                message.id,
                answer.error,
                extra={"action": "awaited_event_lost"},
            )
            return None
        if answer.error is not None:
            raise answer.error
        return t.cast(EventMessage, answer.value)
