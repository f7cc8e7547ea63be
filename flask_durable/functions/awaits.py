"""The events that steps wait for: one name each, by itself or as a class."""

from __future__ import annotations

import typing as t

from ..events.model import check_event_name
from ..events.model import EventData
from ..events.model import RESERVED_PREFIX

#: One awaited event as users write it.
Awaited = str | type[EventData]


def read_awaited(event: t.Any) -> tuple[str, type[EventData] | None]:
    """Return the name of an awaited event, and its schema if it is given as a class.

    :raises ValueError: No step can wait for it. Its text is the rest of a sentence, its
        second argument says what to do.
    """
    schema, name = None, event
    if isinstance(event, type) and issubclass(event, EventData):
        schema, name = event, event.__event_name__
        if name is None:
            raise ValueError(
                "has no event name",
                f"Declare it as \"class {event.__name__}(EventData, name='a/b')\".",
            )
    if isinstance(name, str) and "*" in name:
        raise ValueError(
            "has a wildcard",
            "Name one event. For several, have a function on= the wildcard send the "
            "one that is awaited.",
        )
    if problem := check_event_name(name):
        hint = 'Give the name of an event, such as "order/paid", or its class.'
        raise ValueError(problem, hint)
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(
            "is sent to functions only",
            "Have a function on= it send an event of your own.",
        )
    return name, schema
