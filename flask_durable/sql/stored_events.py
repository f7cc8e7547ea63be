"""Events that are stored with a transaction, and sent after its commit.

::

    send(session=…) ──► a row, in the transaction ── rolled back ──► nothing was sent
                           │ committed
                           ▼
                        sent at once, by this process ── taken ──► the row is removed
                           │ it died, or the queue took nothing
                           ▼
                        sent by a worker, see ``relay.py``

The ids of events are fixed when they are stored. So one that is sent twice, as its row
was not removed, starts nothing twice.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass
from dataclasses import field

from sqlalchemy import event
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import scoped_session
from sqlalchemy.orm import Session
from sqlalchemy.orm import SessionTransaction

from ..common.ids import new_event_id
from .relay import Relay
from .tables import explain_missing
from .tables import OWN

#: The key of the pending events in ``session.info``.
_PENDING = "flask_durable.events"


@dataclass
class _Pending:
    """The events that a session has stored in its current transaction."""

    relay: Relay
    ids: list[str] = field(default_factory=list)
    committed: bool = False


def store(
    relay: Relay, session: Session | scoped_session[t.Any], texts: t.Sequence[str]
) -> None:
    """Store events with the transaction of *session*, and send them after its commit.

    :param texts: The messages, in their order.
    :raises ConfigurationError: The table is missing.
    """
    if not texts:
        return
    if isinstance(session, scoped_session):
        session = session()
    now = time.time_ns() // 1000
    rows = [
        {
            "id": new_event_id(),
            "namespace": relay.namespace,
            "message": text,
            "at": now + number,
        }
        for number, text in enumerate(texts)
    ]
    try:
        session.execute(insert(OWN.events), rows)
    except SQLAlchemyError as error:
        explain_missing(error, session.get_bind(clause=OWN.events))
        raise
    pending = session.info.setdefault(_PENDING, _Pending(relay))
    pending.ids += [str(row["id"]) for row in rows]
    if not event.contains(session, "after_commit", _on_commit):
        event.listen(session, "after_commit", _on_commit)
        event.listen(session, "after_transaction_end", _on_end)


def _on_commit(session: Session) -> None:
    pending: _Pending | None = session.info.get(_PENDING)
    if pending is not None and not session.in_nested_transaction():
        pending.committed = True


def _on_end(session: Session, transaction: SessionTransaction) -> None:
    # Now the connection is back in the pool, and the relay can take it.
    if transaction.parent is not None:
        return
    pending: _Pending | None = session.info.pop(_PENDING, None)
    if pending is not None and pending.committed:
        # Rows of a savepoint that was rolled back are not found.
        engine = session.get_bind(clause=OWN.events).engine
        pending.relay.send_committed(engine, pending.ids)
