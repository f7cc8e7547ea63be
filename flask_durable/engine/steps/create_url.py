"""``step.create_url``: an address that takes one answer for the run.

==========  =======================================================================
memo found  effect
==========  =======================================================================
none        an address is made and committed, with the time of its end
done        the same address is returned, whatever is asked for now
==========  =======================================================================

The memo is all that there is of an address: the page is shown from it, and an answer
goes into the run's inbox. So an address works from the commit on, and no address works
that was made by an attempt which lost the run before its commit.
"""

from __future__ import annotations

import json
import typing as t

from ...common.durations import Duration
from ...common.durations import to_seconds
from ...common.times import datetime_of
from ...common.times import to_milliseconds
from ...errors import StepUsageError
from ...events.acceptance import json_faults
from ...functions.address import Address
from ...functions.address import Page
from ...middleware import StepInfo
from ...store.inbox import inbox_of
from ...store.memo import Memo
from ...store.memo import payload
from ...store.memo import Try
from ..sketch import sketch_of

if t.TYPE_CHECKING:
    from ..attempt import Attempt

KIND = "address"

#: Most characters of each part of the page: title, text and button.
MAX_CHARACTERS = (200, 5000, 100)


def create_url(attempt: Attempt, name: str, expires: Duration, page: Page) -> Address:
    """Carry out :meth:`flask_durable.Step.create_url`."""
    key = attempt.enter(name)
    seconds = _seconds(name, expires)
    _check_page(name, page)
    sketch = sketch_of(None, [*page])
    memo = attempt.recall(key, KIND, sketch)
    if memo is None:
        memo = _make(attempt, key, seconds, page, sketch)
        attempt.after_step()
    about = json.loads(attempt.payloads.open(memo.about, key))
    return Address(
        href=attempt.payloads.open(memo.answer, key),
        expires=datetime_of(about["ends"]),
        run_id=inbox_of(attempt.run_id),
    )


def _make(
    attempt: Attempt, key: str, seconds: float, page: Page, sketch: bytes
) -> Memo:
    """Commit a new address; return the memo that stands."""
    payloads = attempt.services.payloads
    href = attempt.services.addresses.make(attempt.run_id, key)
    attempt.before_body(None)
    now = attempt.server_time
    about = {"ends": now + to_milliseconds(seconds), **page._asdict()}
    text = payload(
        KIND,
        f"{payloads.seal_text(json.dumps(about))}\n{payloads.seal_text(href)}",
        tries=[Try(now, 0)],
        digest=payloads.digest(sketch),
    )
    info = StepInfo(attempt.info, key, KIND, 1)
    with attempt.services.middleware.around_step(info):
        memo = attempt.commit(key, "done", 1, text)
        info.outcome = "completed"
    assert isinstance(memo, Memo), "only an intent is interrupted"
    return memo


def _seconds(name: str, expires: Duration) -> float:
    try:
        seconds = to_seconds(expires)
    except ValueError as error:
        raise StepUsageError(
            f"Step {name!r} cannot make an address: {error}."
        ) from None
    if seconds < 0.001:
        raise StepUsageError(
            f"The address of step {name!r} would be over at once.",
            hint='Say how long it is to work, such as expires="7d".',
        )
    return seconds


def _check_page(name: str, page: Page) -> None:
    for part, value, most in zip(Page._fields, page, MAX_CHARACTERS, strict=True):
        good = isinstance(value, str) and len(value) <= most
        if not good or json_faults({part: value}):
            raise StepUsageError(
                f"The {part} of step {name!r} is not text of at most {most} characters."
            )
