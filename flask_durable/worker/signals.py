"""The signals that end a worker, in this process and not in its children.

A step may fork. The child has a copy of the worker's handlers, which only note that
there was a signal. Nothing in the child reads that note, so SIGTERM could not end it.

::

    before a fork: both signals are held back in the thread that forks
    in the child:  the handlers of before are set again ─► the signals come
    in the parent: the signals come

Because signals are held back, one that the child gets before its handlers are set does
not reach the copies, where it would be lost.
"""

from __future__ import annotations

import os
import signal
import threading
import types
import typing as t

Handler = t.Callable[[int, types.FrameType | None], None]

#: The signals, and their handlers of before.
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
