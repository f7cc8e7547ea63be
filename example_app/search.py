"""Full-text search over transcripts, with SQLite's FTS5."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from markupsafe import escape
from markupsafe import Markup
from sqlalchemy import text

from .models import db

#: The most words of a query that are used.
MAX_WORDS = 20

# Two characters that no transcript has stand for the marks until the rest is escaped.
_OPEN, _CLOSE = "\x02", "\x03"

_FIND = text(
    """
    SELECT recording_id, highlight(transcripts, 1, :open, :close) AS title,
           snippet(transcripts, 2, :open, :close, '…', 24) AS excerpt
    FROM transcripts WHERE transcripts MATCH :match ORDER BY rank LIMIT :limit
    """
)


@dataclass(frozen=True)
class Hit:
    """A recording in which the words were found, with these marked."""

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


def find(query: str, limit: int = 50) -> list[Hit]:
    """Return the recordings that have all words of the query, the best match first."""
    match = to_match(query)
    if not match:
        return []
    parameters: dict[str, t.Any] = {
        "match": match,
        "limit": limit,
        "open": _OPEN,
        "close": _CLOSE,
    }
    rows = db.session.execute(_FIND, parameters)
    return [
        Hit(row.recording_id, _marked(row.title), _marked(row.excerpt)) for row in rows
    ]


def to_match(query: str) -> str:
    """Return a reader's query in FTS5's language, without any of its operators.

    Each word is quoted; the last one may be the beginning of a longer one.
    """
    words = re.findall(r"[^\W_]+", query)[:MAX_WORDS]
    return " ".join(f'"{word}"' for word in words) + "*" if words else ""


def _marked(excerpt: str) -> Markup:
    safe = str(escape(excerpt))
    return Markup(safe.replace(_OPEN, "<mark>").replace(_CLOSE, "</mark>"))
