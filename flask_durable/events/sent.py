"""The outcome of sending an event."""

from __future__ import annotations

import typing as t

#: The owner of an event: the event queue, or the outbox of its partition, which is sent
#: when the queue is back.
Owner = t.Literal["accepted", "spooled"]

#: The owner of an event, or the reason why it has none.
Outcome = Owner | Exception


def failures(outcomes: t.Iterable[Outcome]) -> list[Exception]:
    """Return the errors among *outcomes*."""
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]
