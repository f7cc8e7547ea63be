"""Sending what a state change owes: run messages and events.

The script that changed the state wrote an entry for each; here it is sent at once and
confirmed a little later, many at a time. Whatever dies in between leaves the entry, and
the sweeper sends it again: a message may be sent twice, never not at all.

A queue that hangs takes seconds to be given up, and whoever sends here has more to do:
the sweeper above all, who looks after the leases of all partitions. So after a send
that was waited for in vain nothing more is sent to that queue for as long as it took.
What was not sent meanwhile comes back with the sweeper.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import defaultdict
from dataclasses import replace

from ..queue.envelope import decode
from ..queue.envelope import EVENT_QUEUE
from ..queue.envelope import RunMessage
from ..safe_logging import get_logger
from ..store.run_store import RunStore
from ..store.run_store import TRANSIENT
from .host import MessageQueue

#: Seconds that a send goes on while the queue takes nothing: the sweeper goes on later.
PATIENCE = 0.1

logger = get_logger(__name__)


class Outbox:
    """Sends and confirms outbox entries for one process."""

    def __init__(self, store: RunStore, queue: MessageQueue) -> None:
        self._store = store
        self._queue = queue
        self._lock = threading.Lock()
        self._sent_runs: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._sent_events: dict[str, list[str]] = defaultdict(list)
        #: Until when nothing is sent to a queue.
        self._resting: dict[str, float] = {}

    def send_runs(self, runs: t.Iterable[t.Sequence[t.Any]]) -> set[str]:
        """Send run messages.

        :param runs: Id, function, queue and time of queueing (milliseconds) each.
        :returns: The ids of those runs whose messages were not taken.
        """
        unsent: set[str] = set()
        by_queue: dict[str, list[RunMessage]] = defaultdict(list)
        for run_id, function, queue, queued in runs:
            by_queue[queue].append(RunMessage(run_id, function, int(queued)))
        for queue, messages in by_queue.items():
            ordered = self._queue.is_ordered(queue)
            if ordered:
                sent = self._send_in_groups(queue, messages)
            else:
                sent = self._send(queue, [m.encode() for m in messages])
            with self._lock:
                for number in sent:
                    run, queued = messages[number].run, messages[number].queued
                    self._sent_runs[self._store.keys.tag_of(run)].append((run, queued))
            taken = {messages[number].run for number in sent}
            unsent |= {message.run for message in messages} - taken
        return unsent

    def _send_in_groups(self, queue: str, messages: list[RunMessage]) -> list[int]:
        """Send *messages* with the groups of their runs' events."""
        try:
            events = self._store.events_of([message.run for message in messages])
        except TRANSIENT as error:
            logger.warning(
                "Messages to %s will be sent later: %s",
                queue,
                error,
                extra={"action": "messages_deferred"},
            )
            return []
        return self._send(
            queue,
            [
                replace(message, group=decode(event).group if event else "").encode()
                for message, event in zip(messages, events, strict=True)
            ],
        )

    def send_events(self, entries: t.Iterable[t.Sequence[str]]) -> bool:
        """Send events that are owed, or were spooled.

        :param entries: The entry's name and the message text each.
        :returns: Whether all were taken.
        """
        pairs = list(entries)
        if not pairs:
            return True
        sent = self._send(EVENT_QUEUE, [text for _, text in pairs])
        with self._lock:
            for number in sent:
                entry = pairs[number][0]
                self._sent_events[self._store.keys.tag_of_entry(entry)].append(entry)
        return len(sent) == len(pairs)

    def confirm(self) -> None:
        """Take away what was sent since the last call.

        :raises redis.RedisError: The server did not answer; what it was asked to
            confirm is sent again later.
        """
        with self._lock:
            runs, self._sent_runs = self._sent_runs, defaultdict(list)
            events, self._sent_events = self._sent_events, defaultdict(list)
        for tag, sent in runs.items():
            self._store.confirm_runs(tag, sent)
        for tag, entries in events.items():
            self._store.confirm(tag, entries)

    def _send(self, queue: str, bodies: list[str]) -> list[int]:
        """Send *bodies*; return the numbers of those that the queue took."""
        began = time.monotonic()
        if began < self._resting.get(queue, 0.0):
            return []
        try:
            outcomes = self._queue.send(queue, bodies, patience=PATIENCE)
        except Exception as error:
            outcomes = [error] * len(bodies)
        refused = [error for error in outcomes if error is not None]
        if refused:
            logger.warning(
                "%d message(s) to %s will be sent again: %s",
                len(refused),
                queue,
                refused[0],
                extra={"action": "messages_deferred"},
            )
        took = time.monotonic() - began
        if len(refused) == len(bodies) and took > PATIENCE:
            self._resting[queue] = began + 2 * took
        return [number for number, refused in enumerate(outcomes) if refused is None]
