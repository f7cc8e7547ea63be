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

#: The most names that a note lists.
_NEAREST = 3


@dataclass(frozen=True)
class Known:
    """A function of the app.

    :param spec: The published description of it.
    :param here: True if this process has its code.
    :param published: The description by processes that have its code, or had it within
        the last hour; ``None`` if none had.
    :param alive: True if a living process has its code.
    """

    spec: t.Mapping[str, t.Any]
    here: bool
    published: t.Mapping[str, t.Any] | None
    alive: bool

    @property
    def crons(self) -> list[Cron]:
        """The schedules that start the function."""
        return [Cron(**spec) for spec in self.spec.get("crons", ())]


@dataclass(frozen=True)
class Audience:
    """The functions that an event called *name* reaches.

    :param functions: The functions with a trigger for it that a worker has, or all of
        them if no worker is alive.
    :param required: Those of them that no ``where=`` can keep from a run.
    :param abandoned: The functions with a trigger for it whose code no worker has,
        though workers are alive: a run of them is not executed.
    :param nearest: The nearest triggers and awaited names, if there is no function.
    :param awaited: True if steps wait for such events, as far as is known.
    :param workers: True if a worker is alive.
    """

    name: str
    functions: frozenset[str]
    required: frozenset[str]
    abandoned: frozenset[str]
    nearest: tuple[str, ...]
    workers: bool
    awaited: bool

    def notes(self) -> t.Iterator[str]:
        """Yield notes for the sender."""
        for id in sorted(self.abandoned):
            yield f"No worker has the code of {id}: no run of it is waited for."
        if not self.functions and not self.abandoned and self.awaited:
            yield f"No function starts with {self.name!r}: it is for steps that wait."
        elif not self.functions and not self.abandoned:
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
    alive = directory.alive()
    return {
        id: Known(
            here.get(id) or published[id], id in here, published.get(id), id in alive
        )
        for id in sorted(here.keys() | published.keys())
    }


def audience_of(
    name: str, functions: FunctionRegistry, directory: Directory
) -> Audience:
    """Return the functions that an event called *name* reaches.

    :raises redis.RedisError: The state server did not answer.
    """
    known = known_functions(functions, directory)
    # The workers' descriptions count, if there are any.
    specs = {id: item.published or item.spec for id, item in known.items()}
    reached = {
        id: spec
        for id, spec in specs.items()
        if any(matches(trigger, name) for trigger in spec["triggers"])
    }
    workers = bool(directory.workers())
    alive = {id for id in reached if known[id].alive}
    if workers:
        reached, abandoned = {id: reached[id] for id in alive}, reached.keys() - alive
    else:
        abandoned = set()
    triggers = {trigger for spec in specs.values() for trigger in spec["triggers"]}
    declared = {name for spec in specs.values() for name in spec.get("awaits", ())}
    return Audience(
        name,
        functions=frozenset(reached),
        required=frozenset(id for id, spec in reached.items() if not spec["where"]),
        abandoned=frozenset(abandoned),
        nearest=tuple(
            difflib.get_close_matches(name, triggers | declared, _NEAREST, cutoff=0.4)
        ),
        workers=workers,
        awaited=name in declared or name in directory.current().awaited,
    )
