"""The metrics that a process sends of what it does itself; see the page on metrics.

What has to add up is counted in the store, and sent by the leader of the workers.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from ..middleware import Around
from ..middleware import AttemptInfo
from ..middleware import Middleware
from ..middleware import RouteInfo
from ..middleware import SendInfo
from ..middleware import StepInfo
from .statsd import Statsd


class Metrics(Middleware):
    """Tells statsd of sends, routings, attempts and steps."""

    def __init__(self, statsd: Statsd) -> None:
        self._statsd = statsd

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

    @contextlib.contextmanager
    def around_attempt(self, attempt: AttemptInfo) -> t.Iterator[None]:
        statsd, function = self._statsd, attempt.function
        waited = attempt.claimed - attempt.queued
        statsd.timing("queue.wait", waited, queue=attempt.queue, function=function)
        statsd.count("step.memoized", attempt.memoized, function=function)
        if attempt.number == 1 and not attempt.memoized:
            latency = attempt.claimed - attempt.event.at
            statsd.timing("event.latency", latency, function=function)
        began = time.monotonic()
        yield
        if attempt.outcome in ("completed", "failed"):
            ran = (time.monotonic() - began) * 1000
            lasted = attempt.claimed - attempt.created + ran
            statsd.timing("run.duration", lasted, function=function)

    def around_step(self, step: StepInfo) -> Around:
        return _Step(self._statsd, step)


class _Step:
    """What is told of one step; there are too many for a generator each."""

    def __init__(self, statsd: Statsd, step: StepInfo) -> None:
        self._statsd = statsd
        self._step = step

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        outcome = self._step.outcome
        if outcome != "interrupted":
            took = (time.monotonic() - self._began) * 1000
            function = self._step.attempt.function
            self._statsd.count(_STEPS[outcome], function=function)
            self._statsd.timing("step.duration", took, function=function)


_STEPS = {name: f"step.{name}" for name in ("completed", "failed", "retried")}
