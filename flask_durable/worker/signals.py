"""The signals that end a worker, in this process and not in its children.

A step may fork: a child has a copy of the worker's handlers, which only note that there
was a signal. Nothing in the child asks for that, so it could not be ended by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import types
import typing as t

Handler = t.Callable[[int, types.FrameType | None], None]

#: The signals, and what took them before.
_before: dict[int, t.Any] = {}


def take_signals(handler: Handler) -> None:
    """Have *handler* called for ``SIGTERM`` and ``SIGINT``, in this process only."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        before = signal.signal(signum, handler)
        _before.setdefault(signum, before)


def _give_back() -> None:
    for signum, before in _before.items():
        # None: it was not Python's.
        signal.signal(signum, signal.SIG_DFL if before is None else before)
    _before.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_back)
