"""Creates objects from a dictionary with a name and options."""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing as t
from importlib.metadata import entry_points

from pydantic import ConfigDict
from pydantic import create_model
from pydantic import ValidationError

from ..errors import ConfigurationError

Made = t.TypeVar("Made")


class Registry(t.Generic[Made]):
    """The known names of one kind of object.

    :param kind: The key of the name in the dictionary.
    :param group: The group of entry points through which other distributions add names.
    :param package: The package of our modules; a module has the name of its object.
    :param ours: The classes in our modules, by name. They cannot be replaced.
    """

    def __init__(
        self, kind: str, group: str, package: str, ours: t.Mapping[str, str]
    ) -> None:
        self._kind = kind
        self._group = group
        self._package = package
        self._ours = ours

    def make(self, options: t.Mapping[str, t.Any]) -> Made:
        """Return the object that *options* name, created from the other options.

        :raises ConfigurationError: The name is unknown, or one of its options is
            unknown, missing or wrong.
        """
        given = dict(options)
        name = given.pop(self._kind, None)
        factory = self._factory(name)
        return factory(**_checked(f"{self._kind} {name}", factory, given))

    def _factory(self, name: t.Any) -> t.Callable[..., Made]:
        if name in self._ours:
            module = importlib.import_module(f".{name}", self._package)
            return t.cast("t.Callable[..., Made]", getattr(module, self._ours[name]))
        others = {entry.name: entry for entry in entry_points(group=self._group)}
        if name in others:
            return t.cast("t.Callable[..., Made]", others[name].load())
        raise ConfigurationError(
            f"There is no {self._kind} {name!r}.",
            hint=_hint(name, {*self._ours, *others}),
        )


def _checked(
    name: str, factory: t.Callable[..., t.Any], given: dict[str, t.Any]
) -> dict[str, t.Any]:
    """Return the options, validated against the parameters of *factory*."""
    parameters = inspect.signature(factory, eval_str=True).parameters
    for key in given.keys() - parameters.keys():
        raise ConfigurationError(
            f"The {name} has no option {key!r}.", hint=_hint(key, parameters)
        )
    fields: dict[str, t.Any] = {
        key: (p.annotation, ... if p.default is p.empty else p.default)
        for key, p in parameters.items()
    }
    model = create_model("Options", __config__=ConfigDict(strict=True), **fields)
    try:
        found = model.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(_faults(name, error)) from None
    return {key: getattr(found, key) for key in given}


def _faults(name: str, error: ValidationError) -> str:
    # Without the value: it may be a token.
    faults = {
        str(fault["loc"][0]): "is missing" if fault["type"] == "missing" else "is wrong"
        for fault in error.errors(include_input=False, include_url=False)
    }
    texts = [f"{key!r} {what}" for key, what in faults.items()]
    return f"The options of the {name} cannot be used: {', '.join(texts)}."


def _hint(name: t.Any, known: t.Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1)
    suggestion = f"Did you mean {near[0]!r}? " if near else ""
    return f"{suggestion}Known: {', '.join(sorted(known))}."
