"""What is not a child's after a fork: what its parent gathered, locks, threads."""

from __future__ import annotations

import os
import typing as t
import weakref


class Forgetful(t.Protocol):
    """Something that begins anew in a child."""

    def forget(self) -> None:
        """Begin anew. No other thread is there."""


_alive: weakref.WeakSet[Forgetful] = weakref.WeakSet()


def forget_after_fork(forgetful: Forgetful) -> None:
    """Let *forgetful* begin anew in each child, as long as it is there."""
    _alive.add(forgetful)


def _forget_all() -> None:
    for forgetful in _alive:
        forgetful.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
