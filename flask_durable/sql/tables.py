"""The tables in the application's database, and the engine that workers reach them by.

``durable_steps`` has a row for each database step that was committed, and
``durable_events`` one for each event that was stored with a transaction and is not sent
yet. Apps that share a database are told apart by the namespace.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import BigInteger
from sqlalchemy import Column
from sqlalchemy import Connection
from sqlalchemy import Engine
from sqlalchemy import Index
from sqlalchemy import inspect
from sqlalchemy import MetaData
from sqlalchemy import String
from sqlalchemy import Table
from sqlalchemy import Text
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigurationError

if t.TYPE_CHECKING:
    from flask import Flask

#: The key of an engine in ``app.extensions``, see :func:`use_engine`.
ENGINE = "durable.engine"

#: A result or an event may be longer than MySQL's ``TEXT``.
_LONG_TEXT = Text().with_variant(LONGTEXT(), "mysql", "mariadb")


class Tables(t.NamedTuple):
    """The two tables in one :class:`~sqlalchemy.MetaData`."""

    #: A row for each database step that was committed.
    steps: Table
    #: A row for each event that is to be sent.
    events: Table


def tables(metadata: MetaData) -> Tables:
    """Add the tables of Flask-Durable to *metadata*, and return them.

    With Flask-SQLAlchemy call it where the models are::

        db = SQLAlchemy()
        tables(db.metadata)

    Then ``db.create_all()`` and Alembic's ``--autogenerate`` find them, and workers
    look after their rows. A second call returns the same tables.

    :param metadata: The metadata of the default bind.
    """
    if "durable_events" in metadata.tables:
        found = metadata.tables
        return Tables(found["durable_steps"], found["durable_events"])
    # The key of a step is the digest of what it belongs to: short enough for the index
    # of any database. The other columns are for people, and for the clean-up.
    steps = Table(
        "durable_steps",
        metadata,
        Column("id", String(26), primary_key=True),
        Column("namespace", String(100), nullable=False),
        Column("run", String(200), nullable=False),
        Column("step", String(300), nullable=False),
        Column("result", _LONG_TEXT, nullable=False),
        # Milliseconds since 1970, by the state server's clock.
        Column("at", BigInteger, nullable=False),
        Index("ix_durable_steps_at", "namespace", "at"),
    )
    events = Table(
        "durable_events",
        metadata,
        Column("id", String(26), primary_key=True),
        Column("namespace", String(100), nullable=False),
        Column("message", _LONG_TEXT, nullable=False),
        # Microseconds since 1970, by the sender's clock: events go in this order.
        Column("at", BigInteger, nullable=False),
        # Why the queue never takes it; such a row is kept for a person.
        Column("error", Text, nullable=True),
    )
    return Tables(steps, events)


#: The tables for our own statements: the application's metadata need not have them.
OWN = tables(MetaData())


def use_engine(app: Flask, engine: Engine) -> None:
    """Tell *app* the engine of its database, where it has no Flask-SQLAlchemy.

    Workers then send the events that are left in that database.
    """
    app.extensions[ENGINE] = engine


def engine_of(app: Flask) -> Engine | None:
    """Return the engine of the database with our tables, if the app has told one."""
    if (engine := app.extensions.get(ENGINE)) is not None:
        return t.cast(Engine, engine)
    extension = app.extensions.get("sqlalchemy")
    metadata = getattr(extension, "metadata", None)
    if extension is None or metadata is None or OWN.events.name not in metadata.tables:
        return None
    with app.app_context():
        return t.cast(Engine, extension.engine)


def explain_missing(error: SQLAlchemyError, bind: Engine | Connection) -> None:
    """Raise the error that says what to do, if *error* came of a missing table.

    :raises ConfigurationError: The database lacks a table of ours.
    """
    try:
        missing = missing_tables(bind.engine)
    except SQLAlchemyError:
        return  # the database is away: the first error says so
    if missing:
        raise ConfigurationError(
            f"The database has no table {' and no table '.join(missing)}.",
            hint="Call flask_durable.sql.tables(db.metadata) where the models are; "
            'then make a migration ("flask db migrate" and "flask db upgrade"), or '
            "call db.create_all().",
        ) from error


def missing_tables(engine: Engine) -> list[str]:
    """Return the names of our tables that the database lacks."""
    inspector = inspect(engine)
    return [table.name for table in OWN if not inspector.has_table(table.name)]
