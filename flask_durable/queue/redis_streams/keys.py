"""The names of a queue's keys on the state server."""

from __future__ import annotations


def queue_tag(namespace: str, queue: str) -> str:
    """Return the hash tag of a queue's keys: all of them live in one slot."""
    return f"{{{namespace}:q:{queue}}}"
