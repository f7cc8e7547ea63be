"""Platforms that run workers: one module a platform, chosen by name in the options.

Other distributions add platforms by an entry point in the group
``flask_durable.platforms``. The entry point's name is the platform's. It refers to a
class (or function) whose keyword parameters are the options. Ours cannot be replaced.
"""

from __future__ import annotations

import typing as t

from ..decision.observation import Size
from ..plugins import Registry
from .base import Applied
from .base import Platform
from .base import Traits

__all__ = [
    "Applied",
    "make_platform",
    "Platform",
    "Size",
    "Traits",
]

_PLATFORMS: Registry[Platform] = Registry(
    "platform",
    "flask_durable.platforms",
    __package__,
    {
        "asg": "AutoScalingPlatform",
        "command": "CommandPlatform",
        "ecs": "ECSPlatform",
        "elasticbeanstalk": "ElasticBeanstalkPlatform",
        "fixed": "FixedPlatform",
        "fly": "FlyPlatform",
        "heroku": "HerokuPlatform",
        "kubernetes": "KubernetesPlatform",
    },
)


def make_platform(options: t.Mapping[str, t.Any]) -> Platform:
    """Return the platform named ``options["platform"]``. Connects to nothing.

    :param options: The name, and the platform's own options, for example
        ``{"platform": "heroku", "app": "myapp", "process": "media"}``.
    :raises ConfigurationError: There is no such platform, one of its options is
        unknown, missing or wrong, or an extra is not installed.
    """
    return _PLATFORMS.make(options)
