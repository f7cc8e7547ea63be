"""Makes a platform of its name and options.

Other distributions add platforms by an entry point in the group
``flask_durable.platforms``: its name is the platform's, and it leads to a class (or
function) whose keyword parameters are the options. Ours cannot be replaced.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing as t
from importlib.metadata import entry_points

from pydantic import ConfigDict
from pydantic import create_model
from pydantic import ValidationError

from ...errors import ConfigurationError
from ..platform import Platform

GROUP = "flask_durable.platforms"

_OURS = {
    "asg": "AutoScalingPlatform",
    "command": "CommandPlatform",
    "ecs": "ECSPlatform",
    "elasticbeanstalk": "ElasticBeanstalkPlatform",
    "fixed": "FixedPlatform",
    "fly": "FlyPlatform",
    "heroku": "HerokuPlatform",
    "kubernetes": "KubernetesPlatform",
}

_Factory = t.Callable[..., Platform]


def make_platform(options: t.Mapping[str, t.Any]) -> Platform:
    """Return the platform that ``options["platform"]`` names. Connects to nothing.

    :param options: The other ones are its own, for example
        ``{"platform": "heroku", "app": "myapp", "process": "media"}``.
    :raises ConfigurationError: There is no such platform, one of its options is
        unknown, missing or wrong, or an extra is not installed.
    """
    given = dict(options)
    name = given.pop("platform", None)
    factory = _factory(name)
    return factory(**_checked(str(name), factory, given))


def _factory(name: t.Any) -> _Factory:
    if name in _OURS:
        module = importlib.import_module(f".{name}", __package__)
        return t.cast(_Factory, getattr(module, _OURS[name]))
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name in others:
        return t.cast(_Factory, others[name].load())
    raise ConfigurationError(
        f"There is no platform {name!r}.", hint=_hint(name, {*_OURS, *others})
    )


def _checked(name: str, factory: _Factory, given: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the options as *factory* takes them."""
    parameters = inspect.signature(factory, eval_str=True).parameters
    for key in given.keys() - parameters.keys():
        raise ConfigurationError(
            f"The platform {name} has no option {key!r}.", hint=_hint(key, parameters)
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
    # Never with the value: it may be a token.
    faults = {
        str(fault["loc"][0]): "is missing" if fault["type"] == "missing" else "is wrong"
        for fault in error.errors(include_input=False, include_url=False)
    }
    texts = [f"{key!r} {what}" for key, what in faults.items()]
    return f"The options of the platform {name} cannot be used: {', '.join(texts)}."


def _hint(name: t.Any, known: t.Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1)
    suggestion = f"Did you mean {near[0]!r}? " if near else ""
    return f"{suggestion}Known: {', '.join(sorted(known))}."
