"""``step.send_event``: events that a replay does not send again."""

from __future__ import annotations

import typing as t

from ...common.ids import derived_id
from ...common.interruption import shielded
from ...errors import EventError
from ...errors import NonRetriable
from ...errors import UnavailableError
from ...functions.options import StepOptions
from ...messages import EVENT_QUEUE
from ...messages import EventMessage
from ...serialization import codec_for
from ..attempt import Attempt
from ..event_sender import announced
from ..event_sender import check_acceptable
from ..sketch import sketch_of
from .run import Execution

if t.TYPE_CHECKING:
    from ...events.model import EventLike

KIND = "send_event"


def send_event(
    attempt: Attempt, options: StepOptions, name: str, events: tuple[EventLike, ...]
) -> list[str]:
    """Carry out :meth:`flask_durable.Step.send_event`."""
    key = attempt.enter(name)
    # Checked before the body, so that an invalid event is the caller's error, which is
    # not retried. An id that the user did not give depends on run, step and place. If
    # the process dies after the queue took the events and before the step is committed,
    # the next attempt sends the same ids, and routing drops them.
    messages = [
        attempt.services.message_of(
            event, derived_id("sent", attempt.identity, key, str(i))
        )
        for i, event in enumerate(events)
    ]

    sketch = sketch_of(None, [part for m in messages for part in (m.name, m.data)])
    memo = attempt.recall(key, KIND, sketch)

    def send() -> list[str]:
        return _send(attempt, messages)

    execution = Execution(attempt, options, key, KIND, codec_for(send), sketch)
    return t.cast("list[str]", execution.resolve(memo, send, (), {}))


def _send(attempt: Attempt, messages: list[EventMessage]) -> list[str]:
    services = attempt.services
    with shielded(), announced(services.middleware, messages) as (sending, told):
        bodies = [services.payloads.seal_event(message) for message in told]
        for message, body in zip(told, bodies, strict=True):
            try:
                check_acceptable(services.queue, message, body)
            except EventError as error:
                raise NonRetriable(str(error)) from error
        sending.size = sum(map(len, bodies))
        outcomes = services.queue.send(EVENT_QUEUE, bodies)
        sending.outcomes = [error or "accepted" for error in outcomes]
    ids = [message.id for message in messages]
    refused = [error for error in outcomes if error is not None]
    if refused:
        sent = [id for id, error in zip(ids, outcomes, strict=True) if error is None]
        raise UnavailableError(
            f"The queue did not take {len(refused)} of {len(ids)} event(s): "
            f"{refused[0]}.",
            sent=sent,
        )
    return ids
