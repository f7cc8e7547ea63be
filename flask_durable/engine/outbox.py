"""Sends the messages that a state change owes: run messages and events.

The script that changed the state wrote an entry for each message. Here each is sent at
once and confirmed a little later, many at a time. If the process dies in between, the
entry stays and the sweeper sends it again. So a message may be sent twice, but is never
lost.

It takes long to give up a queue that hangs, and the sweeper has more to do: it looks
after the leases of all partitions. So a thread for each queue sends what a sweep found,
and the sweep waits for it only a moment. A queue that took nothing *rests*, for longer
each time. The sweep leaves the entries of such a queue where they are.

=====================  ================================================================
a send                 then the queue
=====================  ================================================================
took at least one      is sent to as before
took none, at once     rests for 1 s, 2 s, 4 s, 5 s, 5 s, …
took none, in *t*      rests for 2, 4, 8, 8, … times *t*
is under way           counts as resting
=====================  ================================================================
"""

from __future__ import annotations

import functools
import threading
import time
import typing as t
from collections import defaultdict
from dataclasses import replace

from ..common.safe_logging import get_logger
from ..errors import UnavailableError
from ..messages import decode
from ..messages import EVENT_QUEUE
from ..messages import EventMessage
from ..messages import MessageRefused
from ..messages import RunMessage
from ..messages import UndecodableMessage
from ..redis.errors import log_failure
from ..redis.errors import TRANSIENT
from ..store.replies import Finished
from ..store.run_reader import Record
from ..store.run_store import RunStore
from .services import MessageQueue

#: Seconds that a send goes on while the queue takes nothing; the sweeper tries later.
PATIENCE = 0.1

#: Seconds that a queue rests after it refused at once: the first time, and at most.
FIRST_REST = 1.0
LONGEST_REST = 5.0

#: Seconds that a sweep waits for the sends of what it found.
SWEEP_PATIENCE = 1.0

logger = get_logger(__name__)


class Outbox:
    """Sends and confirms outbox entries for one process."""

    def __init__(self, store: RunStore, queue: MessageQueue) -> None:
        self._store = store
        self._queue = queue
        self._lock = threading.Lock()
        self._sent_runs: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._sent_events: dict[str, list[str]] = defaultdict(list)
        #: By queue: the end of its rest, and the number of refusals in a row.
        self._resting: dict[str, float] = {}
        self._refusals: dict[str, int] = {}
        #: Queues that a thread of a sweep is sending to.
        self._under_way: set[str] = set()
        self._threaded = False

    def start(self) -> None:
        """Send the messages of sweeps on threads of their own from now on."""
        self._threaded = True

    @property
    def resting(self) -> set[str]:
        """The queues that a sweep leaves alone now."""
        now = time.monotonic()
        with self._lock:
            found = {queue for queue, until in self._resting.items() if now < until}
            return found | self._under_way

    def send_swept(
        self, runs: t.Iterable[t.Sequence[t.Any]], events: t.Sequence[t.Sequence[str]]
    ) -> None:
        """Send the messages that a sweep found. A later sweep finds those not taken.

        :param runs: The runs, as in :meth:`send_runs`.
        :param events: The events, as in :meth:`send_events`.
        """
        jobs: dict[str, t.Callable[[], object]] = {}
        by_queue: dict[str, list[t.Sequence[t.Any]]] = defaultdict(list)
        for run in runs:
            by_queue[run[2]].append(run)
        for queue, owed in by_queue.items():
            jobs[queue] = functools.partial(self.send_runs, owed)
        if events:
            jobs[EVENT_QUEUE] = functools.partial(self.send_events, events)
        if not self._threaded:
            for job in jobs.values():
                job()
            return
        threads = [self._send_apart(queue, job) for queue, job in jobs.items()]
        deadline = time.monotonic() + SWEEP_PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _send_apart(self, queue: str, job: t.Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                job()
            except Exception as error:
                log_failure(logger, f"send to {queue}", error)
            finally:
                with self._lock:
                    self._under_way.discard(queue)

        with self._lock:
            self._under_way.add(queue)
        thread = threading.Thread(target=run, name="durable-outbox", daemon=True)
        try:
            thread.start()
        except BaseException:  # such as no memory for another thread
            with self._lock:
                self._under_way.discard(queue)
            raise
        return thread

    def send_runs(self, runs: t.Iterable[t.Sequence[t.Any]]) -> set[str]:
        """Send run messages.

        :param runs: Id, function, queue and time of queueing (milliseconds) of each.
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
                for number in _taken(sent):
                    run, queued = messages[number].run, messages[number].queued
                    self._sent_runs[self._store.keys.tag_of(run)].append((run, queued))
            taken = {messages[number].run for number in _taken(sent)}
            unsent |= {message.run for message in messages} - taken
        return unsent

    def _send_in_groups(
        self, queue: str, messages: list[RunMessage]
    ) -> list[Exception | None]:
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
            return [error] * len(messages)
        return self._send(
            queue,
            [
                replace(message, group=decode(event).group if event else "").encode()
                for message, event in zip(messages, events, strict=True)
            ],
        )

    def send_events(self, entries: t.Iterable[t.Sequence[str]]) -> bool:
        """Send events that are owed, or were spooled.

        An event that the queue never takes, as it is too large, becomes a dead letter.

        :param entries: Name of the entry and message text of each event.
        :returns: True if each was taken or is a dead letter.
        """
        pairs = list(entries)
        if not pairs:
            return True
        sent = self._send(EVENT_QUEUE, [text for _, text in pairs])
        over = [
            entry
            for (entry, text), error in zip(pairs, sent, strict=True)
            if error is None
            or (isinstance(error, MessageRefused) and self._put_aside(text, error))
        ]
        with self._lock:
            for entry in over:
                self._sent_events[self._store.keys.tag_of_entry(entry)].append(entry)
        return len(over) == len(pairs)

    def _put_aside(self, text: str, error: MessageRefused) -> bool:
        """Make a dead letter of an event that its queue never takes.

        :returns: True if it is settled. If the dead letters never take it either, the
            log alone tells of it.
        """
        try:
            message = decode(text)
            name = message.name if isinstance(message, EventMessage) else message.key
            about = f"The event {name} ({message.key})"
        except UndecodableMessage:
            about = "An event"
        outcome = "is a dead letter"
        try:
            self._queue.send_dead(EVENT_QUEUE, text, f"never taken: {error}")
        except MessageRefused as problem:
            outcome = f"is dropped, since it is no dead letter ({problem})"
        except Exception as problem:
            logger.warning(
                "%s, which its queue never takes, will be a dead letter later: %s",
                about,
                problem,
                extra={"action": "messages_deferred"},
            )
            return False
        logger.error(
            "%s %s: its queue never takes it: %s",
            about,
            outcome,
            error,
            extra={"action": "event_never_taken"},
        )
        return True

    def confirm(self) -> None:
        """Remove the entries that were sent since the last call.

        :raises redis.RedisError: Some partition did not answer; its entries are sent
            again later.
        """
        with self._lock:
            runs, self._sent_runs = self._sent_runs, defaultdict(list)
            events, self._sent_events = self._sent_events, defaultdict(list)
        failures: list[Exception] = []
        for tag in {*runs, *events}:
            try:
                if runs[tag]:
                    self._store.confirm_runs(tag, runs[tag])
                if events[tag]:
                    self._store.confirm_events(tag, events[tag])
            except TRANSIENT as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def confirm_at_once(self) -> None:
        """Confirm what was sent, or log that the state server did not answer.

        For a process that is no worker: it has no sweeper that confirms a little later.
        """
        try:
            self.confirm()
        except TRANSIENT as error:
            logger.warning(
                "Sent messages are not confirmed: %s",
                error,
                extra={"action": "send_unconfirmed"},
            )

    def _send(self, queue: str, bodies: list[str]) -> list[Exception | None]:
        """Send *bodies*; return for each why the queue did not take it, or ``None``."""
        began = time.monotonic()
        if began < self._resting.get(queue, 0.0):
            resting = UnavailableError(f"{queue} took nothing a moment ago")
            return [resting] * len(bodies)
        try:
            outcomes = self._queue.send(queue, bodies, patience=PATIENCE)
        except Exception as error:
            outcomes = [error] * len(bodies)
        refused = [
            error
            for error in outcomes
            if error is not None and not isinstance(error, MessageRefused)
        ]
        if refused:
            logger.warning(
                "%d message(s) to %s will be sent again: %s",
                len(refused),
                queue,
                refused[0],
                extra={"action": "messages_deferred"},
            )
        self._note(queue, took_none=len(refused) == len(bodies), began=began)
        return outcomes

    def _note(self, queue: str, *, took_none: bool, began: float) -> None:
        """Let a queue rest that took nothing, or end its rests."""
        with self._lock:
            if not took_none:
                self._refusals.pop(queue, None)
                self._resting.pop(queue, None)
                return
            now = time.monotonic()
            refusals = self._refusals[queue] = self._refusals.get(queue, 0) + 1
            doubled = 2.0 ** min(refusals - 1, 10)
            at_once = min(FIRST_REST * doubled, LONGEST_REST)
            waited = 2 * (now - began) * min(doubled, 4)
            self._resting[queue] = now + max(at_once, waited)


def parent_of(
    record: Record, queued: int, branch: str = ""
) -> tuple[str, str, str, int]:
    """Return the parent of a run, as :meth:`Outbox.send_runs` takes it.

    :param record: The record of the child, or the branch.
    :param queued: The time when the parent was queued.
    :param branch: The branch that was queued in its place.
    """
    # A branch has the function and the queue of its parent, and of the other branches.
    function, queue = record["function"], record["queue"]
    if branch:
        return branch, function, queue, queued
    function = record.get("parent_function", function)
    queue = record.get("parent_queue", queue)
    return record["parent"], function, queue, queued


def queued_with(
    record: Record, handler: tuple[str, str, str], finished: Finished
) -> list[tuple[str, str, str, int]]:
    """Return the runs that the end of a run queued, as :meth:`Outbox.send_runs` does.

    :param handler: Id, function and queue of the failure handler's run.
    """
    queued = [(*handler, finished.handler)] if finished.handler else []
    if finished.parent:
        queued.append(parent_of(record, finished.parent, finished.branch))
    return queued


def _taken(outcomes: t.Sequence[Exception | None]) -> list[int]:
    """Return the numbers of the messages that were taken."""
    return [number for number, error in enumerate(outcomes) if error is None]
