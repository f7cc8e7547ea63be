"""The functions, schemas and declared steps of one app."""

from __future__ import annotations

import typing as t

from ..errors import DefinitionError
from ..events.model import EventData
from ..events.schemas import Schemas
from .function import FAILURE_SUFFIX
from .function import Function
from .schema_versions import schema_version
from .step_function import StepFunction
from .triggers import matches
from .triggers import TriggerIndex

AnyFunction = Function[t.Any, t.Any]


class Starter(t.Protocol):
    """The extension, as far as a function needs it to start runs."""

    @property
    def is_current(self) -> bool:
        """True if the current Flask app has this extension."""

    def start_run(self, function: str, data: t.Any, id: str | None) -> str:
        """Start a run of a function in the current app; return the run's id."""


class FunctionRegistry:
    """All declarations for one app; names are unique in it.

    :param starter: The extension of the app; ``None`` for the registry of a group.
    """

    def __init__(self, starter: Starter | None = None) -> None:
        self.starter = starter
        self._functions: dict[str, AnyFunction] = {}
        #: The schema of each event that has one, by the event's name.
        self.schemas = Schemas(schema_version)
        self._declared_schemas: list[type[EventData]] = []
        self._steps: dict[str, StepFunction[..., t.Any]] = {}
        self._groups: set[str] = set()
        self._index = TriggerIndex()

    def __iter__(self) -> t.Iterator[AnyFunction]:
        return iter(self._functions.values())

    def __len__(self) -> int:
        return len(self._functions)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.get(id) is not None

    def get(self, id: str) -> AnyFunction | None:
        """Return the function *id*, or the failure handler of that id, or ``None``."""
        if id.endswith(FAILURE_SUFFIX):
            function = self._functions.get(id.removesuffix(FAILURE_SUFFIX))
            return None if function is None else function.failure_handler
        return self._functions.get(id)

    def matching(self, name: str) -> list[AnyFunction]:
        """Return the functions that an event called *name* starts."""
        return [self._functions[id] for id in self._index.match(name)]

    def declares(self, name: str) -> bool:
        """Return whether the code has an event called *name*: no wildcard counts."""
        return self._index.has(name) or self.schemas.get(name) is not None

    def specs(self) -> dict[str, dict[str, t.Any]]:
        """Return the published descriptions of the functions, by their ids.

        Each also lists the schemas that its events have to fit.
        """
        versions = {name: self.schemas.version(name) for name in self.schemas.names()}
        return {
            function.id: {
                **function.spec(),
                "schemas": {
                    name: version
                    for name, version in versions.items()
                    if name in function.schemas
                    or any(matches(trigger, name) for trigger in function.triggers)
                },
            }
            for function in self
        }

    def queues(self) -> list[str]:
        """Return the queues of all functions, sorted, each once."""
        return sorted({function.queue for function in self})

    @property
    def steps(self) -> t.Mapping[str, StepFunction[..., t.Any]]:
        """The declared steps by name."""
        return self._steps

    def add(self, function: AnyFunction) -> None:
        """Add *function* and its schemas.

        :raises DefinitionError: The id is taken, or an event of the function has
            another schema.
        """
        known = self._functions.get(function.id)
        if known is not None:
            _refuse("functions have the id", function.id, known, function, "id=")
        for schema in function.schemas.values():
            self.schemas.add(schema)
        for awaited in function.options.awaited.values():
            if awaited is not None:
                self.schemas.add(awaited)
        self._functions[function.id] = function
        function.registries.add(self)
        for pattern in function.triggers:
            self._index.add(pattern, function.id)

    def add_schema(self, schema: type[EventData]) -> None:
        """Add the *schema* of an event.

        :raises DefinitionError: The schema has no event name, or the name has another
            schema.
        """
        self.schemas.add(schema)
        self._declared_schemas.append(schema)

    def add_step(self, step: StepFunction[..., t.Any]) -> None:
        """Add a declared *step*.

        :raises DefinitionError: The name is taken.
        """
        known = self._steps.setdefault(step.name, step)
        if known is not step:
            _refuse("declared steps have the name", step.name, known, step, "a name")

    def include_group(self, name: str, group: FunctionRegistry) -> None:
        """Add the declarations of the group called *name*.

        :raises DefinitionError: A group of that name is here already, or one of its
            ids, names or schemas is taken.
        """
        if name in self._groups:
            raise DefinitionError(
                f"A group called {name!r} is registered already.",
                hint="Register a group once an app, and give each group its own name.",
            )
        self._groups.add(name)
        for schema in group._declared_schemas:
            self.add_schema(schema)
        for step in group._steps.values():
            self.add_step(step)
        for function in group:
            self.add(function)


class _Placed(t.Protocol):
    defined_at: str


def _refuse(what: str, name: str, first: _Placed, second: _Placed, fix: str) -> None:
    if first.defined_at == second.defined_at:
        raise DefinitionError(
            f"Two {what} {name!r}, both from {first.defined_at}.",
            hint="Its module is imported under two names, or its decorator runs twice:"
            " declare it once, at the top of a module.",
        )
    raise DefinitionError(
        f"Two {what} {name!r}: {first.defined_at} and {second.defined_at}.",
        hint=f"Give one of them {fix} of its own.",
    )
