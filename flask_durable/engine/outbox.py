"""Sending what a state change owes: run messages and events.

The script that changed the state wrote an entry for each; here it is sent at once and
confirmed a little later, many at a time. Whatever dies in between leaves the entry, and
the sweeper sends it again: a message may be sent twice, never not at all.
"""

from __future__ import annotations

import logging
import threading
import typing as t
from collections import defaultdict

from ..queue.envelope import EVENT_QUEUE
from ..queue.envelope import RunMessage
from ..store.run_store import RunStore
from .host import MessageQueue

logger = logging.getLogger(__name__)


class Outbox:
    """Sends and confirms outbox entries for one process."""

    def __init__(self, store: RunStore, queue: MessageQueue) -> None:
        self._store = store
        self._queue = queue
        self._lock = threading.Lock()
        self._sent: dict[str, list[str]] = defaultdict(list)

    def send_runs(self, runs: t.Iterable[t.Sequence[t.Any]]) -> None:
        """Send run messages.

        :param runs: Id, function, queue and time of queueing (milliseconds) each.
        """
        by_queue: dict[str, list[RunMessage]] = defaultdict(list)
        for run_id, function, queue, queued in runs:
            by_queue[queue].append(RunMessage(run_id, function, int(queued)))
        for queue, messages in by_queue.items():
            self._send(
                queue,
                [message.encode() for message in messages],
                [(m.run, f"run:{m.run}") for m in messages],
            )

    def send_events(self, entries: t.Iterable[t.Sequence[str]]) -> None:
        """Send events that are owed.

        :param entries: The entry's name and the message text each.
        """
        pairs = list(entries)
        if pairs:
            owners = [(name.split(":")[1], name) for name, _ in pairs]
            self._send(EVENT_QUEUE, [text for _, text in pairs], owners)

    def confirm(self) -> None:
        """Take away what was sent since the last call.

        :raises redis.RedisError: The server did not answer; what it was asked to
            confirm is sent again later.
        """
        with self._lock:
            sent, self._sent = self._sent, defaultdict(list)
        for tag, entries in sent.items():
            self._store.confirm(tag, entries)

    def _send(
        self, queue: str, bodies: list[str], entries: list[tuple[str, str]]
    ) -> None:
        try:
            outcomes = self._queue.send(queue, bodies)
        except Exception as error:
            outcomes = [error] * len(bodies)
        for (run_id, entry), outcome in zip(entries, outcomes, strict=True):
            if outcome is None:
                with self._lock:
                    self._sent[self._store.keys.tag_of(run_id)].append(entry)
            else:
                logger.warning("Could not send %s, will try again: %s", entry, outcome)
