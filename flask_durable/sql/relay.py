"""The relay: sends the events that transactions have stored, and removes old rows.

The process that commits sends its events at once, and removes their rows. What is left,
because it died or the queue took nothing, is found by workers. Each looks at the table
every few seconds, and takes the rows that it has seen in the look before: the others
may be on their way. No clock is compared.

Rows are locked while their events are sent, and locked rows are skipped, so that one
process sends a row at a time. Where a database has no such locks (SQLite), two may send
it: the event's id is fixed, so it starts nothing twice. The same holds for a process
that dies between the queue's answer and the removal.

A row of ``durable_steps`` is needed as long as its run is there, also a failed one,
which may be retried. So workers remove the rows of runs that the state server has
removed, once an hour: none is younger than the time that finished runs are kept.
"""

from __future__ import annotations

import time
import typing as t

from sqlalchemy import and_
from sqlalchemy import Connection
from sqlalchemy import delete
from sqlalchemy import Engine
from sqlalchemy import or_
from sqlalchemy import select
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from ..common.loops import Loop
from ..common.loops import moved
from ..common.safe_logging import get_logger
from ..errors import ConfigurationError
from ..errors import EventError
from ..messages import decode
from ..messages import EventMessage
from ..messages import Outcome
from ..messages import UndecodableMessage
from ..messages import UnknownForm
from .tables import explain_missing
from .tables import OWN

#: Seconds between two looks for events.
INTERVAL = 5.0

#: Seconds between two looks while the database does not answer.
REST = 30.0

#: Seconds between two removals of old rows.
CLEAN_INTERVAL = 3600.0

#: Events that are sent under one lock, and rows that are found by one look.
SEND_BATCH = 100
LOOK_LIMIT = 1000

#: Steps whose runs are looked up together.
CLEAN_BATCH = 500

_steps, _events = OWN

logger = get_logger(__name__)


class Relay:
    """Sends stored events of one app, and removes what is no longer needed.

    :param namespace: The app's namespace.
    :param engine: The engine of the app's database, for workers.
    :param send: The sender; it returns the owner of each event, or why it has none.
    :param open_event: The gate that decrypts an event's data.
    :param events_of: The look for runs by id: ``None`` for each that is gone.
    :param kept: Seconds that finished runs are kept at least.
    """

    def __init__(
        self,
        namespace: str,
        engine: Engine | None,
        *,
        send: t.Callable[[t.Sequence[EventMessage]], list[Outcome]],
        open_event: t.Callable[[EventMessage], EventMessage],
        events_of: t.Callable[[t.Sequence[str]], list[str | None]],
        kept: float,
    ) -> None:
        self.namespace = namespace
        self.engine = engine
        self._send = send
        self._open_event = open_event
        self._events_of = events_of
        self._kept = kept
        self._seen: set[str] = set()
        self._cleaned = 0.0
        self._loop = Loop("durable-relay", self._turn, self._failed)

    def start(self) -> None:
        """Look at the tables on a thread of its own."""
        self._loop.start(INTERVAL)

    def stop_soon(self) -> None:
        """Let the thread end where it is: other workers find what is left."""
        self._loop.stopping.set()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread.

        :param timeout: Seconds to wait for it; ``None`` waits as long as it takes.
        """
        self._loop.stop(timeout)

    def tick(self) -> None:
        """Do all work that is due, for a process that may be gone before a second look.

        A database that does not answer is no reason to fail the other work of a tick.
        """
        try:
            self.sweep(patient=False)
            self.clean()
        except Exception as error:
            self._failed(error)

    def send_committed(self, engine: Engine, ids: t.Sequence[str]) -> None:
        """Send the events of a transaction that was committed a moment ago.

        An error is not the committer's: its transaction stands, and workers send them.
        """
        try:
            for start in range(0, len(ids), SEND_BATCH):
                if not self._send_rows(engine, ids[start : start + SEND_BATCH]):
                    return
        except Exception as error:
            logger.warning(
                "%d stored event(s) are left to the workers: %s",
                len(ids),
                error,
                extra={"action": "event_left"},
            )

    def sweep(self, *, patient: bool = True) -> None:
        """Send what other processes have left.

        :param patient: True to send only what was there at the look before.
        """
        assert self.engine is not None
        mine = and_(_events.c.namespace == self.namespace, _events.c.error.is_(None))
        look = select(_events.c.id).where(mine).order_by(_events.c.at, _events.c.id)
        with self.engine.connect() as connection:
            found = list(connection.scalars(look.limit(LOOK_LIMIT)))
        due = [id for id in found if id in self._seen] if patient else found
        self._seen = set(found)
        for start in range(0, len(due), SEND_BATCH):
            moved()
            if self._loop.stopping.is_set():
                return
            if not self._send_rows(self.engine, due[start : start + SEND_BATCH]):
                return  # the others would be refused as well

    def clean(self) -> None:
        """Remove the rows of steps whose runs are gone."""
        assert self.engine is not None
        before = int((time.time() - self._kept) * 1000)
        last = (0, "")
        while not self._loop.stopping.is_set():
            moved()
            with self.engine.begin() as connection:
                rows = self._old_steps(connection, before, last)
                if not rows:
                    return
                runs = list({row.run for row in rows})
                events = zip(runs, self._events_of(runs), strict=True)
                gone = {run for run, event in events if event is None}
                ids = [row.id for row in rows if row.run in gone]
                connection.execute(delete(_steps).where(_steps.c.id.in_(ids)))
            last = (rows[-1].at, rows[-1].id)

    def _old_steps(
        self, connection: Connection, before: int, last: tuple[int, str]
    ) -> t.Sequence[t.Any]:
        """Return the next rows after *last* in the order of their age."""
        at, id = _steps.c.at, _steps.c.id
        query = (
            select(id, _steps.c.run, at)
            .where(_steps.c.namespace == self.namespace, at < before)
            .where(or_(at > last[0], and_(at == last[0], id > last[1])))
            .order_by(at, id)
            .limit(CLEAN_BATCH)
        )
        return connection.execute(query).all()

    def _send_rows(self, engine: Engine, ids: t.Sequence[str]) -> bool:
        """Send events and remove their rows; return False if the queue refused some.

        Rows that another process sends, or that are gone, are passed over. So is an
        event that cannot be read here: others are not to wait for its keys.
        """
        query = (
            select(_events.c.id, _events.c.message)
            .where(_events.c.id.in_(ids), _events.c.error.is_(None))
            .order_by(_events.c.at, _events.c.id)
            .with_for_update(skip_locked=True)
        )
        with engine.begin() as connection:
            rows = connection.execute(query).all()
            if not rows:
                return True
            outcomes, refused = self._outcomes([row.message for row in rows])
            sent = [
                row.id
                for row, outcome in zip(rows, outcomes, strict=True)
                if isinstance(outcome, str)
            ]
            connection.execute(delete(_events).where(_events.c.id.in_(sent)))
            left = []
            for row, outcome in zip(rows, outcomes, strict=True):
                if _is_final(outcome):
                    self._set_aside(connection, row.id, outcome)
                elif isinstance(outcome, Exception):
                    left.append(outcome)
        if left:
            logger.warning(
                "%d stored event(s) are left for later: %s",
                len(left),
                left[0],
                extra={"action": "event_left"},
            )
        return not refused

    def _outcomes(self, texts: t.Sequence[str]) -> tuple[list[Outcome], bool]:
        """Send messages; return for each its owner, or why it has none.

        :returns: Beside those True if the queue refused one that it may take later.
        """
        outcomes: dict[int, Outcome] = {}
        opened: dict[int, EventMessage] = {}
        results: list[Outcome] = []
        for number, text in enumerate(texts):
            try:
                message = decode(text)
                if not isinstance(message, EventMessage):
                    raise UndecodableMessage("not an event")
                opened[number] = self._open_event(message)
            except Exception as error:
                outcomes[number] = error
        if opened:
            results = self._send(list(opened.values()))
            if any(isinstance(result, EventError) for result in results):
                # One event that is refused for good stops all of its batch. Those that
                # were taken before are taken again, which starts nothing.
                results = [self._send([message])[0] for message in opened.values()]
            outcomes |= dict(zip(opened, results, strict=True))
        refused = any(
            isinstance(result, Exception) and not _is_final(result)
            for result in results
        )
        return [outcomes[number] for number in range(len(texts))], refused

    def _set_aside(self, connection: Connection, id: str, error: Outcome) -> None:
        """Keep an event that is never taken for a person."""
        logger.error(
            "A stored event is never taken, and its row %s is kept: %s",
            id,
            error,
            extra={"action": "event_set_aside"},
        )
        change = update(_events).where(_events.c.id == id)
        connection.execute(change.values(error=str(error)))

    def _turn(self) -> float:
        self.sweep()
        if time.monotonic() - self._cleaned >= CLEAN_INTERVAL or not self._cleaned:
            self.clean()
            self._cleaned = time.monotonic()
        return INTERVAL

    def _failed(self, error: BaseException) -> float:
        if isinstance(error, SQLAlchemyError) and self.engine is not None:
            try:
                explain_missing(error, self.engine)
            except ConfigurationError as explained:
                error = explained
        logger.warning(
            "The tables of the app's database are not looked at: %s",
            error,
            extra={"action": "relay_failed"},
        )
        return REST


def _is_final(outcome: Outcome) -> bool:
    """Return whether a later try would fail as well."""
    if isinstance(outcome, UnknownForm):
        return False  # a worker of another release knows it
    return isinstance(outcome, EventError | UndecodableMessage)
