"""The metrics of a process's own work; see the page on metrics.

Counts that have to add up are made in the store, by the scripts that change it. The
names of events come from the senders. Each name would be a series of its own for as
long as the process lives. So only names that the app declares, and the first
:data:`MOST_NAMES` others, are counted under their own name.
"""

from __future__ import annotations

import contextlib
import typing as t

from ...middleware import AttemptInfo
from ...middleware import Middleware
from ...middleware import RouteInfo
from ...middleware import SendInfo
from .sink import Sink
from .times import Measure

#: Most names of events that are counted though the app declares none of them.
MOST_NAMES = 1000

#: The tag of all further names.
OTHER = "other"

#: Takes a value of a series.
Append = t.Callable[[float], None]


class Metrics(Middleware):
    """Counts and times sends, routings, attempts and steps.

    :param sink: The receiver of the values.
    :param declares: A callable that tells if the app's code has an event's name.
    """

    def __init__(self, sink: Sink, declares: t.Callable[[str], bool]) -> None:
        self._sink = sink
        self._declares = declares
        self._names: set[str] = set()
        self._steps: dict[tuple[str, str, str], tuple[Append, Append]] = {}

    @contextlib.contextmanager
    def around_send(self, send: SendInfo) -> t.Iterator[None]:
        yield
        for event, outcome in zip(send.events, send.outcomes, strict=False):
            name = outcome if isinstance(outcome, str) else "refused"
            self._count(f"event.{name}", event.name)
        self._sink.sent()

    @contextlib.contextmanager
    def around_route(self, route: RouteInfo) -> t.Iterator[None]:
        yield
        for routed in route.events:
            name = routed.event.name
            if routed.error is not None:
                self._count("event.failed", name)
            elif routed.existing and not routed.created:
                self._count("event.duplicate", name)
            else:
                self._count("event.routed", name)

    def timed(
        self,
        measure: Measure,
        attempt: AttemptInfo,
        seconds: float,
        outcome: str,
        kind: str,
    ) -> None:
        """Add a duration, and the values that are known with it."""
        sink, function, took = self._sink, attempt.function, seconds * 1000
        match measure:
            case "step":
                self._step(function, kind, outcome, took)
            case "run":
                sink.timing("run.duration", took, function=function)
            case "branch":
                sink.timing("branch.duration", took, function=function, outcome=outcome)
            case "resumed":
                sink.count("step.resumed", function=function)
            case "begun":
                sink.count("wait.begun", function=function, kind=kind)
            case "answered":
                tags = {"function": function, "kind": kind, "outcome": outcome}
                sink.timing("wait.duration", took, **tags)
            case "wait":
                self._claimed(attempt, took)

    def flush(self) -> None:
        """Send or write the collected values."""
        self._sink.flush()

    def _count(self, metric: str, event: str) -> None:
        self._sink.count(metric, event=self._told(event))

    def _told(self, event: str) -> str:
        """Return the name that *event* is counted under."""
        if event in self._names or self._declares(event):
            return event
        # A few more if several threads come at once.
        if len(self._names) >= MOST_NAMES:
            return OTHER
        self._names.add(event)
        return event

    def _step(self, function: str, kind: str, outcome: str, took: float) -> None:
        # There are many steps: their series are not looked up by name and tags.
        key = (function, kind, outcome)
        if key not in self._steps:
            tags = {"function": function, "kind": kind}
            self._steps[key] = (
                self._sink.series(f"step.{outcome}", "c", **tags).append,
                self._sink.series("step.duration", "ms", **tags).append,
            )
        count, time = self._steps[key]
        count(1)
        time(took)
        self._sink.tick()

    def _claimed(self, attempt: AttemptInfo, waited: float) -> None:
        sink, function = self._sink, attempt.function
        sink.timing("queue.wait", waited, queue=attempt.queue, function=function)
        sink.count("step.memoized", attempt.memoized, function=function)
        first = attempt.number == 1 and not attempt.memoized
        if first and attempt.branch is None:
            latency = attempt.claimed - attempt.event.at
            sink.timing("event.latency", latency, function=function)
