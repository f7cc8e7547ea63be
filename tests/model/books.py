"""An app whose steps write into its own database, for tests of ``step.transaction``.

``python -m tests.model.books`` is a worker for one event that dies at a moment.
"""

from __future__ import annotations

import os
import sys
import typing as t
import uuid

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event as events
from sqlalchemy import Integer
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy.orm import Session

from flask_durable import Event
from flask_durable import Step
from flask_durable.sql import tables
from flask_durable.sql.tables import OWN

from ..support.harness import Harness


class Books:
    """A database with a table of notes, in an app that a test drives.

    :param url: The database of the app.
    :param direct: The same database for the test itself, if the way differs.
    """

    def __init__(self, harness: Harness, url: str, direct: str = "") -> None:
        self.harness = harness
        self.db = db = SQLAlchemy()
        tables(db.metadata)
        harness.app.config["SQLALCHEMY_DATABASE_URI"] = url
        db.init_app(harness.app)

        class Note(db.Model):  # type: ignore[name-defined,misc]
            id = Column(Integer, primary_key=True)
            text = Column(String(50))

        self.note: t.Any = Note
        #: The calls of :meth:`add`.
        self.calls = 0
        #: Called by each call, after it has added its note.
        self.then: t.Callable[[], object] = lambda: None
        self.engine: Engine = create_engine(direct or url)

    def create(self) -> None:
        """Create the tables, without a row."""
        self.db.metadata.drop_all(self.engine)
        self.db.metadata.create_all(self.engine)

    def add(self, text: str = "note") -> str:
        """Add a note to the session; return a text that no other call returns."""
        self.calls += 1
        self.db.session.add(self.note(text=text))
        self.db.session.flush()
        self.then()
        return uuid.uuid4().hex

    @property
    def session(self) -> Session:
        """The session of the calling step."""
        return self.db.session()

    @property
    def notes(self) -> list[str]:
        """The notes that are committed."""
        with self.engine.connect() as connection:
            return list(connection.scalars(select(self.note.text)))

    @property
    def rows(self) -> list[t.Any]:
        """The rows of committed steps."""
        with self.engine.connect() as connection:
            return list(connection.execute(select(OWN.steps)))

    @property
    def left(self) -> list[t.Any]:
        """The rows of events that are not sent yet."""
        with self.engine.connect() as connection:
            return list(connection.execute(select(OWN.events)))

    def declare(self, **options: t.Any) -> None:
        """Declare a function with one database step, for ``note/asked``."""

        @self.harness.durable.function(on="note/asked", **options)
        def keep(event: Event[t.Any], step: Step) -> str:
            return step.transaction("save", self.add)

    def close(self) -> None:
        with self.harness.app.app_context():
            self.db.engine.dispose()
        self.engine.dispose()


def die(*args: object) -> None:
    """End this process as ``kill -9`` does."""
    os._exit(9)


def die_at_removal(
    connection: object, cursor: object, statement: str, *args: object
) -> None:
    """End this process before a row is removed."""
    if statement.startswith("DELETE"):
        die()


def migrate(books: Books, folder: str) -> None:
    """Make the tables as the documentation says, with Flask-Migrate."""
    import flask_migrate

    flask_migrate.Migrate(books.harness.app, books.db, directory=folder)
    with books.harness.app.app_context():
        flask_migrate.init()
        flask_migrate.migrate(message="Tables of Flask-Durable")
        flask_migrate.upgrade()
        flask_migrate.migrate()  # finds nothing more


def main(redis: str, namespace: str, url: str, moment: str, what: str = "") -> None:
    """Execute what is there, or tell an event, and die at *moment*."""
    harness = Harness(redis, namespace)
    books = Books(harness, url)
    if what == "migrate":
        migrate(books, moment)
        return
    if what == "tell":
        with harness.app.app_context():
            harness.durable.send("note/told", {"n": 1}, session=books.session)
            if moment == "removal":
                events.listen(books.db.engine, "before_cursor_execute", die_at_removal)
            else:
                events.listen(books.session, moment, die)
            books.session.commit()
    books.declare()
    books.then = lambda: events.listen(books.session, moment, die)
    harness.settle()


if __name__ == "__main__":
    main(*sys.argv[1:])
