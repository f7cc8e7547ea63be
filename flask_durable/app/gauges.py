"""The gauges of the whole app, see the page on metrics.

The leader of the workers reads them for statsd, a web process for Prometheus.
"""

from __future__ import annotations

import typing as t

from ..messages import EVENT_QUEUE
from ..scaler.introspectors.own import RunSensor
from ..store.status import RunStatus

if t.TYPE_CHECKING:
    from .state import AppState

#: A gauge: its name, its value, and its tags.
Reading = tuple[str, float, dict[str, str]]

_UNFINISHED = tuple(status for status in RunStatus if not status.finished)


def readings(state: AppState) -> t.Iterator[Reading]:
    """Read all gauges of the app of *state*.

    :raises redis.RedisError: The state server did not answer.
    :raises UnavailableError: The queue did not answer.
    """
    for status in _UNFINISHED:
        yield "runs", state.store.count(status), {"state": str(status)}
    yield from _of_workers(state)
    yield from _of_queues(state)


def _of_workers(state: AppState) -> t.Iterator[Reading]:
    workers = state.directory.workers()
    busy = sum(worker["busy"] for worker in workers)
    threads = sum(worker["threads"] for worker in workers)
    yield "worker.busy", busy, {}
    yield "worker.idle", max(threads - busy, 0), {}


def _of_queues(state: AppState) -> t.Iterator[Reading]:
    functions = state.directory.current().functions.values()
    queues = sorted({function["queue"] for function in functions})
    ages = _oldest(state, queues)
    for queue in (EVENT_QUEUE, *queues):
        counts, tags = state.transport.counts(queue), {"queue": queue}
        yield "queue.depth", counts.waiting + counts.delayed, tags
        yield "queue.in_flight", counts.in_flight, tags
        yield "queue.dead", counts.dead, tags
        if queue in ages:
            yield "queue.oldest", ages[queue], tags


def _oldest(state: AppState, queues: t.Sequence[str]) -> dict[str, float]:
    """Return for each queue the seconds that its oldest run has waited."""
    seen = RunSensor(state.server, state.store.keys, queues).look(0)
    ages = dict.fromkeys(queues, 0.0)
    for group in seen.waiting:
        queue = seen.queues[group.function]
        ages[queue] = max(ages[queue], group.oldest)
    return ages
