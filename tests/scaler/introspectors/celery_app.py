"""An app of Celery, as an existing project has one."""

from __future__ import annotations

import os
import time
import typing as t

import celery

app: t.Any = celery.Celery(
    "celery_app", broker=os.environ.get("CELERY_URL"), set_as_current=False
)


@app.task(name="media.sleep")  # type: ignore[untyped-decorator]
def sleep(seconds: float) -> None:
    """Hold a process."""
    time.sleep(seconds)


@app.task(name="media.late", acks_late=True)  # type: ignore[untyped-decorator]
def late(seconds: float) -> None:
    """Hold a process, and the message until the end."""
    time.sleep(seconds)
