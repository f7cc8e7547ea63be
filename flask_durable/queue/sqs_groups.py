"""FIFO queues: which group a message is of, and which message it is.

SQS hands out a message of a group only when all before it in the group are deleted:
those that are in hand, hidden, or given back for later hold the rest up. So a receive
asks a FIFO queue for one message, and what becomes of it decides about the next. Two
of one group in the same hands would have to be ordered here a second time.

An event is named by its name and id, so that SQS drops what is sent again within five
minutes. By the id alone one event would be taken for another: an order's number may be
the id of all that happens to it. A run message has no such name: sent again it is
harmless, dropped it is a run that waits.
"""

from __future__ import annotations

import json
import typing as t
import uuid
from collections import defaultdict

from .groups import digest
from .sqs_batch import Entry
from .sqs_batch import QueueRefused
from .transport import Outcome


def fifo_fields(body: str) -> Entry:
    """Return what a FIFO queue wants to know of a message beside its *body*.

    One without a group, and one that cannot be decoded, is a group of its own.
    """
    try:
        fields = json.loads(body)
        is_event = fields.get("kind") == "event"
        names = ("name", "id") if is_event else ("run",)
        about = [fields.get(name) for name in names]
        group = fields.get("group")
    except (ValueError, AttributeError, RecursionError):
        about, group, is_event = [None], None, False
    key = digest(json.dumps(about) if any(about) else body)
    return {
        "MessageGroupId": digest(str(group)) if group else key,
        "MessageDeduplicationId": key if is_event else uuid.uuid4().hex,
    }


def in_rounds(
    entries: t.Mapping[int, Entry], outcomes: t.MutableSequence[Outcome]
) -> t.Iterator[list[int]]:
    """Divide what is sent together so that each round has one entry of a group.

    Of a batch SQS may take a later entry and refuse an earlier one. What follows a
    refused one of its group is not sent: it gets an outcome here.

    :param entries: By their numbers.
    :param outcomes: What became of each number in the rounds before.
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
