"""Blinker signals for what middleware surrounds, see :mod:`flask_durable.middleware`.

The sender of each is the app, so that one of several apps in a process can be listened
to. A receiver that raises is logged, and harms nothing.
"""

from __future__ import annotations

import contextlib
import typing as t

from blinker import Namespace

from .middleware import AttemptInfo
from .middleware import Middleware
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

    @contextlib.contextmanager
    def around_send(self, send: SendInfo) -> t.Iterator[None]:
        yield
        events_sent.send(self._app, send=send)

    @contextlib.contextmanager
    def around_route(self, route: RouteInfo) -> t.Iterator[None]:
        yield
        events_routed.send(self._app, route=route)

    @contextlib.contextmanager
    def around_attempt(self, attempt: AttemptInfo) -> t.Iterator[None]:
        attempt_started.send(self._app, attempt=attempt)
        yield
        attempt_finished.send(self._app, attempt=attempt)

    @contextlib.contextmanager
    def around_step(self, step: StepInfo) -> t.Iterator[None]:
        step_started.send(self._app, step=step)
        yield
        step_finished.send(self._app, step=step)
