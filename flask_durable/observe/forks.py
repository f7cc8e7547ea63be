"""Resets buffers, locks and threads in a forked child."""

from __future__ import annotations

import os
import typing as t
import weakref


class Forgetful(t.Protocol):
    """An object that has to be reset in a forked child."""

    def forget(self) -> None:
        """Start afresh. No other thread runs."""


_alive: weakref.WeakSet[Forgetful] = weakref.WeakSet()


def forget_after_fork(forgetful: Forgetful) -> None:
    """Have *forgetful* reset in each forked child, for as long as it exists."""
    _alive.add(forgetful)


def _forget_all() -> None:
    for forgetful in _alive:
        forgetful.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
