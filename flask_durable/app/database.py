"""The app's own database, as far as steps and events use it.

SQLAlchemy is imported by those who use it only.
"""

from __future__ import annotations

import functools
import typing as t

if t.TYPE_CHECKING:
    from sqlalchemy.orm import scoped_session
    from sqlalchemy.orm import Session

    from ..messages import EventMessage
    from ..sql.database_steps import DatabaseSteps
    from ..sql.relay import Relay
    from .state import AppState

    #: A session of SQLAlchemy, or the one of each context, as ``db.session`` is.
    SQLSession = Session | scoped_session[t.Any]


class Database:
    """The app's own database, in this process."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    @property
    def steps(self) -> DatabaseSteps:
        """The steps that commit with the session of Flask-SQLAlchemy.

        :raises ConfigurationError: The app has no Flask-SQLAlchemy.
        """
        from ..sql.database_steps import DatabaseSteps

        extension = self._state.app.extensions.get("sqlalchemy")
        return DatabaseSteps(extension, self._state.settings.namespace)

    def store_events(
        self, session: SQLSession, messages: t.Sequence[EventMessage]
    ) -> None:
        """Store events with the transaction of *session*; its commit sends them.

        :raises ConfigurationError: The table is missing.
        """
        from ..sql.stored_events import store

        # Large data stays in the row: after a rollback nobody would remove an object.
        seal = functools.partial(self._state.payloads.seal_event, inline=True)
        store(self._relay, session, [seal(message) for message in messages])

    @functools.cached_property
    def relay(self) -> Relay | None:
        """The relay, where the app has told of its tables."""
        # Without this look, SQLAlchemy would be imported by every worker.
        if {"sqlalchemy", "durable.engine"}.isdisjoint(self._state.app.extensions):
            return None
        return self._relay if self._relay.engine is not None else None

    def missing_tables(self) -> list[str] | None:
        """Return the names of the tables that the database lacks.

        :returns: ``None`` if the app has told of no tables.
        :raises sqlalchemy.exc.SQLAlchemyError: The database does not answer.
        """
        relay = self.relay
        if relay is None or relay.engine is None:
            return None
        from ..sql.tables import missing_tables

        return missing_tables(relay.engine)

    @functools.cached_property
    def _relay(self) -> Relay:
        from ..sql.relay import Relay
        from ..sql.tables import engine_of

        state, settings = self._state, self._state.settings
        return Relay(
            settings.namespace,
            engine_of(state.app),
            # The sender is made by the first one to send.
            send=lambda messages: state.event_sender.send(messages),
            open_event=state.payloads.open_event,
            events_of=state.store.events_of,
            kept=min(settings.retention, settings.failed_retention),
        )
