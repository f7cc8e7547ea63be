"""The triggers of functions: exact names, wildcards and schedules."""

from __future__ import annotations

import typing as t

from ..errors import DefinitionError
from ..events.builtin import CronTick
from ..events.model import check_pattern
from ..events.model import EventData
from ..events.model import RESERVED_PREFIX
from .cron import Cron

#: One trigger as users write it.
Trigger = type[EventData] | str | Cron

#: Most schedules of one function.
MAX_CRONS = 10


def matches(pattern: str, name: str) -> bool:
    """Return whether an event called *name* fits the trigger *pattern*.

    ``media/*`` fits every name that begins with ``media/``, ``app/user.*`` every one
    that begins with ``app/user.``, and ``*`` fits all, except that wildcards never fit
    the events of Flask-Durable itself, ``durable/…``: a function on ``*`` would
    otherwise start itself for ever.
    """
    if not pattern.endswith("*"):
        return pattern == name
    return name.startswith(pattern[:-1]) and not name.startswith(RESERVED_PREFIX)


class TriggerIndex:
    """Finds the functions for an event in time that depends on its name alone."""

    def __init__(self) -> None:
        self._exact: dict[str, list[str]] = {}
        self._prefixes: dict[str, list[str]] = {}

    @classmethod
    def of(cls, functions: t.Mapping[str, t.Iterable[str]]) -> TriggerIndex:
        """Make an index from function ids and their patterns."""
        index = cls()
        for function_id, patterns in functions.items():
            for pattern in patterns:
                index.add(pattern, function_id)
        return index

    def add(self, pattern: str, function_id: str) -> None:
        """Note that *pattern* starts the function *function_id*."""
        if pattern.endswith("*"):
            self._prefixes.setdefault(pattern[:-1], []).append(function_id)
        else:
            self._exact.setdefault(pattern, []).append(function_id)

    def has(self, name: str) -> bool:
        """Return whether a function names *name* itself, not by a wildcard."""
        return name in self._exact

    def match(self, name: str) -> list[str]:
        """Return the ids of the functions for an event called *name*, each once."""
        found = dict.fromkeys(self._exact.get(name, ()))
        if self._prefixes and not name.startswith(RESERVED_PREFIX):
            for prefix in _prefixes(name):
                found.update(dict.fromkeys(self._prefixes.get(prefix, ())))
        return list(found)


def _prefixes(name: str) -> t.Iterator[str]:
    yield ""
    for position, character in enumerate(name, start=1):
        if character in "/.":
            yield name[:position]


class Triggers(t.NamedTuple):
    """The triggers of one function.

    :param patterns: Names and wildcards of events.
    :param schemas: The schema of each event that is named by class.
    :param crons: The schedules that start the function.
    """

    patterns: tuple[str, ...] = ()
    schemas: dict[str, type[EventData]] = {}
    crons: tuple[Cron, ...] = ()


def read_triggers(on: t.Any) -> Triggers:
    """Return the triggers that *on* names.

    :param on: A name, a wildcard, an :class:`EventData` class, a :class:`Cron`, a
        sequence of these, or ``None`` for a function that is only invoked.
    :raises DefinitionError: *on* is none of these, is empty, or names one twice.
    """
    if on is None:
        return Triggers()
    if not isinstance(on, (list, tuple, set, frozenset)):
        on = (on,)
    elif not on:
        raise DefinitionError(
            "on= is an empty sequence, so that no event starts the function.",
            hint="Name an event, or write on=None for a function that is only invoked.",
        )
    crons = _checked_crons([trigger for trigger in on if isinstance(trigger, Cron)])
    patterns: list[str] = []
    schemas: dict[str, type[EventData]] = {}
    if crons:
        schemas[event_name_of(CronTick)] = CronTick
    for trigger in on:
        if isinstance(trigger, Cron):
            continue
        pattern = _pattern_of(trigger)
        if pattern in patterns:
            raise DefinitionError(f"on= names {pattern!r} twice.", hint="Remove one.")
        patterns.append(pattern)
        if isinstance(trigger, type):
            schemas[pattern] = trigger
    return Triggers(tuple(patterns), schemas, crons)


def _checked_crons(crons: list[Cron]) -> tuple[Cron, ...]:
    texts = [str(cron) for cron in crons]
    for text in texts:
        if texts.count(text) > 1:
            raise DefinitionError(f"on= has the schedule {text!r} twice.")
    if len(crons) > MAX_CRONS:
        raise DefinitionError(
            f"on= has {len(crons)} schedules; a function may have {MAX_CRONS}."
        )
    return tuple(crons)


def _pattern_of(trigger: t.Any) -> str:
    if trigger in (CronTick, CronTick.__event_name__):
        raise DefinitionError(
            "A tick starts the function that has the schedule, and no other.",
            hint='Give this one a schedule: on=Cron("*/5 * * * *").',
        )
    if isinstance(trigger, type) and issubclass(trigger, EventData):
        return event_name_of(trigger)
    if not isinstance(trigger, str):
        raise DefinitionError(
            f"on= has {trigger!r}, which is neither an event's name nor an EventData "
            "class nor a Cron.",
            hint='Write on="media/uploaded", on="media/*", on=MediaUploaded or '
            'on=Cron("*/5 * * * *").',
        )
    if problem := check_pattern(trigger):
        raise DefinitionError(
            f"The trigger {trigger!r} {problem}.",
            hint='Wildcards are "media/*", "app/user.*" and "*".',
        )
    if trigger.endswith("*") and trigger.startswith(RESERVED_PREFIX):
        raise DefinitionError(
            f"The wildcard {trigger!r} matches nothing: wildcards leave out the events "
            f"under {RESERVED_PREFIX!r}.",
            hint='Name each, such as "durable/function.failed".',
        )
    return trigger


def event_name_of(schema: type[EventData]) -> str:
    """Return the event name of *schema*.

    :raises DefinitionError: The class has none.
    """
    if schema.__event_name__ is None:
        raise DefinitionError(
            f"{schema.__name__} has no event name.",
            hint=f"Declare it as \"class {schema.__name__}(EventData, name='a/b')\".",
        )
    return schema.__event_name__
