"""The table of all metrics, in the order of the page on metrics."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Kind = t.Literal["counter", "timing", "gauge"]


@dataclass(frozen=True)
class Metric:
    """The description of one metric.

    :param name: The metric's name without the common prefix.
    :param kind: A counter, a duration or a gauge.
    :param unit: The unit of its values.
    :param tags: The names of its tags.
    :param text: The moment when a value is added, or the quantity that a gauge shows.
    """

    name: str
    kind: Kind
    unit: str
    tags: tuple[str, ...]
    text: str


METRICS = (
    Metric(
        "event.accepted",
        "counter",
        "events",
        ("event",),
        "The queue took an event.",
    ),
    Metric(
        "event.spooled",
        "counter",
        "events",
        ("event",),
        "The queue did not take an event; the state server keeps the event until the "
        "queue is back.",
    ),
    Metric(
        "event.refused",
        "counter",
        "events",
        ("event",),
        "An event was not taken by the queue, nor by the state server; its sender got "
        "an error.",
    ),
    Metric(
        "event.routed",
        "counter",
        "events",
        ("event",),
        "A worker created the runs of an event, if any function wants it.",
    ),
    Metric(
        "event.duplicate",
        "counter",
        "events",
        ("event",),
        "An event was received again, and all its runs existed.",
    ),
    Metric(
        "event.failed",
        "counter",
        "events",
        ("event",),
        "An event could not be routed now, or is a dead letter.",
    ),
    Metric(
        "event.latency",
        "timing",
        "ms",
        ("function",),
        "A run begins: since its event happened.",
    ),
    Metric(
        "queue.wait",
        "timing",
        "ms",
        ("queue", "function"),
        "An attempt of a run or a branch begins: since it was queued.",
    ),
    Metric(
        "step.completed",
        "counter",
        "steps",
        ("function", "kind"),
        "The result of a step was committed.",
    ),
    Metric(
        "step.failed",
        "counter",
        "steps",
        ("function", "kind"),
        "A step failed for good.",
    ),
    Metric(
        "step.retried",
        "counter",
        "steps",
        ("function", "kind"),
        "An attempt of a step failed, and there will be another one.",
    ),
    Metric(
        "step.resumed",
        "counter",
        "steps",
        ("function",),
        "The body of a step went on from a checkpoint.",
    ),
    Metric(
        "step.memoized",
        "counter",
        "steps",
        ("function",),
        "An attempt of a run found steps done; the value is their number.",
    ),
    Metric(
        "step.duration",
        "timing",
        "ms",
        ("function", "kind"),
        "An attempt of a step completed or failed: with its commit.",
    ),
    Metric(
        "wait.begun",
        "counter",
        "steps",
        ("function", "kind"),
        "A step begins to wait: for an event, a run, its branches, or its next look.",
    ),
    Metric(
        "wait.duration",
        "timing",
        "ms",
        ("function", "kind", "outcome"),
        "A run goes on with the answer to a wait: since the wait began.",
    ),
    Metric(
        "branch.duration",
        "timing",
        "ms",
        ("function", "outcome"),
        "A branch completes or fails: since it was created.",
    ),
    Metric(
        "run.duration",
        "timing",
        "ms",
        ("function",),
        "A run completes or fails: since it was created, sleeps included.",
    ),
    Metric(
        "run.started",
        "counter",
        "runs",
        ("function",),
        "Runs were created, or failed ones retried.",
    ),
    Metric("run.completed", "counter", "runs", ("function",), "Runs completed."),
    Metric("run.failed", "counter", "runs", ("function",), "Runs failed."),
    Metric(
        "run.cancelled",
        "counter",
        "runs",
        ("function",),
        "Runs were cancelled, by a person or a timeout.",
    ),
    Metric(
        "runs",
        "gauge",
        "runs",
        ("state",),
        "Runs that are queued, running, suspended, paused.",
    ),
    Metric(
        "queue.depth",
        "gauge",
        "messages",
        ("queue",),
        "Messages that wait, also in the events' own queue.",
    ),
    Metric(
        "queue.in_flight",
        "gauge",
        "messages",
        ("queue",),
        "Messages that were received and are not deleted.",
    ),
    Metric("queue.dead", "gauge", "messages", ("queue",), "Dead letters."),
    Metric(
        "queue.oldest",
        "gauge",
        "s",
        ("queue",),
        "The time that the oldest run has waited; 0 without one.",
    ),
    Metric("worker.busy", "gauge", "threads", (), "Run threads with a run."),
    Metric("worker.idle", "gauge", "threads", (), "Run threads without one."),
)
