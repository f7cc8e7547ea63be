"""An app of Celery, as an existing project has one."""

from __future__ import annotations

import os
import time
import typing as t

import celery
from celery.worker.control import inspect_command

app: t.Any = celery.Celery(
    "celery_app", broker=os.environ.get("CELERY_URL"), set_as_current=False
)
app.conf.broker_transport_options = {
    "global_keyprefix": os.environ.get("CELERY_PREFIX", "")
}
if "CELERY_PICKLES" in os.environ:
    app.conf.update(task_serializer="pickle", accept_content=["json", "pickle"])
if "CELERY_BREAKS" in os.environ:

    @inspect_command(name=os.environ["CELERY_BREAKS"])  # type: ignore[untyped-decorator]
    def broken(state: t.Any, **given: t.Any) -> None:
        """Answer with an error."""
        raise LookupError("it does not know")


@app.task(name="media.sleep")  # type: ignore[untyped-decorator]
def sleep(seconds: float) -> None:
    """Hold a process."""
    time.sleep(seconds)


@app.task(name="media.late", acks_late=True)  # type: ignore[untyped-decorator]
def late(seconds: float) -> None:
    """Hold a process, and the message until the end."""
    time.sleep(seconds)
