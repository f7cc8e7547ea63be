"""Makes an introspector of its name and options.

Other distributions add introspectors by an entry point in the group
``flask_durable.introspectors``: its name is the introspector's, and it leads to a class
(or function) whose keyword parameters are ``queues`` and the options. Ours cannot be
replaced.
"""

from __future__ import annotations

import typing as t

from ..introspector import Introspector
from ..registry import Registry

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
    """Return the one that ``options["introspector"]`` names. Connects to nothing.

    :param options: The other ones are its own, for example
        ``{"introspector": "rq", "url": "redis://localhost:6379/0"}``.
    :param queues: The names of the queues to look into.
    :raises ConfigurationError: There is no such introspector, one of its options is
        unknown, missing or wrong, or what it needs is not installed.
    """
    return _INTROSPECTORS.make({**options, "queues": list(queues)})
