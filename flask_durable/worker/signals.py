"""The signals that end a worker, in this process and not in its children.

A step may fork: a child has a copy of the worker's handlers, which only note that there
was a signal. Nothing in the child asks for that, so it could not be ended by SIGTERM.

::

    before a fork: both signals are held back in the thread that forks
    in the child:  what took them before does so again ─► they come
    in the parent: they come

Held back, a signal that the child gets before its handlers are set is not taken by the
copies, and lost.
"""

from __future__ import annotations

import os
import signal
import threading
import types
import typing as t

Handler = t.Callable[[int, types.FrameType | None], None]

#: The signals, and what took them before.
_before: dict[int, t.Any] = {}
_mask = threading.local()


def take_signals(handler: Handler) -> None:
    """Have *handler* called for ``SIGTERM`` and ``SIGINT``, in this process only."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        before = signal.signal(signum, handler)
        _before.setdefault(signum, before)


def _hold_back() -> None:
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _before)


def _let_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _give_back() -> None:
    for signum, before in _before.items():
        # None: it was not Python's.
        signal.signal(signum, signal.SIG_DFL if before is None else before)
    _before.clear()
    _let_come()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_back, after_in_parent=_let_come, after_in_child=_give_back
    )
