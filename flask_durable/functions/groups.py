"""Functions that are declared away from the app, as blueprints are."""

from __future__ import annotations

import typing as t

from ..errors import DefinitionError
from .checks import check_id
from .decorators import Decorators
from .options import FunctionKeywords
from .options import FunctionOptions
from .registry import FunctionRegistry


class DurableGroup(Decorators):
    """Functions, steps and schemas that ``durable.register(group)`` adds to an app.

    ::

        media = DurableGroup("media", queue="media", retries=5)

        @media.function(on="media/uploaded")
        def transcode(event, step): ...

        durable.register(media)     # the function's id is "media.transcode"

    :param name: The prefix, with a dot, of the ids of its functions and of the names
        of its declared steps.
    :param function_defaults: The options of its functions that set none themselves.
    :raises DefinitionError: The name or a default is not valid.
    """

    def __init__(
        self, name: str, **function_defaults: t.Unpack[FunctionKeywords]
    ) -> None:
        check_id(name)
        FunctionOptions.of(function_defaults)
        self.name = name
        self.functions = FunctionRegistry()
        self._prefix = f"{name}."
        self._defaults = function_defaults
        self._registered = False

    def apply(self, registry: FunctionRegistry) -> None:
        """Add all declarations of the group to *registry*.

        :raises DefinitionError: A group of this name is in it already, or one of the
            group's ids, names or schemas is taken.
        """
        registry.include_group(self.name, self.functions)
        self._registered = True

    def _open(self) -> None:
        if self._registered:
            raise DefinitionError(
                f"The group {self.name!r} is registered already; what is declared "
                "now would be missing.",
                hint="Import the group's modules before durable.register(group).",
            )

    def __repr__(self) -> str:
        return f"<DurableGroup {self.name!r}>"
