"""Blinker signals for the moments of :mod:`flask_durable.middleware`.

The sender of each is the app, so that a receiver can choose one of several apps in a
process. A receiver that raises is logged, and harms nothing.
"""

from __future__ import annotations

import contextlib
import typing as t

from blinker import Namespace
from blinker import Signal

from .middleware import Around
from .middleware import AttemptInfo
from .middleware import Middleware
from .middleware import NOTHING
from .middleware import RouteInfo
from .middleware import SendInfo
from .middleware import StepInfo

_signals = Namespace()

#: Sent after events were sent, with ``send``: a :class:`SendInfo`.
events_sent = _signals.signal("events-sent")

#: Sent after events were routed, with ``route``: a :class:`RouteInfo`.
events_routed = _signals.signal("events-routed")

#: Sent before and after an attempt of a run, with ``attempt``: an
#: :class:`AttemptInfo`.
attempt_started = _signals.signal("attempt-started")
attempt_finished = _signals.signal("attempt-finished")

#: Sent before and after an attempt of a step, with ``step``: a :class:`StepInfo`.
step_started = _signals.signal("step-started")
step_finished = _signals.signal("step-finished")


class SignalSender(Middleware):
    """Sends the signals of one app."""

    def __init__(self, app: object) -> None:
        self._app = app

    def around_send(self, send: SendInfo) -> Around:
        return self._around(None, events_sent, send=send)

    def around_route(self, route: RouteInfo) -> Around:
        return self._around(None, events_routed, route=route)

    def around_attempt(self, attempt: AttemptInfo) -> Around:
        return self._around(attempt_started, attempt_finished, attempt=attempt)

    def around_step(self, step: StepInfo) -> Around:
        return self._around(step_started, step_finished, step=step)

    def _around(self, before: Signal | None, after: Signal, **info: t.Any) -> Around:
        # Few signals have receivers, and there is one for each step.
        if after.receivers or (before is not None and before.receivers):
            return self._sending(before, after, info)
        return NOTHING

    @contextlib.contextmanager
    def _sending(
        self, before: Signal | None, after: Signal, info: dict[str, t.Any]
    ) -> t.Iterator[None]:
        if before is not None:
            before.send(self._app, **info)
        yield
        after.send(self._app, **info)
