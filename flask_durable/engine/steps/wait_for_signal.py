"""``step.wait_for_signal``: suspended until a signal comes for the run.

The script that would suspend the run takes the oldest signal of the name from its
inbox. A signal that comes later is given to the suspended run, see ``signal_put.lua``.
"""

from __future__ import annotations

import json
import typing as t

from ...common.durations import Duration
from ...errors import StepUsageError
from ...events.model import check_event_name
from ...store.memo import payload
from ...store.memo import Try
from ...store.run_store import after
from ..sketch import sketch_of
from ..waits import wait_for
from .wait_for_event import seconds_of

if t.TYPE_CHECKING:
    from ..attempt import Attempt

KIND = "signal"


def wait_for_signal(
    attempt: Attempt, name: str, signal: str, timeout: Duration | None
) -> t.Any:
    """Carry out :meth:`flask_durable.Step.wait_for_signal`."""
    key = attempt.enter(name)
    if problem := check_event_name(signal):
        raise StepUsageError(
            f"Step {name!r} cannot wait for the signal {signal!r}, which {problem}."
        )
    seconds = seconds_of(name, timeout)
    sketch = sketch_of(None, [signal])
    memo = attempt.recall(key, KIND, sketch)
    if memo is None or not memo.final:
        payloads = attempt.services.payloads
        about = payloads.seal_text(json.dumps({"signal": signal}))
        text = payload(
            KIND,
            f"{about}\n",
            tries=memo.tries if memo else [Try(attempt.server_time, 0)],
            digest=payloads.digest(sketch),
        )
        what = f"the signal {signal}"
        memo = wait_for(attempt, KIND, key, after(seconds), text, what, signal=signal)
    if not memo.answer:
        return None
    return json.loads(attempt.payloads.open(memo.answer, key))
