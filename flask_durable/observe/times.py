"""What a process measures of runs and steps, for ``flask durable stats``."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ..middleware import AttemptInfo
from ..middleware import Middleware
from ..middleware import StepInfo

#: Told the measure, the function, and seconds.
Note = t.Callable[[t.Literal["run", "step", "wait"], str, float], None]


class RunTimes(Middleware):
    """Notes how long runs wait and take, and their steps.

    :param note: Keeps a time. It must not wait for anything: run threads call it.
    """

    def __init__(self, note: Note) -> None:
        self._note = note

    @contextlib.contextmanager
    def around_attempt(self, attempt: AttemptInfo) -> t.Iterator[None]:
        function = attempt.function
        self._note("wait", function, max(attempt.claimed - attempt.queued, 0) / 1000)
        began = time.monotonic()
        yield
        if attempt.outcome in ("completed", "failed"):
            # The server's clock up to the claim: those of two processes may differ.
            before = max(attempt.claimed - attempt.created, 0) / 1000
            self._note("run", function, before + time.monotonic() - began)

    @contextlib.contextmanager
    def around_step(self, step: StepInfo) -> t.Iterator[None]:
        began = time.monotonic()
        yield
        if step.outcome != "interrupted":
            self._note("step", step.attempt.function, time.monotonic() - began)
