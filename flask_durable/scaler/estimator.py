"""Durations of functions, from our workers' measurements or from other sources.

::

    workers' histograms ──► enough? ──► yes ─────────────┐
                               └► no ──► sources in turn ─┴► shrunk ──► the policy

A mean of few deliveries may be far off, so it is drawn towards the mean of the whole
queue, the more the fewer there are. A function without any measurement is left out: the
policy takes the mean of the others for it, or the pool's guess.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing as t

from ..store.measurements.efforts import Effort
from ..store.measurements.histogram import Histogram
from .decision.observation import ServiceTime
from .pool_state import PoolState
from .sources import make_source
from .sources import SourceChain

#: The source name of our own measurements.
WORKERS = "workers"

#: The weight of the queue's mean, in deliveries. From this many measured deliveries on,
#: no other source is asked.
MANY_SAMPLES = 10

_SECRET = re.compile("token|key|secret|password")


class Measured(t.Protocol):
    """Gives access to the measurements of the workers."""

    def read(self, functions: t.Collection[str]) -> t.Mapping[str, Histogram]:
        """Return the recent service times of those *functions* that have any."""

    def read_efforts(
        self, functions: t.Collection[str]
    ) -> t.Mapping[str, t.Mapping[str, Effort]]:
        """Return the effort of deliveries since yesterday, by size of the worker."""


class Estimator:
    """Estimates how long the functions of one pool take.

    :param measured: The measurements of the workers.
    :param sources: Other sources, for functions with too few measurements.
    """

    def __init__(self, measured: Measured, sources: SourceChain) -> None:
        self._measured = measured
        self._sources = sources

    def read(self, functions: t.Collection[str]) -> dict[str, ServiceTime]:
        """Return the service times of those *functions* that have a known one.

        :raises redis.RedisError: The state server does not answer.
        """
        measured = self._measured.read(functions)
        efforts = self._measured.read_efforts(measured.keys())
        own = {
            function: ServiceTime(
                known.mean,
                known.variance,
                known.samples,
                known.quantile(0.95),
                WORKERS,
                _computing(efforts[function]),
                _means(efforts[function]),
            )
            for function, known in measured.items()
        }
        few = [f for f in functions if f not in own or own[f].samples < MANY_SAMPLES]
        return shrunk(own | self._sources.read(few))


def _computing(sizes: t.Mapping[str, Effort]) -> float | None:
    """Return the share of the time that was computing, on workers of any size."""
    measured = sum(effort.measured for effort in sizes.values())
    computing = sum(effort.computing for effort in sizes.values())
    return computing / measured if measured else None


def _means(sizes: t.Mapping[str, Effort]) -> dict[str, float]:
    return {size: it.seconds / it.samples for size, it in sizes.items() if it.samples}


def shrunk(times: t.Mapping[str, ServiceTime]) -> dict[str, ServiceTime]:
    """Draw each mean to that of all deliveries, which counts as ten of its own.

    ``(n m + 10 m̄) / (n + 10)``. The variance is that of such a mixture, so it is the
    larger the less a function is like the others. Percentiles stay as they are.
    """
    total = sum(known.samples for known in times.values())
    if not total:
        return dict(times)
    mean = sum(known.samples * known.mean for known in times.values()) / total
    square = sum(
        known.samples * (known.variance + known.mean**2) for known in times.values()
    )
    queue = ServiceTime(mean, max(square / total - mean**2, 0.0))
    return {function: _drawn(known, queue) for function, known in times.items()}


def _drawn(known: ServiceTime, queue: ServiceTime) -> ServiceTime:
    own = known.samples / (known.samples + MANY_SAMPLES)
    within = own * known.variance + (1 - own) * queue.variance
    between = own * (1 - own) * (known.mean - queue.mean) ** 2
    return dataclasses.replace(
        known,
        mean=own * known.mean + (1 - own) * queue.mean,
        variance=within + between,
    )


def sources_of(
    options: t.Sequence[t.Mapping[str, t.Any]], pool_state: PoolState
) -> SourceChain:
    """Return the sources with these *options*, as one chain. Connects to nothing.

    Their answers are kept under a digest of their options, so that other options never
    get the same answers.

    :raises ConfigurationError: A source is unknown, or one of its options is wrong.
    """
    public = [
        {name: given[name] for name in given if not _SECRET.search(name)}
        for given in options
    ]
    text = json.dumps(public, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return SourceChain(
        [make_source(given) for given in options], pool_state.source_cache(digest)
    )
