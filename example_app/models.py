"""The library's tables."""

from __future__ import annotations

import enum
import typing as t
from datetime import datetime
from datetime import UTC

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import JSON
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.schema import CreateIndex
from sqlalchemy.schema import CreateTable

from flask_durable.sql import tables


class Base(DeclarativeBase):
    """Base class of the models."""


db = SQLAlchemy(model_class=Base)
tables(db.metadata)  # those of step.transaction


class Status(enum.StrEnum):
    """The state of a recording in the library."""

    QUEUED = "queued"
    PROCESSING = "processing"
    REVIEW = "review"  # its owner is asked
    PUBLISHED = "published"
    UNPUBLISHED = "unpublished"  # its owner did not answer in time
    FAILED = "failed"


class Recording(db.Model):  # type: ignore[name-defined, misc]
    """An uploaded recording, and its data so far."""

    __tablename__ = "recordings"

    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    tenant: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    status: Mapped[str] = mapped_column(default=Status.QUEUED)
    reason: Mapped[str] = mapped_column(default="")
    codec: Mapped[str] = mapped_column(default="")
    sample_rate: Mapped[int] = mapped_column(default=0)
    channels: Mapped[int] = mapped_column(default=0)
    size: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float | None]
    segments: Mapped[int] = mapped_column(default=0)
    waveform: Mapped[list[int]] = mapped_column(JSON, default=list)
    transcript: Mapped[list[dict[str, t.Any]]] = mapped_column(JSON, default=list)
    embedding: Mapped[list[float]] = mapped_column(JSON, default=list)

    @property
    def text(self) -> str:
        """The transcript on one line."""
        return " ".join(passage["text"] for passage in self.transcript)


class Mail(db.Model):  # type: ignore[name-defined, misc]
    """A mail to a tenant. None leaves this machine: the app shows them.

    ``link`` is the signed address in it, or empty. Who has the link can use it.
    """

    __tablename__ = "mails"

    key: Mapped[str] = mapped_column(primary_key=True)
    recording_id: Mapped[str]
    tenant: Mapped[str]
    message: Mapped[str]
    link: Mapped[str] = mapped_column(default="")
    created: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


_SEARCH_TABLE = """
CREATE VIRTUAL TABLE IF NOT EXISTS transcripts
USING fts5(recording_id UNINDEXED, title, text, tokenize = 'porter unicode61')
"""


def create_tables() -> None:
    """Create missing tables; several processes may do so at once."""
    with db.engine.connect() as connection:
        # Readers and the writer do not wait for each other.
        connection.execute(text("PRAGMA journal_mode = WAL"))
        for table in db.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
        connection.execute(text(_SEARCH_TABLE))
        connection.commit()
