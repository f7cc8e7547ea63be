"""Durations of runs, of their waits and of their steps, for metrics."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ...middleware import Around
from ...middleware import AttemptInfo
from ...middleware import Middleware
from ...middleware import StepInfo
from ...store.memo import WAITS

#: ``wait``: from queueing to a claim. ``run`` and ``branch``: from creation to end.
#: ``step``: one attempt of a step. ``resumed``: one that went on from a checkpoint, and
#: ``begun``: a step that begins to wait; these two have no time. ``answered``: from the
#: begin of a step's wait to its end.
Measure = t.Literal["wait", "run", "branch", "step", "resumed", "begun", "answered"]


class Listener(t.Protocol):
    """A receiver of durations. It must not block: run threads call it.

    The last argument is the kind of step, empty for a measure of no step.
    """

    def __call__(
        self,
        measure: Measure,
        attempt: AttemptInfo,
        seconds: float,
        outcome: str,
        kind: str,
    ) -> None: ...


class RunTimes(Middleware):
    """Measures once for all listeners, since each step pays for it.

    :param listeners: The receivers of the durations.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    @contextlib.contextmanager
    def around_attempt(self, attempt: AttemptInfo) -> t.Iterator[None]:
        waited = max(attempt.claimed - attempt.queued, 0) / 1000
        self._tell("wait", attempt, waited, attempt.outcome, "")
        began = time.monotonic()
        yield
        for wait in attempt.waits:
            self._tell("answered", attempt, wait.seconds, wait.outcome, wait.kind)
        if attempt.outcome in ("completed", "failed"):
            # The server's clock up to the claim: those of two processes may differ.
            before = max(attempt.claimed - attempt.created, 0) / 1000
            ran = time.monotonic() - began
            measure: Measure = "run" if attempt.branch is None else "branch"
            self._tell(measure, attempt, before + ran, attempt.outcome, "")

    def around_step(self, step: StepInfo) -> Around:
        return _Step(self._tell, step)

    def _tell(
        self,
        measure: Measure,
        attempt: AttemptInfo,
        seconds: float,
        outcome: str,
        kind: str,
    ) -> None:
        for listener in self._listeners:
            listener(measure, attempt, seconds, outcome, kind)


class _Step:
    """Measures a step; there are too many for a generator each."""

    def __init__(self, tell: Listener, step: StepInfo) -> None:
        self._tell = tell
        self._step = step

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        step = self._step
        if step.resumed:
            self._tell("resumed", step.attempt, 0.0, step.outcome, step.kind)
        if step.outcome == "interrupted":
            return
        # A wait is no work: its time says nothing about how long a step takes. One that
        # has its answer at once began, too.
        if step.outcome == "waiting" or step.kind in WAITS:
            self._tell("begun", step.attempt, 0.0, step.outcome, step.kind)
        else:
            seconds = time.monotonic() - self._began
            self._tell("step", step.attempt, seconds, step.outcome, step.kind)
