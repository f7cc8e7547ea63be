"""FIFO queues: the group and the deduplication id of each message.

SQS delivers a message of a group only when all before it in the group are deleted:
those that are in hand, hidden, or handed back with a delay hold the rest up. So a
receive asks a FIFO queue for one message, and its outcome decides about the next. Two
messages of one group in one process would have to be ordered a second time here.

An event is named by its name and id, so that SQS drops a repeat within five minutes.
With the id alone two events could be taken for one: an order's number may be the id of
all its events. A run message has no such name: a repeat is harmless, a dropped one is a
run that waits.
"""

from __future__ import annotations

import json
import typing as t
import uuid
from collections import defaultdict

from ...common.ids import derived_id
from ..transport import Outcome
from .batch import Entry
from .batch import QueueRefused


def fifo_fields(body: str) -> Entry:
    """Return the fields that a FIFO queue needs of a message beside its *body*.

    A message without a group, or that cannot be decoded, is a group of its own.
    """
    try:
        fields = json.loads(body)
        is_event = fields.get("kind") == "event"
        names = ("name", "id") if is_event else ("run",)
        about = [fields.get(name) for name in names]
        group = fields.get("group")
    except (ValueError, AttributeError, RecursionError):
        about, group, is_event = [None], None, False
    key = derived_id(json.dumps(about) if any(about) else body)
    return {
        "MessageGroupId": derived_id(str(group)) if group else key,
        "MessageDeduplicationId": key if is_event else uuid.uuid4().hex,
    }


def in_rounds(
    entries: t.Mapping[int, Entry], outcomes: t.MutableSequence[Outcome]
) -> t.Iterator[list[int]]:
    """Divide entries that are sent together, so that each round has one of a group.

    SQS may take a later entry of a batch and refuse an earlier one. Entries that follow
    a refused one of their group are not sent: they get an outcome here.

    :param entries: The entries by their numbers.
    :param outcomes: The outcome of each number in the rounds before.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, entry in entries.items():
        groups[entry["MessageGroupId"]].append(number)
    while groups:
        yield [numbers[0] for numbers in groups.values()]
        for group, (sent, *rest) in list(groups.items()):
            if outcomes[sent] is not None:
                for number in rest:
                    outcomes[number] = QueueRefused(
                        "NotInOrder", "an earlier message of its group was not sent"
                    )
                rest = []
            groups[group] = rest
            if not rest:
                del groups[group]
