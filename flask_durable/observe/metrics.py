"""The metrics that a process sends of what it does itself; see the page on metrics.

What has to add up is counted in the store, and sent by the leader of the workers.
"""

from __future__ import annotations

import contextlib
import typing as t

from ..middleware import AttemptInfo
from ..middleware import Middleware
from ..middleware import RouteInfo
from ..middleware import SendInfo
from .statsd import Statsd
from .times import Measure

#: Takes a value of a series.
Append = t.Callable[[float], None]


class Metrics(Middleware):
    """Tells statsd of sends, routings, attempts and steps.

    :param statsd: Where it goes.
    """

    def __init__(self, statsd: Statsd) -> None:
        self._statsd = statsd
        self._steps: dict[tuple[str, str], tuple[Append, Append]] = {}

    @contextlib.contextmanager
    def around_send(self, send: SendInfo) -> t.Iterator[None]:
        yield
        for event, outcome in zip(send.events, send.outcomes, strict=False):
            name = outcome if isinstance(outcome, str) else "refused"
            self._statsd.count(f"event.{name}", event=event.name)
        self._statsd.flush()

    @contextlib.contextmanager
    def around_route(self, route: RouteInfo) -> t.Iterator[None]:
        yield
        for routed in route.events:
            name = routed.event.name
            if routed.error is not None:
                self._statsd.count("event.failed", event=name)
            elif routed.existing and not routed.created:
                self._statsd.count("event.duplicate", event=name)
            else:
                self._statsd.count("event.routed", event=name)

    def timed(
        self, measure: Measure, attempt: AttemptInfo, seconds: float, outcome: str
    ) -> None:
        """Tell statsd what was measured, and what is known with it."""
        function, took = attempt.function, seconds * 1000
        if measure == "step":
            self._step(function, outcome, took)
        elif measure == "run":
            self._statsd.timing("run.duration", took, function=function)
        else:
            self._claimed(attempt, took)

    def _step(self, function: str, outcome: str, took: float) -> None:
        # There are many: their series are not looked for by name and tags.
        key = (function, outcome)
        if key not in self._steps:
            series = self._statsd.series
            self._steps[key] = (
                series(f"step.{outcome}", "c", function=function).append,
                series("step.duration", "ms", function=function).append,
            )
        count, time = self._steps[key]
        count(1)
        time(took)
        self._statsd.tick()

    def _claimed(self, attempt: AttemptInfo, waited: float) -> None:
        statsd, function = self._statsd, attempt.function
        statsd.timing("queue.wait", waited, queue=attempt.queue, function=function)
        statsd.count("step.memoized", attempt.memoized, function=function)
        if attempt.number == 1 and not attempt.memoized:
            latency = attempt.claimed - attempt.event.at
            statsd.timing("event.latency", latency, function=function)
