"""The library's records of recordings.

All writes are single statements that may be repeated: several processes make them, and
a step that is interrupted makes them again.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import select
from sqlalchemy import update as sql_update
from sqlalchemy.dialects.sqlite import insert

from .models import db
from .models import Notification
from .models import Recording
from .models import Status


def add(recording_id: str, *, title: str, tenant: str) -> None:
    """Add a recording, unless it is there."""
    values = {"id": recording_id, "title": title[:200] or "Untitled", "tenant": tenant}
    db.session.execute(insert(Recording).values(values).on_conflict_do_nothing())
    db.session.commit()


def update(recording_id: str, **values: t.Any) -> None:
    """Change fields of a recording."""
    db.session.execute(
        sql_update(Recording).where(Recording.id == recording_id).values(values)
    )
    db.session.commit()


def fail(recording_id: str, reason: str) -> None:
    """Note that a recording cannot be transcribed. One that is ready stays so."""
    unfinished = (Recording.id == recording_id) & (Recording.status != Status.READY)
    values = {"status": Status.FAILED, "reason": reason}
    db.session.execute(sql_update(Recording).where(unfinished).values(values))
    db.session.commit()


def get(recording_id: str) -> Recording | None:
    """Return a recording as it is now."""
    return db.session.get(Recording, recording_id, populate_existing=True)


def latest(limit: int = 50) -> t.Sequence[Recording]:
    """Return the newest recordings first."""
    query = select(Recording).order_by(Recording.created.desc()).limit(limit)
    return db.session.scalars(query).all()


def notify(key: str, recording_id: str, tenant: str, message: str) -> None:
    """Send a tenant a message, once for each key."""
    values = {
        "key": key,
        "recording_id": recording_id,
        "tenant": tenant,
        "message": message,
    }
    db.session.execute(insert(Notification).values(values).on_conflict_do_nothing())
    db.session.commit()


def notifications(limit: int = 5) -> t.Sequence[t.Any]:
    """Return the newest notifications, each with its recording's title."""
    query = (
        select(
            Notification.message,
            Notification.created,
            Recording.id.label("recording_id"),
            Recording.title,
        )
        .join(Recording, Recording.id == Notification.recording_id)
        .order_by(Notification.created.desc())
        .limit(limit)
    )
    return db.session.execute(query).all()
