"""Sources of measured durations: one module a source, chosen by name in the options.

Other distributions add sources by an entry point in the group
``flask_durable.duration_sources``. The entry point's name is the source's. It refers to
a class (or function) whose keyword parameters are the options. Ours cannot be replaced.
"""

from __future__ import annotations

import typing as t

from ..plugins import Registry
from .base import DurationSource
from .chain import SourceChain

__all__ = [
    "DurationSource",
    "make_source",
    "SourceChain",
]

_SOURCES: Registry[DurationSource] = Registry(
    "source",
    "flask_durable.duration_sources",
    __package__,
    {
        "appsignal": "AppSignalSource",
        "appsignal_graphql": "AppSignalGraphQLSource",
        "cloudwatch": "CloudWatchSource",
        "datadog": "DatadogSource",
        "graphite": "GraphiteSource",
        "prometheus": "PrometheusSource",
        "sentry": "SentrySource",
    },
)


def make_source(options: t.Mapping[str, t.Any]) -> DurationSource:
    """Return the source named ``options["source"]``. Connects to nothing.

    :param options: The name, and the source's own options, for example
        ``{"source": "prometheus", "url": "http://prometheus:9090"}``.
    :raises ConfigurationError: There is no such source, one of its options is
        unknown, missing or wrong, or an extra is not installed.
    """
    return _SOURCES.make(options)
