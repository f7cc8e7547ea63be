"""What became of an event that was to be sent."""

from __future__ import annotations

import typing as t

#: Who owns it now: the event queue, or the outbox of its partition, which is sent when
#: the queue is back.
Owner = t.Literal["accepted", "spooled"]

#: Its owner, or why it has none.
Outcome = Owner | Exception


def failures(outcomes: t.Iterable[Outcome]) -> list[Exception]:
    """Return the errors among *outcomes*."""
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]
