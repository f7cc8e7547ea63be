"""The ``durable/function.*`` events that the end of a run owes."""

from __future__ import annotations

import json
import time
import typing as t

from ..common.ids import derived_id
from ..events.builtin import FunctionCancelled
from ..events.builtin import FunctionFailed
from ..events.builtin import FunctionFinished
from ..messages import EventMessage
from ..store.directory import Published
from ..store.run_reader import Record
from ..store.status import RunStatus
from .children import is_quiet

#: Most bytes of JSON of a result that travels with its event. A queue would refuse a
#: larger message again and again.
MAX_RESULT = 65_536

_ABOUT: dict[RunStatus, tuple[type[FunctionFinished], ...]] = {
    RunStatus.COMPLETED: (FunctionFinished,),
    RunStatus.FAILED: (FunctionFinished, FunctionFailed),
    RunStatus.CANCELLED: (FunctionFinished, FunctionCancelled),
}


def events_of(
    run_id: str,
    record: Record,
    status: RunStatus,
    outcome: str,
    published: Published,
    opened: t.Callable[[], EventMessage],
) -> list[EventMessage]:
    """Return the event messages that some function listens to.

    A failure handler's run is part of the run that failed: it has no events.

    :param outcome: The result or the failure, as JSON text; ``""`` for none.
    :param opened: A callable that returns the run's event with its data; called only if
        some function listens.
    """
    if is_quiet(record) or record.get("kind") == "branch":
        return []
    wanted = {
        trigger
        for description in published.functions.values()
        for trigger in description["triggers"]
    }
    schemas = [s for s in _ABOUT[status] if s.__event_name__ in wanted]
    if not schemas:
        return []
    event = opened()
    data = _data(run_id, record, status, outcome, event)
    generation = record["generation"]
    return [
        EventMessage(
            name=str(schema.__event_name__),
            data=data,
            id=derived_id(str(schema.__event_name__), run_id, generation),
            at=int(time.time() * 1000),
            headers=event.headers,
        )
        for schema in schemas
    ]


def entries(
    run_id: str, record: Record, events: t.Sequence[str]
) -> list[tuple[str, str]]:
    """Return the outbox entries of *events*, with the names that the script gave."""
    prefix = f"event:{run_id}:{record['generation']}"
    return [(f"{prefix}:{index}", text) for index, text in enumerate(events)]


def _data(
    run_id: str, record: Record, status: RunStatus, outcome: str, event: EventMessage
) -> dict[str, t.Any]:
    data: dict[str, t.Any] = {
        "function_id": record["function"],
        "run_id": run_id,
        "status": status.value,
        "event": {
            "name": event.name,
            "data": event.opened,
            "id": event.id,
            "at": event.at,
        },
    }
    if status is RunStatus.FAILED:
        data["failure"] = json.loads(outcome)
    elif outcome and len(outcome.encode()) <= MAX_RESULT:
        data["result"] = json.loads(outcome)
    return data
