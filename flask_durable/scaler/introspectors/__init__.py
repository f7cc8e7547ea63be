"""Introspectors for queues of other libraries: one module a library, chosen by name.

Other distributions add introspectors by an entry point in the group
``flask_durable.introspectors``. The entry point's name is the introspector's. It refers
to a class (or function) whose keyword parameters are ``queues`` and the options. Ours
cannot be replaced.
"""

from __future__ import annotations

import typing as t

from ..plugins import Registry
from .base import Introspector
from .base import QueueSnapshot

__all__ = [
    "Introspector",
    "make_introspector",
    "QueueSnapshot",
]

_INTROSPECTORS: Registry[Introspector] = Registry(
    "introspector",
    "flask_durable.introspectors",
    __package__,
    {
        "celery": "CeleryIntrospector",
        "dramatiq": "DramatiqIntrospector",
        "rq": "RQIntrospector",
    },
)


def make_introspector(
    options: t.Mapping[str, t.Any], queues: t.Iterable[str]
) -> Introspector:
    """Return the introspector named ``options["introspector"]``. Connects to nothing.

    :param options: The name, and the introspector's own options, for example
        ``{"introspector": "rq", "url": "redis://localhost:6379/0"}``.
    :param queues: The names of the queues to look into.
    :raises ConfigurationError: There is no such introspector, one of its options is
        unknown, missing or wrong, or a package that it needs is not installed.
    """
    return _INTROSPECTORS.make({**options, "queues": list(queues)})
