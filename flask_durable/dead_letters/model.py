"""A dead letter, and the result of handling it."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone

from ..messages import decode
from ..messages import EventMessage
from ..messages import Message
from ..messages import UndecodableMessage

if t.TYPE_CHECKING:
    from ..queue.transport import Outcome
    from ..queue.transport import StoredLetter
    from ..store.message_failures import MessageFailure


#: A letter as its queue has it, and as the application sees it.
Pair = tuple["StoredLetter", "DeadLetter"]


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be processed.

    :param id: The letter's id for as long as it is kept: its queue, a slash, and the
        queue's own id.
    :param queue: The queue that it died in.
    :param reason: The reason why it died.
    :param receives: The receive count before it died.
    :param sent: The moment it was sent.
    :param first_received: The moment of its first receive, if the queue tells (SQS).
    :param dead: The moment it died, if the queue tells.
    :param body: The message, as text.
    :param event: The name of the event in it; ``None`` for a message of another kind.
    :param event_id: The event's id.
    :param run: The run that it is about; ``None`` if it is about none.
    :param function: The run's function.
    :param error: The last error of its processing, if that is known.
    """

    id: str
    queue: str
    reason: str
    receives: int
    sent: datetime
    first_received: datetime | None
    dead: datetime | None
    body: str
    event: str | None = None
    event_id: str | None = None
    run: str | None = None
    function: str | None = None
    error: str | None = None


@dataclass
class RedriveResult:
    """The outcome of moving dead letters back, or of deleting them.

    :param done: The number of letters moved or deleted; approximate if all of an SQS
        queue were deleted.
    :param failed: The number of letters that failed, and are still there.
    :param error: The error of the last of those.
    :param complete: True if all letters were looked at. One pass through an SQS queue
        ends at 10,000 letters that do not match, and at ten of a group of a FIFO queue.
    """

    done: int = 0
    failed: int = 0
    error: str | None = None
    complete: bool = True

    def add(self, outcomes: t.Sequence[Outcome]) -> None:
        """Count further letters."""
        errors = [outcome for outcome in outcomes if outcome is not None]
        self.done += len(outcomes) - len(errors)
        self.failed += len(errors)
        if errors:
            self.error = f"{type(errors[-1]).__name__}: {errors[-1]}"


def dead_letter_of(
    queue: str,
    letter: StoredLetter,
    message: Message | None,
    failures: t.Mapping[str, MessageFailure],
) -> DeadLetter:
    failure = failures.get(message.key) if message is not None else None
    if failure is not None and failure.at < letter.sent:
        failure = None  # that of an earlier message about the same thing
    return DeadLetter(
        id=f"{queue}/{letter.id}",
        queue=queue,
        reason=letter.reason,
        receives=letter.receives,
        sent=_moment(letter.sent),
        first_received=_moment_or_none(letter.first_received),
        dead=_moment_or_none(letter.dead),
        body=_text(letter.body),
        error=failure.error if failure is not None else None,
        **_about(message),
    )


def message_in(body: bytes | str) -> Message | None:
    try:
        return decode(body)
    except UndecodableMessage:
        return None


def _about(message: Message | None) -> dict[str, str]:
    if message is None:
        return {}
    if isinstance(message, EventMessage):
        return {"event": message.name, "event_id": message.id}
    return {"run": message.run, "function": message.function}


def _text(body: bytes | str) -> str:
    return body if isinstance(body, str) else body.decode("utf-8", "backslashreplace")


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def _moment_or_none(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _moment(milliseconds)
