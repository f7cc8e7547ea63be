"""Message groups: a FIFO queue delivers the messages of one group in order."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ..messages import EventMessage
from .sqs.options import ONE_GROUP


def group_of(message: EventMessage, path: str) -> str:
    """Return the message group of an event; ``""`` if it has no value at *path*.

    The group is a digest, since it travels beside data that may be encrypted.

    :param path: A path such as ``data.tenant``; ``*`` for one group of all events.
    """
    if path == ONE_GROUP:
        return ONE_GROUP
    value: t.Any = {"name": message.name, "id": message.id, "data": message.data}
    for name in path.split("."):
        if not isinstance(value, dict) or value.get(name) is None:
            return ""
        value = value[name]
    return digest(json.dumps(value, sort_keys=True))


def digest(text: str) -> str:
    """Return 32 characters that stand for *text*."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
