"""The library's records of recordings, and the mails about them.

All writes are single statements that may be repeated: several processes make them, and
a step that is interrupted makes them again. :func:`change` and :func:`write_mail` leave
the commit to the caller.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import ColumnElement
from sqlalchemy import or_
from sqlalchemy import select
from sqlalchemy import update as sql_update
from sqlalchemy.dialects.sqlite import insert

from .models import db
from .models import Mail
from .models import Recording
from .models import Status


def add(recording_id: str, *, title: str, tenant: str) -> None:
    """Add a recording, unless it is there."""
    values = {"id": recording_id, "title": title[:200] or "Untitled", "tenant": tenant}
    db.session.execute(insert(Recording).values(values).on_conflict_do_nothing())
    db.session.commit()


def change(recording_id: str, **values: t.Any) -> None:
    """Change fields of a recording, in the caller's transaction."""
    db.session.execute(
        sql_update(Recording).where(Recording.id == recording_id).values(values)
    )


def update(recording_id: str, **values: t.Any) -> None:
    """Change fields of a recording."""
    change(recording_id, **values)
    db.session.commit()


def fail(recording_id: str, reason: str) -> None:
    """Note that a recording has failed. One that is published stays so."""
    unpublished = (Recording.id == recording_id) & (
        Recording.status != Status.PUBLISHED
    )
    values = {"status": Status.FAILED, "reason": reason}
    db.session.execute(sql_update(Recording).where(unpublished).values(values))
    db.session.commit()


def get(recording_id: str) -> Recording | None:
    """Return a recording as it is now."""
    return db.session.get(Recording, recording_id, populate_existing=True)


def visible_to(tenant: str) -> ColumnElement[bool]:
    """Return the condition that a tenant may see a recording: published, or theirs."""
    return or_(Recording.status == Status.PUBLISHED, Recording.tenant == tenant)


def find(recording_id: str, tenant: str) -> Recording | None:
    """Return a recording that a tenant may see, as it is now."""
    query = select(Recording).where(Recording.id == recording_id, visible_to(tenant))
    fresh = {"populate_existing": True}
    return db.session.scalars(query, execution_options=fresh).one_or_none()


def latest(tenant: str, limit: int = 50) -> t.Sequence[Recording]:
    """Return the newest recordings that a tenant may see, these first."""
    query = (
        select(Recording)
        .where(visible_to(tenant))
        .order_by(Recording.created.desc())
        .limit(limit)
    )
    return db.session.scalars(query).all()


def write_mail(
    key: str, recording_id: str, tenant: str, message: str, link: str = ""
) -> None:
    """Send a tenant a mail, once for each key, in the caller's transaction."""
    values = {
        "key": key,
        "recording_id": recording_id,
        "tenant": tenant,
        "message": message,
        "link": link,
    }
    db.session.execute(insert(Mail).values(values).on_conflict_do_nothing())


def mails(tenant: str, limit: int = 50) -> t.Sequence[t.Any]:
    """Return a tenant's newest mails, each with its recording's title and status."""
    query = (
        select(
            Mail.message,
            Mail.link,
            Mail.created,
            Recording.id.label("recording_id"),
            Recording.title,
            Recording.status,
        )
        .join(Recording, Recording.id == Mail.recording_id)
        .where(Mail.tenant == tenant)
        .order_by(Mail.created.desc())
        .limit(limit)
    )
    return db.session.execute(query).all()
