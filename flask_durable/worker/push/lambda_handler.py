"""The handler of an AWS Lambda function: messages of SQS, and ticks of EventBridge.

The answer to a batch names the messages that are to be delivered again
(``ReportBatchItemFailures``); Lambda deletes all others. A mapping without that setting
takes any answer for a success, and deletes what failed. So where the whole batch is to
come again the call fails, which every mapping understands.

Any other event is an error, and so is a tick that could not be carried out: Lambda then
calls again.
"""

from __future__ import annotations

import time
import typing as t
from datetime import datetime

from ...app.state import AppState
from ...errors import EventError
from ...errors import UnavailableError
from ...observe.sentry import reporting as sentry
from .messages import PushedMessage
from .worker import push_worker

#: The share of the remaining time in which steps may begin: the last one needs the
#: rest.
PART = 0.5

#: The ``detail-type`` of a tick of EventBridge's rules and scheduler.
SCHEDULED = "Scheduled Event"


class LambdaContext(t.Protocol):
    """The part of Lambda's context object that is used."""

    def get_remaining_time_in_millis(self) -> int: ...


def handle_event(
    state: AppState, event: t.Any, context: LambdaContext
) -> dict[str, t.Any]:
    """Serve one call of Lambda.

    :raises EventError: The event is neither messages of SQS nor a tick of EventBridge.
    :raises UnavailableError: None of the messages could be served.
    :raises Exception: A tick could not be carried out.
    """
    remaining = context.get_remaining_time_in_millis() / 1000
    budget = min(state.settings.push_budget, remaining * PART)
    until = time.monotonic() + budget
    try:
        return _serve(state, event, until)
    finally:
        sentry.flush()  # the process stands still until it is called again


def _serve(state: AppState, event: t.Any, until: float) -> dict[str, t.Any]:
    worker = push_worker(state, lives_on=False)
    kind = event.get("detail-type") if isinstance(event, dict) else None
    if kind == SCHEDULED:
        worker.tick(until, *_task_of(event))
        return {}
    messages = _messages_of(event)
    failed = worker.handle(messages, until)
    if messages and len(failed) == len(messages):
        raise UnavailableError(
            f"None of {len(messages)} message(s) could be served: all come again."
        )
    return {"batchItemFailures": [{"itemIdentifier": id} for id in failed]}


def _messages_of(event: t.Any) -> list[PushedMessage]:
    try:
        return [_message_of(record) for record in event["Records"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise EventError(
            "The Lambda function was called with neither messages of SQS nor a tick.",
            hint="Map a queue to it, or call it by an EventBridge schedule.",
        ) from None


def _message_of(record: dict[str, t.Any]) -> PushedMessage:
    attributes = record["attributes"]
    return PushedMessage(
        record["messageId"],
        record["body"],
        int(attributes["ApproximateReceiveCount"]),
        source=record["eventSourceARN"].rpartition(":")[2],
        group=attributes.get("MessageGroupId", ""),
    )


def _task_of(event: dict[str, t.Any]) -> tuple[str, datetime | None]:
    """Return the name of the rule or schedule, and the time that the tick is for."""
    try:
        name = event["resources"][0].rpartition("/")[2]
        return name, datetime.fromisoformat(event["time"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return "", None
