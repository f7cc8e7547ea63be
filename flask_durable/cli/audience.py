"""The functions that an event reaches, in this app and in its other processes."""

from __future__ import annotations

import difflib
import typing as t
from dataclasses import dataclass

from ..functions.cron import Cron
from ..functions.triggers import matches

if t.TYPE_CHECKING:
    from ..functions.registry import FunctionRegistry
    from ..store.directory import Directory

#: Names of a kind that a note lists.
_NEAREST = 3


@dataclass(frozen=True)
class Known:
    """A function of the app.

    :param spec: What its processes publish about it.
    :param here: Whether this process has its code.
    :param published: Whether a worker has said that it has its code.
    """

    spec: t.Mapping[str, t.Any]
    here: bool
    published: bool

    @property
    def crons(self) -> list[Cron]:
        """The schedules that start it."""
        return [Cron(**spec) for spec in self.spec.get("crons", ())]


@dataclass(frozen=True)
class Audience:
    """What an event called *name* reaches.

    :param functions: The functions with a trigger for it.
    :param required: Those of them that no ``where=`` can keep from a run.
    :param nearest: The nearest known triggers, if there is no function.
    :param workers: Whether a worker is alive.
    """

    name: str
    functions: frozenset[str]
    required: frozenset[str]
    nearest: tuple[str, ...]
    workers: bool

    def notes(self) -> t.Iterator[str]:
        """Return what the sender should know."""
        if not self.functions:
            known = f" The nearest: {', '.join(self.nearest)}." if self.nearest else ""
            yield f"No function waits for {self.name!r}.{known}"
        elif not self.workers:
            yield "No worker is alive: the event waits until one is started."


def known_functions(
    functions: FunctionRegistry, directory: Directory
) -> dict[str, Known]:
    """Return the functions by id: of this process, and of all that published any.

    :raises redis.RedisError: The state server did not answer.
    """
    here = {function.id: function.spec() for function in functions}
    published = directory.current().functions
    return {
        id: Known(here.get(id) or published[id], id in here, id in published)
        for id in sorted(here.keys() | published.keys())
    }


def audience_of(
    name: str, functions: FunctionRegistry, directory: Directory
) -> Audience:
    """Return what an event called *name* reaches.

    :raises redis.RedisError: The state server did not answer.
    """
    known = known_functions(functions, directory)
    specs = {id: function.spec for id, function in known.items()}
    reached = {
        id: spec
        for id, spec in specs.items()
        if any(matches(trigger, name) for trigger in spec["triggers"])
    }
    triggers = {trigger for spec in specs.values() for trigger in spec["triggers"]}
    return Audience(
        name,
        functions=frozenset(reached),
        required=frozenset(id for id, spec in reached.items() if not spec["where"]),
        nearest=tuple(difflib.get_close_matches(name, triggers, _NEAREST, cutoff=0.4)),
        workers=bool(directory.workers()),
    )
