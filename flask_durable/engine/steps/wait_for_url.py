"""``step.wait_for_url``: suspended until an address is answered.

The answer is a signal with a name of its own in the run's inbox, see
``wait_for_signal``. There is one difference. The end of an address does not depend on
when the wait is reached, so an answer that came in time may find the wait reached after
the end: it is taken all the same.
"""

from __future__ import annotations

import json
import typing as t

from ...common.durations import Duration
from ...common.times import milliseconds_of
from ...common.times import to_milliseconds
from ...errors import StepUsageError
from ...functions.address import Address
from ...store.inbox import inbox_of
from ...store.memo import payload
from ...store.memo import Try
from ...store.run_store import after
from ..sketch import sketch_of
from ..waits import wait_for
from .wait_for_event import seconds_of

if t.TYPE_CHECKING:
    from ..attempt import Attempt

KIND = "url"


def wait_for_url(
    attempt: Attempt, name: str, url: Address, timeout: Duration | None
) -> dict[str, t.Any] | None:
    """Carry out :meth:`flask_durable.Step.wait_for_url`."""
    key = attempt.enter(name)
    if not isinstance(url, Address) or url.run_id != inbox_of(attempt.run_id):
        raise StepUsageError(
            f"Step {name!r} waits for an address that this run has not made.",
            hint='Give it the result of step.create_url("name", expires="7d").',
        )
    ends = milliseconds_of(url.expires)
    due = f"@{ends}"
    if timeout is not None:
        seconds = seconds_of(name, timeout)
        if attempt.server_time + to_milliseconds(seconds) < ends:
            due = after(seconds)
    sketch = sketch_of(None, [url.signal])
    memo = attempt.recall(key, KIND, sketch)
    if memo is None or not memo.final:
        payloads = attempt.services.payloads
        about = payloads.seal_text(json.dumps({"ends": ends}))
        text = payload(
            KIND,
            f"{about}\n",
            tries=memo.tries if memo else [Try(attempt.server_time, 0)],
            digest=payloads.digest(sketch),
        )
        what = "the answer to an address"
        memo = wait_for(attempt, KIND, key, due, text, what, signal=url.signal)
    if not memo.answer:
        return None
    answer: dict[str, t.Any] = json.loads(attempt.payloads.open(memo.answer, key))
    return answer
