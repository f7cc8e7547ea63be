"""Search over transcripts: by words, with SQLite's FTS5, and by likeness."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from markupsafe import escape
from markupsafe import Markup
from sqlalchemy import column
from sqlalchemy import ColumnElement
from sqlalchemy import func
from sqlalchemy import literal_column
from sqlalchemy import select
from sqlalchemy import table
from sqlalchemy import text

from .embedding import embed
from .embedding import similarity
from .models import db
from .models import Recording
from .recordings import visible_to

#: The most words of a query that are used.
MAX_WORDS = 20

#: The least similarity of recordings that are alike, and of one and a query, which has
#: few of the words of what it is meant to find.
ALIKE = 0.3
LIKE_QUERY = 0.12

# Two characters that no transcript has stand for the marks until the rest is escaped.
_OPEN, _CLOSE = "\x02", "\x03"

# The virtual table, as a table and as the column that stands for all of its columns.
_TABLE = table("transcripts", column("recording_id"))
_ALL: ColumnElement[str] = literal_column("transcripts")


@dataclass(frozen=True)
class Hit:
    """A recording that was found; the words that were asked for are marked."""

    recording_id: str
    title: Markup
    excerpt: Markup


def put(recording_id: str, transcript: str) -> None:
    """Make a transcript searchable, in place of an earlier one of this recording.

    It takes part in the caller's transaction.
    """
    values = {"id": recording_id, "transcript": transcript}
    db.session.execute(
        text("DELETE FROM transcripts WHERE recording_id = :id"), {"id": recording_id}
    )
    db.session.execute(
        text(
            "INSERT INTO transcripts (recording_id, title, text) "
            "SELECT id, title, :transcript FROM recordings WHERE id = :id"
        ),
        values,
    )


def find(query: str, tenant: str, limit: int = 50) -> list[Hit]:
    """Return the recordings that have all words of the query, the best match first.

    :param tenant: The tenant who looks: drafts of others are not found.
    """
    match = to_match(query)
    if not match:
        return []
    title = func.highlight(_ALL, 1, _OPEN, _CLOSE).label("title")
    excerpt = func.snippet(_ALL, 2, _OPEN, _CLOSE, "…", 24).label("excerpt")
    found = (
        select(Recording.id, title, excerpt)
        .join(_TABLE, _TABLE.c.recording_id == Recording.id)
        .where(_ALL.op("MATCH")(match), visible_to(tenant))
        .order_by(literal_column("rank"))
        .limit(limit)
    )
    rows = db.session.execute(found)
    return [Hit(row.id, _marked(row.title), _marked(row.excerpt)) for row in rows]


def like(query: str, tenant: str) -> list[Hit]:
    """Return the recordings that are similar to a text, such as a misspelt query."""
    return nearest(embed(query), tenant, least=LIKE_QUERY)


def nearest(
    vector: t.Sequence[float], tenant: str, *, least: float = ALIKE, limit: int = 4
) -> list[Hit]:
    """Return the recordings with the most similar vectors, the nearest first.

    It looks at each, which takes a second for some hundred thousand. More need an index
    of vectors.
    """
    query = select(Recording.id, Recording.embedding).where(visible_to(tenant))
    near = {
        id: closeness
        for id, other in db.session.execute(query)
        if len(other) == len(vector)
        and (closeness := similarity(vector, other)) >= least
    }
    nearest = sorted(near, key=lambda id: near[id], reverse=True)[:limit]
    found = db.session.scalars(select(Recording).where(Recording.id.in_(nearest)))
    by_id = {recording.id: recording for recording in found}
    return [
        Hit(id, escape(by_id[id].title), escape(_beginning(by_id[id].text)))
        for id in nearest
    ]


def to_match(query: str) -> str:
    """Return a reader's query in FTS5's language, without any of its operators.

    Each word is quoted; the last one may be the beginning of a longer one.
    """
    words = re.findall(r"[^\W_]+", query)[:MAX_WORDS]
    return " ".join(f'"{word}"' for word in words) + "*" if words else ""


def _beginning(transcript: str) -> str:
    words = transcript.split()
    return " ".join(words[:24]) + ("…" if len(words) > 24 else "")


def _marked(excerpt: str) -> Markup:
    safe = str(escape(excerpt))
    return Markup(safe.replace(_OPEN, "<mark>").replace(_CLOSE, "</mark>"))
