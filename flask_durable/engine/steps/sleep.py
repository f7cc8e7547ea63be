"""``step.sleep`` and ``step.sleep_until``: a timer instead of a thread."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ...common.durations import Duration
from ...common.durations import to_seconds
from ...errors import StepUsageError
from ...store.memo import payload
from ...store.memo import Try
from ...store.run_store import after
from ...store.run_store import at

if t.TYPE_CHECKING:
    from ..attempt import Attempt

KIND = "sleep"


def sleep(attempt: Attempt, name: str, duration: Duration) -> None:
    """Carry out :meth:`flask_durable.Step.sleep`."""
    try:
        seconds = to_seconds(duration)
    except ValueError as error:
        raise StepUsageError(f"Step {name!r} cannot sleep: {error}.") from None
    _suspend(attempt, name, after(seconds))


def sleep_until(attempt: Attempt, name: str, when: datetime) -> None:
    """Carry out :meth:`flask_durable.Step.sleep_until`."""
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise StepUsageError(
            f"Step {name!r} cannot sleep until {when!r}: it has no time zone.",
            hint="Give an aware datetime, such as datetime.now(timezone.utc).",
        )
    _suspend(attempt, name, at(when.timestamp()))


def _suspend(attempt: Attempt, name: str, due: str) -> None:
    key = attempt.enter(name)
    memo = attempt.recall(key, KIND)
    if memo is not None and memo.status == "done":
        return
    # The script fixes the end when the step is first reached, by the server's clock; a
    # later call with another duration finds it fixed.
    text = payload(KIND, "null", tries=[Try(attempt.server_time, 0)])
    attempt.suspend("sleep", due, reason="sleep", step=key, payload=text)
