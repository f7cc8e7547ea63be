"""The metrics over HTTP, as Prometheus reads them.

``GET <prefix>/metrics``
    All metrics of the whole app, whichever of its processes is asked. The counts and
    times of all processes are added up on the state server; current numbers are read
    there and from the queues. So one address is scraped, not each process.

There is no such route without ``DURABLE_METRICS_SECRETS``.
"""

from __future__ import annotations

import importlib
import itertools
import typing as t
from collections import defaultdict

from flask import Blueprint
from flask import request
from flask import Response

from ..app.gauges import readings
from ..app.state import AppState
from ..common.safe_logging import get_logger
from ..errors import ConfigurationError
from ..observe.metrics.catalogue import Metric
from ..observe.metrics.catalogue import METRICS
from ..observe.metrics.totals import BOUNDS
from ..security.keys import bearer_of
from ..security.keys import hash_event_key
from ..security.keys import matches_event_key
from ..store.measurements.run_counts import RUN_COUNTS
from .http import json_response
from .http import Refused

#: The beginning of every name.
PREFIX = "durable_"

_Labels = tuple[tuple[str, str], ...]
#: The values of a metric: by labels, and for durations by part.
_Values = dict[_Labels, dict[str, float]]

logger = get_logger(__name__)


def add_metrics_route(blueprint: Blueprint, state: AppState) -> None:
    """Add the route to *blueprint*, if the settings of *state* have a secret for it.

    :raises ConfigurationError: prometheus-client is not installed.
    """
    if state.settings.metrics_secrets:
        view = _Route(state)
        blueprint.add_url_rule("/metrics", "metrics", view.serve)


class _Route:
    def __init__(self, state: AppState) -> None:
        self.state = state
        secrets = state.settings.metrics_secrets
        self.hashes = [hash_event_key(secret) for secret in secrets]
        self.client = _import_client()

    def serve(self) -> Response:
        shown = bearer_of(request.headers.get("Authorization", ""))
        if not matches_event_key(shown, self.hashes):
            raise Refused(401, "A valid metrics secret is required.")
        try:
            families = list(self._families())
        except Exception:
            logger.exception(
                "The metrics could not be read.", extra={"action": "metrics_failed"}
            )
            return json_response(
                {"code": "unavailable", "message": "The metrics cannot be read now."},
                503,
            )
        accepted = request.headers.get("Accept", "")
        encode, content_type = self.client.exposition.choose_encoder(accepted)
        text = encode(_Found(families))
        return Response(
            text, content_type=content_type, headers={"Cache-Control": "no-store"}
        )

    def _families(self) -> t.Iterator[t.Any]:
        found = _read(self.state)
        for metric in METRICS:
            yield self._family(metric, found[metric.name])

    def _family(self, metric: Metric, values: _Values) -> t.Any:
        core, name = self.client.core, _name(metric)
        if metric.kind == "timing":
            family = core.HistogramMetricFamily(name, metric.text, labels=metric.tags)
            for labels, parts in values.items():
                family.add_metric(_texts(metric, labels), *_histogram(parts))
            return family
        counts = metric.kind == "counter"
        made = core.CounterMetricFamily if counts else core.GaugeMetricFamily
        family = made(name, metric.text, labels=metric.tags)
        for labels, parts in values.items():
            family.add_metric(_texts(metric, labels), parts[""])
        return family


class _Found:
    """The families in the form that the encoder wants."""

    def __init__(self, families: t.Sequence[t.Any]) -> None:
        self._families = families

    def collect(self) -> t.Sequence[t.Any]:
        return self._families


def _read(state: AppState) -> defaultdict[str, _Values]:
    found: defaultdict[str, _Values] = defaultdict(lambda: defaultdict(dict))
    for total, value in state.metric_totals.read().items():
        found[total.metric][total.labels][total.part] = value
    counted = state.run_counts.totals()
    # Also functions without a count so far: a rate needs a beginning.
    for function in counted.keys() | state.directory.current().functions.keys():
        for what in RUN_COUNTS:
            count = counted[function][what] if function in counted else 0
            found[f"run.{what}"][("function", function),][""] = count
    for name, value, tags in readings(state):
        found[name][tuple(tags.items())][""] = value
    return found


def _name(metric: Metric) -> str:
    seconds = metric.kind == "timing" or metric.unit == "s"
    return PREFIX + metric.name.replace(".", "_") + ("_seconds" if seconds else "")


def _texts(metric: Metric, labels: _Labels) -> list[str]:
    # A worker of an older release may know fewer.
    by_name = dict(labels)
    return [by_name.get(name, "") for name in metric.tags]


def _histogram(parts: t.Mapping[str, float]) -> tuple[list[tuple[str, float]], float]:
    """Return the counts up to each bound, and the sum of all."""
    counts = (parts.get(str(index), 0.0) for index in range(len(BOUNDS) + 1))
    bounds = [*map(str, BOUNDS), "+Inf"]
    summed = itertools.accumulate(counts)
    return list(zip(bounds, summed, strict=True)), parts.get("sum", 0.0)


def _import_client() -> t.Any:
    try:
        importlib.import_module("prometheus_client.core")
        return importlib.import_module("prometheus_client")
    except ImportError:
        raise ConfigurationError(
            "DURABLE_METRICS_SECRETS needs prometheus-client, which is not installed.",
            hint='Run `pip install "flask-durable[prometheus]"`.',
        ) from None
