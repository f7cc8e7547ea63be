"""Looks by an introspector, and what they found."""

from __future__ import annotations

import typing as t
from collections import Counter

from flask_durable.scaler.introspectors import make_introspector
from flask_durable.scaler.introspectors.base import QueueSnapshot

from ...support.servers import ValkeyServer


class Look:
    """Makes an introspector of this name for each look."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(
        self, server: ValkeyServer, *queues: str, **options: t.Any
    ) -> QueueSnapshot:
        given = {"introspector": self._name, "url": server.url, **options}
        return make_introspector(given, queues or ("legacy",)).look(60.0)


def jobs(snapshot: QueueSnapshot) -> dict[str, int]:
    """Return how many jobs of each function wait."""
    found: Counter[str] = Counter()
    for group in snapshot.waiting:
        found[group.function] += group.jobs
    return dict(found)
