"""FIFO queues: which group a message is of, and which message it is.

SQS hands out a message of a group only when all before it in the group are deleted:
those that are in hand, hidden, or given back for later hold the rest up. So a receive
asks a FIFO queue for one message, and what becomes of it decides about the next. Two
of one group in the same hands would have to be ordered here a second time.

An event is named by its id, so that SQS drops what is sent again within five minutes.
A run message is not: sent again it is harmless, dropped it is a run that waits.
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
        named = fields.get("id") or fields.get("run")
        group, is_event = fields.get("group"), fields.get("kind") == "event"
    except (ValueError, AttributeError, RecursionError):
        named, group, is_event = None, None, False
    key = digest(str(named or body))
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
